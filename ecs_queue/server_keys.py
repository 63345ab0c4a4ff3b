"""What the keys of a namespace begin with in Redis or Valkey, without and with cluster mode.

A cluster places a key by the text between its first braces: all keys of a namespace are in one slot, on one node, and a
script may use any of them. They are the same without a cluster, so that a namespace can move to one with its data.
"""

from __future__ import annotations


def namespace_prefix(namespace: str) -> str:
    """Return what every key of a namespace begins with; a namespace has no braces."""
    return f"{{{namespace}}}:"


def former_live_key(namespace: str) -> str:
    """Return the key of the live requests in the versions whose keys had no braces."""
    return f"{namespace}:l:live"


def slot_key(prefix: str) -> str:
    """Return the key that every script declares; `prefix` is that of the ledger or the journal.

    It never exists. A node of a cluster that owns the slot runs the script. While the slot is on its way to another
    node, key by key, each node has a part of the keys, and a script would see the others as missing: then the node
    refuses the script, because this key is missing too.
    """
    return f"{prefix}slot"


def ledger_prefix(namespace: str) -> str:
    """Return what every key of a namespace's ledger begins with."""
    return f"{namespace_prefix(namespace)}l:"


def queue_prefix(namespace: str) -> str:
    """Return what every key of a namespace's queues begins with: kombu's `global_keyprefix`."""
    return f"{namespace_prefix(namespace)}q:"


def journal_prefix(namespace: str) -> str:
    """Return what every key of a namespace's journal begins with."""
    return f"{namespace_prefix(namespace)}j:"
