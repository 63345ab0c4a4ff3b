-- Runs: what the ledger knows of runners. protocol/runs.py explains the fields, protocol/assignments.py the rules; what
-- a runner itself calls is in ../../runs/runner_calls.lua.

local function run_key(name) return P .. 'run:' .. name end

-- The name that a run of the record's present launch has if that launch starts a runner.
local function own_run_name(r) return r.id .. '.' .. r.nonce .. '.' .. text(r.launch) end

local RUN_FIELDS = {
  'phase', 'pool', 'target', 'arn', 'boot', 'closed', 'turn', 'id', 'nonce', 'launch', 'exit_code', 'cancelled', 'mac',
  'cancel', 'assigned_at', 'fetched_at', 'ended_at', 'seen_at',
}
local RUN_NUMBERS = {
  turn = 1, launch = 1, exit_code = 1, assigned_at = 1, fetched_at = 1, ended_at = 1, seen_at = 1,
}

local function turn_key(name) return P .. 'turn:' .. name end

-- Nil for an absent run; a key that holds no hash counts as absent.
local function load_run(name)
  local values = redis.pcall('HMGET', run_key(name), unpack(RUN_FIELDS))
  if is_error(values) then
    if not is_data_error(values) then error(values, 0) end
    return nil
  end
  if not values[1] then return nil end
  local run = { name = name }
  for i, field in ipairs(RUN_FIELDS) do
    local value = values[i] or ''
    run[field] = RUN_NUMBERS[field] and (valid_number(value ~= '' and value) or 0) or value
  end
  return run
end

-- The run that has the record's present launch, or nil.
local function assigned_run(r)
  if (r.run or '') == '' then return nil end
  local run = load_run(r.run)
  if run and run.phase ~= 'idle' and run.id == r.id and run.nonce == r.nonce and run.launch == r.launch then return run end
end

-- field, value, ...
local function set_run(run, ...)
  local pairs_given = { ... }
  for i = 1, #pairs_given, 2 do
    run[pairs_given[i]] = pairs_given[i + 1]
    pairs_given[i + 1] = text(pairs_given[i + 1])
  end
  redis.call('HSET', run_key(run.name), unpack(pairs_given))
end

local function close_run(run, why)
  if run.closed == '' then set_run(run, 'closed', why) end
end

local function wake(name)
  local key = P .. 'wake:' .. name
  redis.call('RPUSH', key, '')
  redis.call('LTRIM', key, -1, -1)
  redis.call('PEXPIRE', key, milliseconds(SETTINGS.wake_seconds))
end

local ASSIGNMENT_FIELDS = {
  'id', 'nonce', 'launch', 'time_limit', 'exit_code', 'cancelled', 'mac', 'cancel', 'assigned_at',
  'fetched_at', 'ended_at',
}

-- Take an assignment that is over out of its run.
local function release_run(run)
  redis.call('HDEL', run_key(run.name), unpack(ASSIGNMENT_FIELDS))
  redis.call('DEL', turn_key(run.name))
  set_run(run, 'phase', 'idle')
  redis.call('PEXPIRE', run_key(run.name), milliseconds(SETTINGS.idle_run_seconds))
end

-- Take an ASSIGNED run's assignment away: that launch provably never starts, whatever ECS does. arn: of the task that
-- RunTask has started for it; '' if that is not known, or the task has stopped.
local function void_run(run, arn)
  if run.boot == '' and arn == '' then
    redis.call('DEL', run_key(run.name), turn_key(run.name))
    return
  end
  if run.boot == '' then set_run(run, 'arn', arn, 'seen_at', NOW) end -- by it the task of one that never calls is found
  release_run(run)
  close_run(run, 'voided')
end

-- An operation of the claim has taken the record out of the launch that this run still has.
local function void_left_run(r, run)
  if run and run.phase == 'assigned' and r.state ~= 'LAUNCHING' and r.state ~= 'LAUNCHED' then void_run(run, '') end
end

-- End a record that is to be stopped, and whose run is voided.
local function finish_stopped(r)
  local is_expiry = r.stop_requested_by == 'expiry'
  finish(r, is_expiry and 'EXPIRED' or 'REVOKED', r.attempt - 1, NOW, is_expiry and expiry_reason(r) or stop_reason(r))
  return 'ended'
end

-- Idle since now, unless that is known: then nothing is written.
local function add_idle(run)
  local key = P .. 'idle:' .. run.pool
  if call('ZADD', key, 'NX', text(NOW), run.name) == 1 then
    call('PEXPIRE', key, milliseconds(2 * SETTINGS.idle_run_seconds))
  end
end

local function assign_run(run, r, turn, payload)
  set_run(run, 'phase', 'assigned', 'turn', turn, 'id', r.id, 'nonce', r.nonce, 'launch', r.launch,
    'time_limit', r.time_limit, 'assigned_at', NOW)
  redis.call('SET', turn_key(run.name), payload)
  redis.call('PERSIST', run_key(run.name))
end

-- The run of a launch that is about to start a runner, whatever was there.
local function make_run(r, pool, payload)
  local run = { name = r.run }
  redis.call('DEL', run_key(r.run))
  set_run(run, 'pool', pool, 'target', r.target, 'born_at', NOW)
  assign_run(run, r, 1, payload)
  call('ZADD', P .. 'runners', text(NOW), r.run)
end

local function may_take(run)
  return run.phase == 'idle' and run.closed == '' and NOW - run.seen_at <= SETTINGS.runner_ttl
end

-- The idle run of the pool that was used last; of those that are looked at, what does not fit is dropped.
local function find_idle_run(r, pool, target)
  local index, own_name = P .. 'idle:' .. pool, own_run_name(r)
  for _, name in ipairs(call('ZREVRANGE', index, 0, SETTINGS.max_idle_looked_at - 1)) do
    local run = load_run(name)
    call('ZREM', index, name)
    if run and may_take(run) and run.target == target and name ~= own_name then return run end
  end
end

local function launch_by(r)
  set(r, 'state', 'LAUNCHED')
  set(r, 'launched_at', NOW)
  set(r, 'reason', '')
  set(r, 'not_before', 0)
  set(r, 'calls', 0)
  clear_claim(r)
end

-- The record's task is that of the runner: it may fetch, and end, before RunTask's answer has been recorded.
local function bind_run(r, run)
  if r.state == 'LAUNCHING' then launch_by(r) end
  set(r, 'arn', run.arn)
  if r.started_at == 0 then set(r, 'started_at', run.fetched_at) end
end

-- If a runner has bound the run of the record's launch, `code` is the answer, and the record is due now.
local function take_bound_run(r, run, code)
  if not run or run.boot == '' then return nil end
  bind_run(r, run)
  return code or true, NOW
end
