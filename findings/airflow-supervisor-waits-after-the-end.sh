#!/usr/bin/env bash
# apache-airflow 3.3.2 with apache-airflow-task-sdk 1.3.2.
#
# The supervisor of a task goes on for up to [workers] min_heartbeat_interval, 5 s, after the task's process has ended.
#
# Expected: the supervisor's loop "waits in select for as long as possible, so that it notices the end of the process as quickly as it
#   can"; a process that ends 0.3 s after its streams is noticed after 0.3 s.
# Observed: the end of the last stream wakes the supervisor, which asks once whether the process has ended. If it has not yet, the next
#   select has no stream left and waits its full time. A process closes two of its streams by itself before it ends, and the kernel
#   the others, so on a busy machine most short tasks lose this race: of 40 tasks, ten at a time on two cores, 24 supervisors ended
#   5.1 to 5.6 s after Airflow had the end of their task, the others after 0.1 to 0.5 s. The slot of the executor is taken that long.
#
# Output seen:
#   the task's process ends 0.3 s after its streams; wait() returns after 5 s
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check apache-airflow==3.3.2 apache-airflow-task-sdk==1.3.2
cat > "$dir/observe.py" <<'PY'
import os
import socket
import sys
import time
import uuid

os.environ["AIRFLOW_HOME"] = sys.argv[1]
os.environ["AIRFLOW__LOGGING__LOGGING_LEVEL"] = "CRITICAL"

from datetime import datetime, timezone
from unittest.mock import MagicMock

from airflow.sdk.api.client import Client
from airflow.sdk.api.datamodels._generated import BundleInfo, DagRun, TaskInstance, TIRunContext
from airflow.sdk.execution_time.supervisor import ActivitySubprocess

PAUSE = 0.3


def close_then_end():
    """What a task's process does at its end: its streams close, and a moment later it has ended."""
    sys.stdout.flush()
    os.closerange(0, 1024)
    time.sleep(PAUSE)
    os._exit(0)


def task():
    return TaskInstance(id=uuid.uuid4(), dag_version_id=uuid.uuid4(), task_id="t", dag_id="d", run_id="r", try_number=1, hostname="h")


NOW = datetime.now(timezone.utc)
run = DagRun(
    dag_id="d", run_id="r", logical_date=NOW, data_interval_start=NOW, data_interval_end=NOW, run_after=NOW,
    start_date=NOW, end_date=None, run_type="manual", state="running", conf={}, consumed_asset_events=[], partition_key=None,
)
client = MagicMock(spec=Client)
client.task_instances.start.return_value = TIRunContext(dag_run=run, max_tries=0, variables=[], connections=[])
process = ActivitySubprocess.start(
    what=task(), dag_rel_path="d.py", bundle_info=BundleInfo(name="b", version=None), client=client, target=close_then_end
)
began = time.monotonic()
process.wait()
took = time.monotonic() - began
print(f"the task's process ends {PAUSE} s after its streams; wait() returns after {took:.0f} s")
PY
seen=$(grep -A1 '^# Output seen' "$0" | tail -1 | sed 's/^#   //')
now=$("$dir/venv/bin/python" -W ignore "$dir/observe.py" "$dir" 2>/dev/null | tail -1)
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
