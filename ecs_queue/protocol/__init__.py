"""The pure core: no I/O, no clock and no randomness of its own. It imports nothing of ours but errors."""
