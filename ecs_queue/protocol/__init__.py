"""The launch protocol as pure rules: records, states, operations and decisions (docs/protocol.md). No I/O, no clock."""
