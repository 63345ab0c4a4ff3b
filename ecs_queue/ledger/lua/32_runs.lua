-- Operations on a record and the run that has its launch, and on runs alone; protocol/assignments.py has the rules.

local function may_try_again(r, counts_attempt)
  return not has_stop(r) and (r.attempt < math.max(1, r.max_attempts) or not counts_attempt)
end

local function has_retry_rules(r) return (r.retry_rules or '') ~= '' end

-- Whether the record's retry rules decide what follows the end that its runner has reported.
local function needs_ruling(r, run) return has_retry_rules(r) and run.exit_code ~= 0 and run.cancelled ~= '1' end

local function relaunch(r, reason, not_before, counts_attempt)
  if counts_attempt then
    set(r, 'attempt', r.attempt + 1)
    set(r, 'requeued_at', NOW)
  end
  set(r, 'reason', reason)
  set(r, 'calls', 0)
  set(r, 'stop_code', '')
  queue_next_launch(r, not_before)
  return 'requeued', not_before
end

local function stopped_state_and_reason(r, otherwise)
  if r.stop_requested_by == 'time_limit' then
    return 'FAILED', string.format(REASONS.time_limit_exceeded, r.time_limit)
  end
  if not has_stop(r) or r.stop_requested_by == 'expiry' then return 'FAILED', otherwise end
  return 'REVOKED', stop_reason(r)
end

local function mark_stop(r, requested_by)
  if not has_stop(r) then
    set(r, 'stop_requested_by', requested_by)
    set(r, 'stop_requested_at', NOW)
  end
end

local function stop_deadline(r) return r.stop_requested_at + SETTINGS.stop_timeout + SETTINGS.cancel_grace_seconds end

local function cancel(r, run, requested_by)
  mark_stop(r, requested_by)
  set_run(run, 'cancel', '1')
  wake(run.name)
  return math.max(NOW, stop_deadline(r), r.lease_until)
end

-- ruling: what the record's retry rules say of the end, if it has some.
local function take_end(r, run, wait, ruling)
  local exit_code, is_cancelled, ended_at = run.exit_code, run.cancelled == '1', run.ended_at
  release_run(run)
  if run.closed == '' then add_idle(run) end
  local reason = string.format(REASONS.command_exited, exit_code)
  local retries, counts_attempt = r.relaunch == 'any_failure', ruling ~= 'retry_uncounted'
  if has_retry_rules(r) then retries = ruling == 'retry' or ruling == 'retry_uncounted' end
  if exit_code ~= 0 and not is_cancelled and retries and may_try_again(r, counts_attempt) then
    return relaunch(r, reason, NOW + wait, counts_attempt)
  end
  local state = exit_code == 0 and 'SUCCESS' or 'FAILED'
  if is_cancelled then state, reason = stopped_state_and_reason(r, REASONS.cancelled) end
  set(r, 'exit_code', text(exit_code))
  finish(r, state, r.attempt, ended_at, reason)
  return 'ended'
end

-- While the runner calls, no other look is needed until other_at; 0: none.
local function look_again(r, run, other_at)
  if r.state ~= 'LAUNCHED' then return 'ok' end
  local silent_at = run.seen_at + SETTINGS.runner_ttl
  if run.boot == '' or NOW >= silent_at then return 'describe_task' end
  return 'ok', other_at > 0 and math.min(silent_at, other_at) or silent_at
end

-- An attempt that has started nothing: REMOVED if it was the last one.
local function fail_start(r, reason, ended_at, not_before)
  if r.attempt >= math.max(1, r.max_attempts) then
    finish(r, 'REMOVED', r.attempt, ended_at, reason)
    return 'ended'
  end
  return relaunch(r, reason, not_before, true)
end

