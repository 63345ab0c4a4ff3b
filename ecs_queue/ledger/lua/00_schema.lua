-- The schema. Every key begins with P = "{<namespace>}:l:" (the broker's keys begin with "{<namespace>}:q:").
--
--   P slot                         never exists; KEYS[1], so that a cluster runs the script where the keys are (server_keys.py)
--   P r:<id>               hash    one record; absent fields are "" or 0. protocol/record.py explains each field
--   P payload:<id>         hash    its `request` and `args`: a user of the server may read the one without the other
--   P due                  zset    id -> when to check next: LAUNCHING and LAUNCHED
--   P unclaimed:<queue>    zset    id -> when to check next: QUEUED, its message is on its way or lost
--   P retry:<queue>        zset    id -> not_before: QUEUED again, or for later; no message carries it
--   P delayed:<queue>      zset    id -> delayed_until: QUEUED requests that were submitted for later
--   P starting:<queue>     zset    id -> when it was claimed: launches that count for the queue's max_starting
--   P key_holders:<queue>|<key> zset  id -> when it was claimed, or last checked: requests in flight with a concurrency key
--   P key_waiting:<queue>  zset    "<key>\n<order> <id>" -> 0: QUEUED requests whose key is full, in their order (11_keys.lua)
--   P expiry               zset    id -> deadline: QUEUED records that have one
--   P undelivered:<owner>  zset    id -> finished_at: results that their owner has not confirmed
--   P arns                 hash    task ARN -> id, while the task is live
--   P live                 zset    id -> created_at
--   P finished             zset    id -> when the record's key expires
--   P counts               hash    <queue>|<state> -> number: live states now, terminal ones in all
--   P bucket:<name>        hash    tokens, at, share, lowered_at: a shared token bucket (protocol/token_bucket.py)
--   P capacity:<queue>     hash    variant, refusals, until, reason, reported: on which capacity it launches (protocol/capacity_fallback.py)
--   P paused               hash    queue -> since when its requests may not be claimed
--   P delivery:<nonce>     string  deliveries in a row of this request's body that no worker completed
--   P last_delivery:<nonce> string the delivery that was counted last
--   P dead_letters         hash    key -> JSON: dead letters, bounded in number, bytes and age
--   P dead_letter_times    zset    key -> when it was added
--   P dead_letter_bytes    string  the lengths of all values of P dead_letters together
--   P event_health         hash    <source>|<fact> -> when it was last true (protocol/event_health.py)
--   P old_workers          string  for a second: "1" if a worker of the version before was alive, else "0"
--   P workers              hash    name -> "<seen at> <forget at> <JSON>"
--   P broken               hash    "<kind> <name>" -> "<since> <how far its index is restored> <reason>": what could not be used
--   P broken_checks        zset    "<kind> <name>" -> when to check again whether it can be used
--   P aside:<key>                  what stood at P <key> and could not be used
--   P run:<name>           hash    what is known of one runner (protocol/runs.py). No TTL while it has an assignment
--   P turn:<name>          string  the payload of its assignment: users who may stop requests may not read it
--   P wake:<name>          list    one entry: its run has changed, for a runner that waits
--   P changed_runs         zset    name -> when: its runner has changed the run, for a launcher to look at
--   P idle:<pool>          zset    name -> since when it is idle. Entries may be stale, the run decides
--   P runners              zset    name -> when its launch was claimed: the runs that there may be
--   P clock                hash    `shown`: what the clock showed when it was last read, to the second
--
-- script_text.py makes a script for each operation, of the statements in these files that it uses, directly or not: a run
-- creates every function and table anew. The entries of SETTINGS (protocol/settings.py) and REASONS (protocol/reasons.py) become
-- constants. Above the statements stand RECORD_NUMBERS (the numeric fields of a record and their defaults), RECORD_TEXTS (the
-- short texts among its fields), LIVE_STATES, TERMINAL_STATES and STATUS_RANKS (the order of a task's statuses,
-- protocol/task_order.py), where they are used.
--
-- KEYS: 1 P slot. ARGV: 1 operation, 2 P, 3 now ("" = the server's TIME), 4 number of arguments per call, 5 "1" if a barrier follows,
-- then the arguments. Times are in seconds, to the millisecond. A reply is a list: the result code, then the record as
-- {id, field, value, ...} where the caller needs it. With a number in ARGV 4 the arguments are those of several calls in a row, and the reply is the
-- list of their replies: setting up the script costs as much as one call.
-- protocol/state_machine/ is the same protocol in Python, for the in-memory ledger.

local P = ARGV[2]
-- Rounded as times are stored: otherwise a record leased at its very time could lie after NOW for the next operation.
-- Whole milliseconds are divided once, which gives the number that the text of the time is read as.
local NOW = tonumber(ARGV[3])
if NOW then
  NOW = tonumber(string.format('%.3f', NOW))
else
  local time = redis.call('TIME')
  NOW = math.floor(tonumber(time[1]) * 1000 + tonumber(time[2]) / 1000 + 0.5) / 1000
end
local ARGUMENTS_PER_CALL, FIRST_ARGUMENT = tonumber(ARGV[4]), 6
local BARRIER_FOLLOWS = ARGV[5] == '1'

local operations = {}
