#!/usr/bin/env bash
# pycurl 7.49.0 with the libcurl 8.23.0 of its wheel.
#
# "Could not connect" can follow a POST that the server has received.
#
# Expected: CURLE_COULDNT_CONNECT (7, "Failed to connect() to host or proxy") says that no connection was made, so that the caller may
#   repeat a request that is not idempotent.
# Observed: libcurl sends a request again on a new connection when a connection that it used before ends without a byte of an answer, also
#   a POST. If the new connection is refused, because the server is being restarted, the error is that of the second attempt: 7. The server
#   has read the request whole. CURLINFO_REQUEST_SIZE shows that bytes were sent.
#
# Output seen:
#   libcurl 8.23.0
#   refused at once:         error 7, bytes sent: False, bodies received: []
#   ends after the request:  error 7, bytes sent: True, bodies received: ['order=1', 'order=2']
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check pycurl==7.49.0
cat > "$dir/observe.py" <<'PY'
import socket
import threading

import pycurl

received = []


def read_request(reader):
    length = 0
    while (line := reader.readline()) not in (b"\r\n", b""):
        name, _, value = line.partition(b":")
        length = int(value) if name.lower() == b"content-length" else length
    received.append(reader.read(length).decode())


def serve_once(listener):
    """Answer one request; read a second one on the same connection, stop listening, and end the connection."""
    connection, _ = listener.accept()
    with connection, connection.makefile("rb") as reader:
        read_request(reader)
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        read_request(reader)
        listener.close()


def post(curl, body):
    curl.setopt(pycurl.POSTFIELDS, body)
    try:
        curl.perform()
    except pycurl.error as error:
        return f"error {error.args[0]}, bytes sent: {curl.getinfo(pycurl.REQUEST_SIZE) > 0}"
    return "answered"


def open_curl(port):
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, f"http://127.0.0.1:{port}/")
    curl.setopt(pycurl.PROXY, "")
    curl.setopt(pycurl.TIMEOUT, 10)
    curl.setopt(pycurl.WRITEFUNCTION, lambda data: None)
    return curl


with socket.create_server(("127.0.0.1", 0)) as unused:
    port = unused.getsockname()[1]
refused = f"{post(open_curl(port), 'order=0')}, bodies received: {received}"
listener = socket.create_server(("127.0.0.1", 0))
server = threading.Thread(target=serve_once, args=(listener,))
server.start()
curl = open_curl(listener.getsockname()[1])
assert post(curl, "order=1") == "answered"
ended = post(curl, "order=2")
server.join(10)
print(f"libcurl {pycurl.version_info()[1]}")
print(f"refused at once:         {refused}")
print(f"ends after the request:  {ended}, bodies received: {received}")
PY
seen=$(grep -A3 '^# Output seen' "$0" | tail -3 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