local function settle_assigned(r, run, wait)
  if is_expired(r) then
    void_run(run, r.arn or '')
    finish(r, 'EXPIRED', r.attempt - 1, NOW, expiry_reason(r))
    return 'ended'
  end
  if run.boot == '' and is_start_overdue(r) then -- no process of its task has called
    void_run(run, r.arn or '')
    return fail_start(r, string.format(REASONS.start_timed_out, r.start_timeout), NOW, NOW + wait)
  end
  local late_at = run.assigned_at + SETTINGS.runner_ttl
  if run.turn > 1 and NOW >= late_at then
    void_run(run, r.arn or '')
    return relaunch(r, REASONS.not_fetched, NOW, false)
  end
  return look_again(r, run, run.turn > 1 and late_at or 0)
end

local function settle_fetched(r, run)
  local limit_at = r.time_limit > 0 and run.fetched_at + r.time_limit or 0
  if limit_at > 0 and NOW >= limit_at and not has_stop(r) then return 'ok', cancel(r, run, 'time_limit') end
  if has_stop(r) and NOW >= stop_deadline(r) then
    close_run(run, 'stop')
    return 'stop_task'
  end
  return look_again(r, run, has_stop(r) and stop_deadline(r) or limit_at)
end

-- The result code, and when the record is due.
local function stop_with_run(r, run, requested_by)
  if run and run.phase == 'fetched' then
    if requested_by == 'expiry' then return 'stale' end -- it has started
    return 'stop_requested', cancel(r, run, requested_by)
  end
  mark_stop(r, requested_by)
  if not run or run.phase ~= 'assigned' then return 'stop_requested', math.max(NOW, r.lease_until) end
  void_run(run, r.arn or '')
  return finish_stopped(r)
end

-- Count from now on what lies ahead: the clock has gone back since, and nothing is to wait for it to catch up.
local function bring_run_forward(r, run)
  for _, field in ipairs({ 'seen_at', 'assigned_at', 'fetched_at' }) do
    if run[field] > NOW then set_run(run, field, NOW) end
  end
  if r.stop_requested_at > NOW then set(r, 'stop_requested_at', NOW) end
end

local function settle(r, run, turn, exit_code, cancelled, mac, is_verified, wait, ruling)
  if not run then return r.state == 'LAUNCHED' and 'describe_task' or 'ok' end
  bring_run_forward(r, run)
  if run.boot ~= '' then bind_run(r, run) end
  if run.phase == 'ended' then
    local is_named = turn == text(run.turn) and exit_code == text(run.exit_code) and cancelled == run.cancelled
      and mac == run.mac
    local lacks_ruling = is_verified == '1' and ruling == '' and needs_ruling(r, run)
    if not is_named or lacks_ruling then return 'end_unread', NOW end
    if is_verified == '1' then return take_end(r, run, tonumber(wait), ruling) end
    redis.call('HDEL', run_key(run.name), 'exit_code', 'cancelled', 'mac', 'ended_at')
    set_run(run, 'phase', 'fetched')
  end
  if has_stop(r) and (run.phase == 'assigned' or run.cancel ~= '1') then
    -- Marked by a client of a version that knows nothing of runs.
    local code, due_at = stop_with_run(r, run, r.stop_requested_by)
    return code == 'ended' and code or 'ok', due_at
  end
  if run.phase == 'assigned' then return settle_assigned(r, run, tonumber(wait)) end
  return settle_fetched(r, run)
end

-- turn, exit code, cancelled, MAC: of the end that the caller has read; '' four times for none.
function operations.settle(id, ...)
  local r = load(id)
  if not r then return { 'not_found' } end
  if (r.state ~= 'LAUNCHING' and r.state ~= 'LAUNCHED') or (r.run or '') == '' then return { 'stale', reply_record(r) } end
  local code, due_at = settle(r, assigned_run(r), ...)
  store(r, due_at)
  return { code, reply_record(r) }
end

local function note_unfetched_end(r, run, wait, finished_at, stop_code, reason, counts_attempt, may_relaunch)
  local is_first = run.turn == 1
  void_run(run, '')
  if has_stop(r) then return finish_stopped(r) end
  if is_first and has_retry_rules(r) and may_relaunch ~= '1' then
    set(r, 'stop_code', stop_code)
    finish(r, 'REMOVED', r.attempt, finished_at, reason)
    return 'ended'
  end
  if is_first and counts_attempt then
    set(r, 'stop_code', stop_code)
    return fail_start(r, reason, finished_at, NOW + wait)
  end
  return relaunch(r, reason, NOW + (is_first and wait or 0), false)
