#!/usr/bin/env bash
# botocore 1.44.8, retry mode "standard" with three attempts (its default mode).
#
# A client whose every call succeeds at its third attempt runs out of retries after some dozens of calls, and does not recover.
#
# Expected: the retry quota protects a service that is down. A call that succeeds gives back what its retries took, so a steady trickle
#   of errors that retries always cure goes on being cured.
# Observed: the endpoint answers each call with 500, 500, then 200. A success gives back the cost of its last retry only, so each call
#   costs the quota of the first one for good. Calls are cured until the quota is used up; from then on the second 500 is raised,
#   although the endpoint behaves as before and the third attempt would succeed.
#
# Output seen:
#   calls cured by retries before the first error: 34
#   then: ServerException at attempt 2, reached max retries: False
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check botocore==1.44.8
cat > "$dir/observe.py" <<'PY'
import http.server
import threading
import time

import botocore.config
import botocore.exceptions
import botocore.session

time.sleep = lambda seconds: None  # the back-off between attempts is of no interest here
attempts = 0


class Endpoint(http.server.BaseHTTPRequestHandler):
    """ECS: 500, 500, 200, and again."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        global attempts
        self.rfile.read(int(self.headers["Content-Length"]))
        attempts += 1
        good = attempts % 3 == 0
        body = b'{"taskArns": []}' if good else b'{"__type": "ServerException", "message": "try again"}'
        self.send_response(200 if good else 500)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Endpoint) as server:
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = botocore.session.get_session().create_client(
        "ecs",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
        aws_access_key_id="x",
        aws_secret_access_key="x",
        config=botocore.config.Config(retries={"mode": "standard", "max_attempts": 3}),
    )
    cured = 0
    while cured < 1000:
        attempts = 0
        try:
            client.list_tasks()
            cured += 1
        except botocore.exceptions.ClientError as error:
            metadata = error.response["ResponseMetadata"]
            print("calls cured by retries before the first error:", cured)
            reached = metadata.get("MaxAttemptsReached", False)
            print(f"then: {error.response['Error']['Code']} at attempt {attempts}, reached max retries: {reached}")
            break
    else:
        print("1,000 calls were cured by retries")
    server.shutdown()
PY
seen=$(grep -A2 '^# Output seen' "$0" | tail -2 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
