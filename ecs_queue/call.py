"""`python -m ecs_queue.call`: runs one function call in its container; `EcsExecutor` starts it (docs/functions.md)."""

from __future__ import annotations

import sys

from ecs_queue.calls.container import main

if __name__ == "__main__":
    sys.exit(main())
