#!/usr/bin/env bash
# Playwright for Python 1.65.2.
#
# A bound method of a built-in type cannot be a listener: `page.on("request", seen.append)` raises AttributeError.
#
# Expected: `on` takes any callable, as it takes functions, lambdas and bound methods of classes.
# Observed: AttributeError, as Playwright sets an attribute on the listener itself, which a built-in method has no place for. The same
#   with `expose_function`. A lambda around it works. Every object that has events behaves so; the script needs no browser.
#
# Output seen:
#   a lambda: accepted
#   list.append: AttributeError: 'builtin_function_or_method' object has no attribute '_pw_impl_instance_'
set -euo pipefail
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
python3 -m venv "$dir/venv"
"$dir/venv/bin/pip" install --quiet --disable-pip-version-check playwright==1.65.2
cat > "$dir/observe.py" <<'PY'
from playwright.sync_api import sync_playwright

seen = []
with sync_playwright() as playwright:
    for name, listener in (("a lambda", lambda event: seen.append(event)), ("list.append", seen.append)):
        try:
            playwright.chromium.on("request", listener)
            print(f"{name}: accepted")
        except AttributeError as error:
            print(f"{name}: AttributeError: {error}")
PY
seen=$(grep -A2 '^# Output seen' "$0" | tail -2 | sed 's/^#   //')
now=$("$dir/venv/bin/python" "$dir/observe.py")
echo "$now"
[ "$now" = "$seen" ] || { echo "changed; seen before: $seen"; exit 1; }
