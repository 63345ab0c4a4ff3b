"""The numbers of the launch protocol, each declared once: Python imports them, `protocol_numbers` gives them to Lua.

Durations are seconds. docs/protocol.md says why each rule needs its number.
"""

from __future__ import annotations

from typing import Any

import msgspec

#: From this long after the first call of a launch, ListTasks may soon forget a short task: RunTask is not called again.
LIST_ONLY_AFTER = 40 * 60.0
#: From this long after the first call, ECS may have forgotten a short task and its token: an empty list proves nothing.
ABSENCE_UNPROVABLE_AFTER = 60 * 60.0
#: Times are stored to the millisecond; comparisons of stored times allow half of one.
TIME_TOLERANCE = 0.0005
#: A claim that a limit or a pause held back is due again after this time.
CLAIM_RETRY_SECONDS = 1.0
#: After this many times `max_deliveries` abandoned claims, a poison request is not even listed any more.
LIST_DELIVERIES_FACTOR = 2

#: How far a producer's clock may be off before a late duplicate of its request could run again.
MAX_CLOCK_SKEW = 300.0
#: The ledger drops the oldest dead letters beyond this number, beyond this many bytes (of their JSON; the newest one is
#: always kept), and at this age.
MAX_DEAD_LETTERS = 10_000
MAX_DEAD_LETTER_BYTES = 64 * 1024 * 1024
MAX_DEAD_LETTER_AGE = 30 * 86400.0

#: No number of a record is as large: times are seconds since the epoch.
MAX_STORED_NUMBER = 1e14
#: Characters of a number of a usual record, which is below that, and bytes of each of its texts.
MAX_USUAL_DIGITS, MAX_USUAL_BYTES = 14, 1024
#: No field of a record is longer: an envelope has at most 128 KiB. Bytes.
MAX_FIELD_BYTES = 4 * 1024 * 1024
#: The list of broken items takes no more than this; further ones stay where they are and are left out there.
MAX_BROKEN_ITEMS = 10_000
#: Characters of a reason in that list.
MAX_BROKEN_REASON = 300
#: A broken item is checked again after this time, then after as long as it has been broken, up to the second time.
BROKEN_CHECK_SECONDS, MAX_BROKEN_CHECK_SECONDS = 60.0, 3600.0
#: Records whose indexes are restored at once after an index was lost: some 20 ms in which the server serves no other.
RESTORE_BATCH = 1000
#: A clock that is behind a time that it has shown by more than this has gone back.
MAX_CLOCK_JITTER = 1.0

#: The factor by which a throttle lowers the rate of a token bucket.
DECREASE_FACTOR = 0.75
#: The share of the configured rate that a token bucket regains each second. Where every call is throttled, an eighth
#: of the rate is left.
RECOVERY_PER_SECOND = 0.02
#: Throttles within this time of a decrease answer calls that were made before it, and lower nothing.
DECREASE_INTERVAL = 2.0
#: A token bucket grants a token that is short of a whole one by this much: sums of floats are not exact.
TOKEN_TOLERANCE = 1e-6

#: How many launches that count for a queue's `max_starting` a claim checks, before it waits for them.
MAX_STARTING_CHECKED = 10
#: The priority of the requests of a key that come first.
HIGHEST_PRIORITY = 9
#: A request that waits for its concurrency key tries again after this time, without being woken; one with more than
#: that many requests before it after as many seconds, up to the second time.
KEY_RETRY_SECONDS, MAX_KEY_RETRY_SECONDS = 300.0, 3600.0
#: One that no worker has claimed for this time after it was woken lets those behind it pass.
KEY_TURN_SECONDS = 60.0
#: How many waiting requests of a key an operation looks at.
MAX_KEY_WAITERS_CHECKED = 10
#: How often it looks again at the first ones, after those that wait no more were dropped.
MAX_KEY_ROUNDS = 10
#: How many requests in flight of a full key a claim checks, and after how many seconds it checks the same one again.
MAX_KEY_HOLDERS_CHECKED, KEY_CHECK_SECONDS = 10, 60.0
#: How many idle runners of a pool a claim looks at, the one that was used last first.
MAX_IDLE_LOOKED_AT = 10
#: A run without an assignment is forgotten after this time.
IDLE_RUN_SECONDS = 24 * 3600.0
#: A request that an idle runner was given is looked at after this time: when it began, and whether it has.
FIRST_LOOK_SECONDS = 1.0
#: A wake-up is forgotten after this time: its runner asks anyway.
WAKE_SECONDS = 60.0
#: Beyond `stop_timeout`, the time that a cancelled command has until its runner is stopped.
CANCEL_GRACE_SECONDS = 10.0
#: For how long the ledger keeps on which variant of its capacity a queue launches, after the time of that variant.
CAPACITY_KEPT_SECONDS = 86400.0

_CONSTANTS = {name.lower(): number for name, number in list(globals().items()) if name.isupper()}


class ProtocolSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The configurable numbers; `ecs_queue.config.main_keys` has their meanings and defaults."""

    lease_seconds: float
    settle_seconds: float
    startup_allowance: float
    sweep_after_seconds: float
    max_in_flight: int
    accept_seconds: float
    max_deliveries: int
    retention_seconds: float
    runner_ttl: float
    runner_lost_seconds: float
    stop_timeout: float
    #: How long a result waits for an owner that never confirms it, at least. Not configurable.
    min_unconfirmed_retention: float = 7 * 86400.0

    @classmethod
    def from_config(cls, config: Any) -> ProtocolSettings:
        """Return the settings of a `Config`, whose attributes have the same names."""
        return msgspec.convert(config, cls, from_attributes=True)


def protocol_numbers(settings: ProtocolSettings) -> dict[str, float]:
    """Return every number of the protocol by its name in lower case: settings and constants, for the Lua script."""
    return {**_CONSTANTS, **msgspec.structs.asdict(settings)}
