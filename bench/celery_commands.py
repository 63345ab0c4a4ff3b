"""For comparison: a Celery worker whose task runs a command as a subprocess."""

from __future__ import annotations

import os
import subprocess

from celery import Celery

app = Celery("bench", broker=os.environ["BENCH_CELERY_BROKER"], backend=os.environ["BENCH_CELERY_BROKER"])
app.conf.update(task_acks_late=True, worker_prefetch_multiplier=1, result_expires=600)


@app.task(name="run")  # type: ignore[untyped-decorator,unused-ignore]
def run(command: list[str]) -> int:
    """Run a command, and return its exit code."""
    return subprocess.run(command, check=False).returncode
