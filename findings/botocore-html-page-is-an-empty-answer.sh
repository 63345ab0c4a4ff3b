#!/usr/bin/env bash
# botocore 1.44.8, service ecs.
#
# An HTML page with status 200, as proxies and captive portals send it, is a successful answer without members.
#
# Expected: an answer that is no answer of the service (Content-Type text/html, a body that is not JSON) raises a parse error.
# Observed: no error. DescribeTasks has neither tasks nor failures, DescribeClusters no clusters, StopTask seems done: a caller that
#   reads the members with .get() takes an unreachable service for "nothing there".
#
# Output seen:
#   describe_tasks members: []
#   describe_clusters members: []
#   stop_task members: []
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check botocore==1.44.8
cat > "$dir/observe.py" <<'PY'
import http.server
import threading

import botocore.session


class Proxy(http.server.BaseHTTPRequestHandler):
    """Answer everything with a page."""

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b"<!doctype html><title>Sign in</title><p>Sign in to use this network.</p>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *arguments):
        pass


with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Proxy) as server:
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    client = botocore.session.get_session().create_client(
        "ecs",
        region_name="us-east-1",
        endpoint_url=f"http://127.0.0.1:{server.server_address[1]}",
        aws_access_key_id="x",
        aws_secret_access_key="x",
    )
    for name, arguments in [("describe_tasks", {"tasks": ["a"]}), ("describe_clusters", {}), ("stop_task", {"task": "a"})]:
        try:
            answer = getattr(client, name)(**arguments)
            print(f"{name} members:", sorted(set(answer) - {"ResponseMetadata"}))
        except Exception as error:
            print(f"{name} raised", type(error).__name__)
    server.shutdown()
PY
seen=$(grep -A3 '^# Output seen' "$0" | tail -3 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
