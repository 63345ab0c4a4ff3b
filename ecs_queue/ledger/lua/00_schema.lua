-- The schema. Every key begins with P = "<namespace>:l:" (the broker's keys begin with "<namespace>:q:").
--
--   P r:<id>               hash    one record; absent fields are "" or 0. protocol/record.py explains each field
--   P due                  zset    id -> when to check next: LAUNCHING and LAUNCHED
--   P unclaimed:<queue>    zset    id -> when to check next: QUEUED, its message is on its way or lost
--   P retry:<queue>        zset    id -> not_before: QUEUED again, no message carries it
--   P expiry               zset    id -> deadline: QUEUED records that have one
--   P undelivered:<owner>  zset    id -> finished_at: results that their owner has not confirmed
--   P arns                 hash    task ARN -> id, while the task is live
--   P live                 zset    id -> created_at
--   P finished             zset    id -> when the record's key expires
--   P counts               hash    <queue>|<state> -> number: live states now, terminal ones in all
--   P bucket:<name>        hash    tokens, at, share, lowered_at: a shared token bucket (protocol/token_bucket.py)
--   P paused               hash    queue -> since when its requests may not be claimed
--   P delivery:<nonce>     string  deliveries in a row of this request's body that no worker completed
--   P last_delivery:<nonce> string the delivery that was counted last
--   P dead_letters         hash    key -> JSON: dead letters, bounded in number, bytes and age
--   P dead_letter_times    zset    key -> when it was added
--   P dead_letter_bytes    string  the lengths of all values of P dead_letters together
--   P event_health         hash    <source>|<fact> -> when it was last true (protocol/event_health.py)
--   P workers              hash    name -> "<seen at> <forget at> <JSON>"
--
-- redis_script.py renders SETTINGS (protocol/settings.py), REASONS (protocol/reasons.py), RECORD_NUMBERS (the numeric
-- fields of a record and their defaults), LIVE_STATES, TERMINAL_STATES and STATUS_RANKS (the order of a task's statuses,
-- protocol/task_order.py) above this file.
--
-- ARGV: 1 operation, 2 P, 3 now ("" = the server's TIME), 4 number of arguments per call, 5 "1" if a barrier follows,
-- then the arguments. Times are in seconds, to the millisecond. A reply is a list: the result code, then the record as
-- {id, field, value, ...} where the caller needs it. With a number in ARGV 4 the arguments are those of several calls in a row, and the reply is the
-- list of their replies: setting up the script costs as much as one call.
-- protocol/state_machine.py is the same protocol in Python, for the in-memory ledger.

local P = ARGV[2]
local NOW = tonumber(ARGV[3])
if not NOW then
  local time = redis.call('TIME')
  NOW = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
-- Rounded as times are stored: otherwise a record leased at its very time could lie after NOW for the next operation.
NOW = tonumber(string.format('%.3f', NOW))
local ARGUMENTS_PER_CALL, FIRST_ARGUMENT = tonumber(ARGV[4]), 6
local BARRIER_FOLLOWS = ARGV[5] == '1'

local operations = {}
