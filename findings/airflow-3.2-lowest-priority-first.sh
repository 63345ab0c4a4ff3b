#!/usr/bin/env bash
# apache-airflow 3.2.2.
#
# An executor whose slots are full is handed the task with the lowest priority_weight first.
#
# Expected: "tasks are sorted by priority_weight (higher priority first)", as BaseExecutor's own docstring and Airflow's documentation
#   of priority weights say, and as 3.1 does.
# Observed: order_queued_tasks_by_priority sorts ascending. With one open slot and tasks of weight 1, 10 and 100 queued, the task of
#   weight 1 is sent. The scheduler chooses by weight before, so it shows only where [core] parallelism is the limit.
#
# Output seen:
#   queued with priority_weight 10, 100, 1; sent with one open slot: 1
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check apache-airflow==3.2.2
cat > "$dir/observe.py" <<'PY'
import os
import sys

os.environ["AIRFLOW_HOME"] = sys.argv[1]

from airflow.executors.base_executor import BaseExecutor


class Queued:
    """What the executor reads of a workload: the weight of its task instance."""

    class TaskInstance:
        def __init__(self, weight):
            self.priority_weight = weight

    def __init__(self, weight):
        self.ti = self.TaskInstance(weight)


class Executor(BaseExecutor):
    def _process_workloads(self, workloads):
        print("queued with priority_weight 10, 100, 1; sent with one open slot:", *(workload.ti.priority_weight for workload in workloads))


executor = Executor(parallelism=1)
for weight in (10, 100, 1):
    executor.queued_tasks[f"task of weight {weight}"] = Queued(weight)
executor.trigger_tasks(open_slots=1)
PY
seen=$(grep -A1 '^# Output seen' "$0" | tail -1 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir" 2>/dev/null | tail -1) # before it stands a warning with the time
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
