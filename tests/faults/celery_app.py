"""An unrelated Celery application that shares a database with ecs-queue."""

from __future__ import annotations

import os

from celery import Celery

app = Celery("unrelated", broker=os.environ["CELERY_SERVER"], backend=os.environ["CELERY_SERVER"])
app.conf.update(
    task_acks_late=True,
    broker_transport_options={"visibility_timeout": 1},  # it restores the messages that it takes for its own
    broker_connection_retry_on_startup=True,
    worker_hijack_root_logger=False,
)


@app.task(name="unrelated.double")  # type: ignore[untyped-decorator]
def double(number: int) -> int:
    """Twice the number."""
    return 2 * number
