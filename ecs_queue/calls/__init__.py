"""Functions that run in containers: `EcsExecutor` sends a call as a request and returns what the function returned.

- `executor`: the caller's side, a `concurrent.futures.Executor`.
- `container`: the container's side, `python -m ecs_queue.call`.
- `payload`: what the two write for each other: encoded, signed with the queue's key, bounded.
- `store`: where they write it: the ledger's server, or S3.
"""
