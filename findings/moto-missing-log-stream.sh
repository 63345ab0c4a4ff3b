#!/usr/bin/env bash
# moto 5.2.5, boto3 1.44.8.
#
# GetLogEvents of a stream that does not exist says that its group does not exist.
#
# Expected: as on AWS, "The specified log stream does not exist.": a program that waits for the first line of a container
# tells a stream that is still to come from a group that was deleted or misspelt.
# Observed: the same text for both. describe_log_groups shows that the group is there.
#
# Output seen:
#   groups: ['/tasks']
#   stream of /tasks: ResourceNotFoundException: The specified log group does not exist.
#   stream of /none: ResourceNotFoundException: The specified log group does not exist.
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check 'moto[logs]==5.2.5' boto3==1.44.8
cat > "$dir/observe.py" <<'PY'
import boto3
import botocore.exceptions
import moto

with moto.mock_aws():
    logs = boto3.client("logs", region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    logs.create_log_group(logGroupName="/tasks")
    print("groups:", [group["logGroupName"] for group in logs.describe_log_groups()["logGroups"]])
    for group in ("/tasks", "/none"):
        try:
            logs.get_log_events(logGroupName=group, logStreamName="main/main/1")
        except botocore.exceptions.ClientError as error:
            print(f"stream of {group}: {error.response['Error']['Code']}: {error.response['Error']['Message']}")
PY
seen=$(grep -A3 '^# Output seen' "$0" | tail -3 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