end

local function note_task_end(r, run, wait, state, may_relaunch, stopped_by_user, finished_at, stop_code, reason,
                             counts_attempt)
  if run then
    release_run(run)
    close_run(run, 'task_stopped')
  end
  set(r, 'stop_code', stop_code)
  local by_user = stopped_by_user == '1'
  -- The command may have run, whatever ECS shows of the task: a rule for what never started does not apply.
  local may_have_run = r.relaunch ~= 'never_started' or (has_retry_rules(r) and state ~= 'REMOVED')
  if may_relaunch == '1' and may_have_run and not by_user and may_try_again(r, counts_attempt) then
    return relaunch(r, REASONS.runner_stopped .. reason, NOW + wait, counts_attempt)
  end
  local end_state, end_reason = 'FAILED', REASONS.runner_stopped .. reason
  if state == 'UNKNOWN' then
    end_state, end_reason = 'UNKNOWN', reason
  elseif by_user and has_stop(r) then
    end_state, end_reason = stopped_state_and_reason(r, end_reason)
  end
  finish(r, end_state, r.attempt, finished_at, end_reason)
  return 'ended'
end

-- The arguments are the fields of TaskUpdate in its order, as of update_task.
function operations.update_runner_task(id, launch, arn, version, last_status, wait, started_at, state, may_relaunch,
                                       stopped_by_user, max_attempts, finished_at, exit_code, stop_code, reason,
                                       counts_attempt)
  local r = load(id)
  if not r then return { 'not_found' } end
  if (r.run or '') == '' or not is_news(r, launch, arn, tonumber(version), last_status, tonumber(started_at), state) then
    return { 'stale', reply_record(r) }
  end
  local run = state ~= '' and assigned_run(r) or nil
  if run and (run.phase == 'ended' or (run.boot ~= '' and run.arn ~= arn)) then
    store(r, NOW)
    return { 'stale', reply_record(r) }
  end
  set(r, 'version', math.max(r.version, tonumber(version)))
  set(r, 'last_status', last_status)
  wait, finished_at = tonumber(wait), tonumber(finished_at)
  local ended_at = finished_at > 0 and finished_at or NOW
  local code, due_at = 'ok', NOW + wait
  if run and run.phase == 'assigned' then
    code, due_at = note_unfetched_end(r, run, wait, ended_at, stop_code, reason, counts_attempt == '1',
                                      may_relaunch)
  elseif state ~= '' then
    code, due_at = note_task_end(r, run, wait, state, may_relaunch, stopped_by_user, ended_at, stop_code, reason,
                                 counts_attempt == '1')
  end
  store(r, due_at)
  return { code, reply_record(r) }
end

-- A stop of a live record that has a run.
local function stop_run(r, requested_by)
  local code, due_at = stop_with_run(r, assigned_run(r), requested_by)
  if code ~= 'stale' then store(r, due_at) end
  return { code, reply_record(r) }
end

