-- THE schema. Every key of a namespace, P = "<namespace>:l:" (kombu's own keys start with "<namespace>:q:").
--
--   P r:<id>               hash    one record; absent fields are "" or 0. protocol/record.py says what each one means
--   P due                  zset    id -> when to look next: LAUNCHING and LAUNCHED
--   P unclaimed:<queue>    zset    id -> when to look next: QUEUED, its message is on its way or lost
--   P retry:<queue>        zset    id -> not_before: QUEUED again, no message carries it
--   P expiry               zset    id -> deadline: QUEUED records that have one
--   P undelivered:<owner>  zset    id -> finished_at: results that their owner has not confirmed
--   P arns                 hash    task ARN -> id, while the task is live
--   P live                 zset    id -> created_at
--   P finished             zset    id -> when the record's key expires
--   P counts               hash    <queue>|<state> -> number; live states as they are, terminal ones in all
--   P bucket:<name>        hash    tokens, at, share, lowered_at: a token bucket shared by all workers (protocol/token_bucket.py)
--   P paused               hash    queue -> since when no request of it may be claimed
--   P delivery:<nonce>     string  how many in a row took this request's body in hand and never let go of it
--   P dead_letters         hash    key -> JSON: dead letters, bounded in number, bytes and age
--   P dead_letter_times    zset    key -> buried at
--   P dead_letter_bytes    string  the lengths of all values of P dead_letters together
--   P event_health         hash    <source>|<fact> -> when it was last so (protocol/event_health.py)
--   P workers              hash    name -> "<seen at> <forgotten at> <JSON>"
--
-- ARGV: 1 operation, 2 P, 3 now ("" = the server's TIME), 4 lease, 5 settle, 6 startup allowance, 7 ring,
-- 8 max_in_flight, 9 retention, 10 cap for the never confirmed, 11 how long a request that was stopped before it came
-- may still come, 12 max_deliveries, 13 how many arguments a call has; then the operation's own. Seconds everywhere, to
-- the millisecond. An answer is a list: word, then where the caller has a use for it the record as {id, field, value, ...}.
-- With a number in 13 the arguments are those of many calls, one behind the other, and the answer is the list of theirs:
-- setting up the script costs as much as a call.
-- protocol/state_machine.py is the same protocol in Python, for the in-memory ledger.

local P = ARGV[2]
local NOW = tonumber(ARGV[3])
if not NOW then
  local time = redis.call('TIME')
  NOW = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
-- As times are stored: else a score popped at its very time could still lie after NOW for the next operation.
NOW = tonumber(string.format('%.3f', NOW))
local LEASE, SETTLE, ALLOWANCE, SWEEP_AFTER = tonumber(ARGV[4]), tonumber(ARGV[5]), tonumber(ARGV[6]), tonumber(ARGV[7])
local MAX_IN_FLIGHT, RETENTION = tonumber(ARGV[8]), tonumber(ARGV[9])
local MIN_UNCONFIRMED_RETENTION, ACCEPT, MAX_DELIVERIES = tonumber(ARGV[10]), tonumber(ARGV[11]), tonumber(ARGV[12])
local ARGUMENTS_PER_CALL, ARG = tonumber(ARGV[13]), 13 -- the operation's first own argument is ARGV[ARG + 1]

local LIST_ONLY_AFTER, ABSENCE_UNPROVABLE_AFTER = 40 * 60, 60 * 60
local MAX_CLOCK_SKEW = 300 -- how far a producer's clock may be off before a late duplicate could run again
local MAX_DEAD_LETTERS, MAX_DEAD_LETTER_BYTES, MAX_DEAD_LETTER_AGE = 10000, 64 * 1024 * 1024, 30 * 86400

local operations = {}
