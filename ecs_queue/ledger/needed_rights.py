"""Which rights the ledger needs of its server, and which of them the server denies.

The server is asked with `redis.acl_check_cmd` (Redis 7.0, Valkey), which changes nothing and adds nothing to ACL LOG.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import redis.exceptions

from ecs_queue.ledger.redis_script import barrier_command
from ecs_queue.server_keys import slot_key
from ecs_queue.server_users import ServerUser, ledger_rights

#: A command and its first argument, or a command alone: ("ZADD", "{ecs-queue}:l:due"), ("INFO",).
Right = tuple[str, ...]

#: Returns the positions of the rights that the server denies. A command that it does not know is no matter of rights.
_PROBE = """
local denied = {}
if not redis.acl_check_cmd then return denied end
for i, right in ipairs(ARGV) do
  local words = {}
  for word in string.gmatch(right, '%S+') do words[#words + 1] = word end
  local known, allowed = pcall(redis.acl_check_cmd, unpack(words))
  if known and not allowed then denied[#denied + 1] = i end
end
return denied
"""


def needed_rights(user: ServerUser, prefix: str, durability: str = "") -> list[Right]:
    """Return the rights on the ledger without which an operation of this user fails, in a fixed order.

    Args:
        user: Who it is.
        prefix: What every key of the ledger begins with.
        durability: That of the ledger: its barrier is a command.
    """
    barrier = barrier_command(durability, 0)[:1] if user is not ServerUser.READER else ()
    rights: dict[Right, None] = dict.fromkeys(ledger_rights(user, prefix))
    return [*rights, barrier] if barrier else list(rights)


def find_denied(client: Any, rights: Sequence[Right], prefix: str) -> list[Right]:
    """Return those of the rights that the server denies; [] where it cannot be asked.

    Args:
        client: The connection pool.
        rights: What to ask for.
        prefix: What the keys of ledger or journal begin with.

    Raises:
        redis.exceptions.RedisError: Among others NoPermissionError: this user may not even run a script.
    """
    digest, words = client.script_load(_PROBE), [" ".join(right) for right in rights]
    try:
        denied = client.evalsha(digest, 0, *words)
    except redis.exceptions.NoPermissionError:
        raise
    except redis.exceptions.ResponseError:  # services of AWS refuse a script without a key
        denied = client.evalsha(digest, 1, slot_key(prefix), *words)
    return [rights[position - 1] for position in denied]


def format_rights(rights: Sequence[Right]) -> str:
    """Return the rights for a sentence: `ZADD on {ecs-queue}:l:due`."""
    return ", ".join(f"{right[0]} on {right[1]}" if len(right) > 1 else right[0] for right in rights)
