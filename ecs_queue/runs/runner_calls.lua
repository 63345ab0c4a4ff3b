-- What a runner calls: next, beat and leave (protocol/runs.py has the same rules). The schema is in
-- ../ledger/lua/00_schema.lua; a runner touches these keys only:
--
--   P run:<name>    hash   its run; absent fields are "" or 0
--   P turn:<name>   string the payload of its assignment
--   P changed_runs  zset   name -> when: its run has changed, for a launcher to look at
--
-- KEYS[1] never exists (server_keys.py). ARGV: 1 operation, 2 P, 3 now ("" = the server's TIME), 4 "1" if a barrier follows, 5 name, 6 boot, then
--   next, leave    7 ARN, 8 turn, 9 exit code, 10 "1" if it was cancelled, 11 MAC, 12 ID.NONCE.LAUNCH of the command
--                  or "": of the end; "" without one
--   beat           7 turn
-- Replies: next {'turn', turn, id, nonce, launch, payload, time limit} or {'wait'} or {'leave'}; beat {'cancel'} or
-- {'go_on'}; leave {'leave'} or {'busy'}.

local P, NAME, BOOT = ARGV[2], ARGV[5], ARGV[6]
local NOW = tonumber(ARGV[3])
if not NOW then
  local time = redis.call('TIME')
  NOW = tonumber(time[1]) + tonumber(time[2]) / 1e6
end
NOW = string.format('%.3f', NOW)
local RUN, TURN = P .. 'run:' .. NAME, P .. 'turn:' .. NAME
local IDLE_MILLISECONDS = 24 * 3600 * 1000 -- without an assignment, a run is kept for this long after its last call

-- A server that is full checks only the first write of a script, and DEL needs no memory: an end is reported then, too.
redis.call('DEL', P .. 'run:')

local FIELDS = {
  'phase', 'boot', 'closed', 'turn', 'cancel', 'id', 'nonce', 'launch', 'time_limit', 'exit_code', 'cancelled', 'mac',
}
local function load_run()
  local values = redis.pcall('HMGET', RUN, unpack(FIELDS))
  if values.err then
    if not string.find(values.err, 'WRONGTYPE', 1, true) then error(values, 0) end
    return nil -- no hash: as absent
  end
  if not values[1] then return nil end
  local run = {}
  for i, field in ipairs(FIELDS) do run[field] = values[i] or '' end
  return run
end

local function note_change() redis.call('ZADD', P .. 'changed_runs', NOW, NAME) end

-- Whether the end is that of the command that the run has: the turn alone may be given again by a ledger that has lost
-- its last writes.
local function has_own_end(run)
  if ARGV[8] == '' or ARGV[8] ~= run.turn then return false end
  return ARGV[12] == '' or ARGV[12] == run.id .. '.' .. run.nonce .. '.' .. run.launch
end

-- The run, nil if it is not this process's. The first process binds it, and an end counts only for its own command.
local function begin()
  local run = load_run()
  if not run or (run.boot ~= '' and run.boot ~= BOOT) then return nil end
  if run.boot == '' then
    redis.call('HSET', RUN, 'boot', BOOT, 'arn', ARGV[7])
  end
  redis.call('HSET', RUN, 'seen_at', NOW)
  if run.phase == 'fetched' and has_own_end(run) then
    run.phase = 'ended'
    run.exit_code, run.cancelled, run.mac = ARGV[9], ARGV[10], ARGV[11]
    redis.call('HSET', RUN, 'phase', 'ended', 'exit_code', ARGV[9], 'cancelled', ARGV[10], 'mac', ARGV[11], 'ended_at', NOW)
    note_change()
  end
  return run
end

-- Whether the run has another end of its command than the one that its runner reports: a forger's.
local function has_foreign_end(run)
  if run.phase ~= 'ended' then return false end
  return ARGV[8] ~= run.turn or ARGV[9] ~= run.exit_code or ARGV[10] ~= run.cancelled or ARGV[11] ~= run.mac
end

local operations = {}

function operations.next()
  local run = begin()
  if not run then return { 'leave' } end
  if run.phase == 'assigned' then
    run.phase = 'fetched'
    redis.call('HSET', RUN, 'phase', 'fetched', 'fetched_at', NOW)
    if run.turn == '1' then note_change() end -- its record has no task yet; later ones have it from their claim
  end
  if run.phase == 'fetched' then
    return { 'turn', run.turn, run.id, run.nonce, run.launch, redis.call('GET', TURN) or '', run.time_limit }
  end
  if run.phase == 'idle' then redis.call('PEXPIRE', RUN, IDLE_MILLISECONDS) end
  if run.closed == '' or has_foreign_end(run) then return { 'wait' } end
  redis.call('HSET', RUN, 'closed', 'left')
  return { 'leave' }
end

function operations.beat()
  local run = load_run()
  if not run or run.boot ~= BOOT then return { 'go_on' } end
  redis.call('HSET', RUN, 'seen_at', NOW)
  return { run.phase == 'fetched' and run.turn == ARGV[7] and run.cancel == '1' and 'cancel' or 'go_on' }
end

function operations.leave()
  local run = begin()
  if not run then return { 'leave' } end
  if run.phase == 'assigned' or run.phase == 'fetched' or has_foreign_end(run) then return { 'busy' } end
  redis.call('HSET', RUN, 'closed', 'left')
  return { 'leave' }
end

local reply = operations[ARGV[1]]()
-- A barrier waits for what its own connection has written; what the reply shows may be another connection's write.
if ARGV[4] == '1' then
  redis.call('SET', P .. 'run:', '')
  redis.call('DEL', P .. 'run:')
end
return reply
