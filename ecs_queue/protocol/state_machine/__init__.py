"""The rules of the launch protocol as pure functions over one record (docs/protocol.md).

Each function decides one atomic operation: it takes the record, changes it in place and returns a `ResultCode`; `now`
is the ledger's clock, in seconds since the epoch. The in-memory ledger calls these functions, the Redis ledger runs
the same rules in Lua. The conformance suite runs on both ledgers, and a test compares them after random operations.

Any worker may report a positive fact ("task X exists for launch n"). Only the holder of the claim may report a negative
one ("no task was started"), and only while no earlier call of the launch is ambiguous.
"""
