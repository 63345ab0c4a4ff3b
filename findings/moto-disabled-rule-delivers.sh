#!/usr/bin/env bash
# moto 5.2.5, boto3 1.44.8.
#
# A disabled EventBridge rule delivers all the same.
#
# Expected: as on AWS, a rule in state DISABLED matches nothing: a program that pauses a feed with disable_rule sees no events.
# Observed: describe_rule says DISABLED, and put_events reaches the rule's queue as before.
#
# Output seen:
#   state ENABLED, messages delivered: 1
#   state DISABLED, messages delivered: 1
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check 'moto[sqs,events]==5.2.5' boto3==1.44.8
cat > "$dir/observe.py" <<'PY'
import json

import boto3
import moto

with moto.mock_aws():
    session = boto3.Session(region_name="us-east-1", aws_access_key_id="x", aws_secret_access_key="x")
    events, sqs = session.client("events"), session.client("sqs")
    url = sqs.create_queue(QueueName="feed")["QueueUrl"]
    arn = sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    events.put_rule(Name="feed", EventPattern=json.dumps({"source": ["example"]}))
    events.put_targets(Rule="feed", Targets=[{"Id": "1", "Arn": arn}])
    for disable in (False, True):
        if disable:
            events.disable_rule(Name="feed")
        events.put_events(Entries=[{"Source": "example", "DetailType": "x", "Detail": "{}"}])
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10).get("Messages", [])
        for message in messages:
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
        print(f"state {events.describe_rule(Name='feed')['State']}, messages delivered: {len(messages)}")
PY
seen=$(grep -A2 '^# Output seen' "$0" | tail -2 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