function operations.stop(id, requested_by, launch)
  local r = load(id)
  launch = tonumber(launch)
  if not r then
    if launch ~= 0 then return { 'not_found' } end
    r = new_record(id)
    r.before = {}
    r.queue = ''
    set(r, 'created_at', NOW)
    set(r, 'accept_until', NOW + SETTINGS.accept_seconds)
    set(r, 'stop_requested_by', requested_by)
    set(r, 'stop_requested_at', NOW)
    finish(r, 'REVOKED', 0, NOW, stop_reason(r))
    store(r)
    return { 'ended', reply_record(r) }
  end
  if not LIVE_STATES[r.state] then return { 'unchanged', reply_record(r) } end
  if launch < 0 and r.state ~= 'QUEUED' then return { 'stale', reply_record(r) } end -- ONLY_QUEUED
  if launch > 0 and (r.state ~= 'LAUNCHED' or r.launch ~= launch) then return { 'stale', reply_record(r) } end
  if r.state ~= 'QUEUED' and (r.run or '') ~= '' then return stop_run(r, requested_by) end
  if not has_stop(r) then
    set(r, 'stop_requested_by', requested_by)
    set(r, 'stop_requested_at', NOW)
  end
  if r.state == 'QUEUED' then
    finish(r, 'REVOKED', r.attempt - 1, NOW, stop_reason(r))
    store(r)
    return { 'ended', reply_record(r) }
  end
  -- A lease stays: its worker finds the stop when it writes, otherwise the record is due when the lease is over.
  store(r, math.max(NOW, r.lease_until))
  return { 'stop_requested', reply_record(r) }
end

-- {1 or 0 for each pair}: name, ARN, name, ARN, ... Whether StopTask would hit no request.
function operations.may_stop(...)
  local tasks, reply = { ... }, {}
  for i = 1, #tasks, 2 do
    local run = load_run(tasks[i])
    local may = not run or (run.boot ~= '' and run.arn ~= tasks[i + 1]) or (run.closed ~= '' and run.phase ~= 'fetched')
    reply[#reply + 1] = may and 1 or 0
  end
  return reply
end

local function is_silent(run) return NOW - math.max(run.seen_at, run.assigned_at) >= SETTINGS.runner_lost_seconds end

-- An operator has deleted the record that the run was assigned: no operation on it takes the assignment out of the run.
-- A key that holds something else is an error here, and the record is not deleted.
local function is_orphaned(run)
  return run.phase ~= 'idle' and redis.pcall('HGET', key_of(run.id), 'state') == false
end

-- A page of the runners: {where the next page begins or -1, the names of the runs whose tasks are to be stopped ...}.
-- Runs that are gone leave the list of runners.
function operations.close_silent(offset, limit)
  offset = tonumber(offset)
  call('ZPOPMIN', P .. 'changed_runs', 0) -- takes nothing; a key that is none of this kind is set aside
  local names = call('ZRANGE', P .. 'runners', offset, offset + tonumber(limit) - 1)
  local reply = { #names < tonumber(limit) and -1 or offset + #names }
  for _, name in ipairs(names) do
    local run = load_run(name)
    if run and is_silent(run) and is_orphaned(run) then
      void_run(run, '')
      run = load_run(name)
    end
    if not run then
      call('ZREM', P .. 'runners', name)
      if reply[1] > 0 then reply[1] = reply[1] - 1 end
    elseif may_take(run) then
      add_idle(run) -- a claim may have dropped it while its runner could not reach the server
    elseif run.phase == 'idle' and is_silent(run) then
      close_run(run, 'silent')
      if run.closed ~= 'left' and run.closed ~= 'task_stopped' then reply[#reply + 1] = name end
    end
  end
  return reply
end

function operations.forget_runner(name)
  local run = load_run(name)
  if run and run.closed ~= '' and run.phase == 'idle' then redis.call('DEL', run_key(name)) end
  return { 'ok' }
end

-- Whether the run is closed by this: it is open, and has no command that its runner has not taken yet.
function operations.drain_run(name)
  local run = load_run(name)
  if not run or run.closed ~= '' or run.phase == 'assigned' then return 0 end
  close_run(run, 'drained')
  wake(name)
  return 1
end

-- A record whose runner has not taken its command.
function operations.put_back(id)
  local r = load(id)
  if not r then return { 'not_found' } end
  local is_in_launch = r.state == 'LAUNCHING' or r.state == 'LAUNCHED'
  local run = is_in_launch and assigned_run(r)
  if not run or run.phase ~= 'assigned' or has_stop(r) then return { 'stale' } end -- settle carries a stop out
  void_run(run, r.arn or '')
  local code, due_at = relaunch(r, REASONS.pool_drained, NOW, false)
  store(r, due_at)
  return { code, reply_record(r) }
end
