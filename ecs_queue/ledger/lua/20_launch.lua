-- Operations on a request from `put` to `launched`.

-- The result code, and the record where it existed before. The arguments are the fields of Submission in its order.
local function put(id, nonce, digest, queue, owner, relaunch, request, accept_until, expires_at, time_limit,
                   traceparent, delayed_until, labels, submitted_by, concurrency_key, priority)
  local r = load(id)
  if not r then
    if NOW >= tonumber(accept_until) then return 'too_late' end
    r = new_record(id)
    r.before = {}
    r.is_payload_inside = find_old_workers()
    set(r, 'nonce', nonce)
    set(r, 'digest', digest)
    set(r, 'queue', queue)
    set(r, 'owner', owner)
    set(r, 'relaunch', relaunch)
    set_payload(r, 'request', request)
    set(r, 'accept_until', tonumber(accept_until))
    set(r, 'expires_at', tonumber(expires_at))
    set(r, 'time_limit', tonumber(time_limit))
    set(r, 'traceparent', traceparent)
    set(r, 'delayed_until', tonumber(delayed_until))
    set(r, 'labels', labels)
    set(r, 'submitted_by', submitted_by)
    if concurrency_key ~= '' then set(r, 'concurrency_key', concurrency_key) end
    if priority ~= '0' then set(r, 'priority', tonumber(priority)) end
    if r.delayed_until > NOW then set(r, 'not_before', r.delayed_until) end
    set(r, 'created_at', NOW)
    set(r, 'state', 'QUEUED')
    store(r, r.not_before > 0 and r.not_before or NOW + SETTINGS.sweep_after_seconds)
    return 'created'
  end
  if not LIVE_STATES[r.state] and (r.digest or '') == '' then -- a stop came before the request
    set(r, 'nonce', nonce)
    set(r, 'digest', digest)
    if (r.owner or '') == '' then set(r, 'owner', owner) end -- else it was adopted
    set(r, 'queue', queue)
    set(r, 'accept_until', tonumber(accept_until))
    set(r, 'undelivered', (r.owner or '') ~= '' and 1 or 0)
    store(r)
    return 'ended', r
  end
  return r.digest == digest and 'unchanged' or 'conflict', r
end

local function reply_with(code, r) return r and { code, reply_record(r) } or { code } end

function operations.put(...) return reply_with(put(...)) end

local function in_flight()
  local counts, total = call('HGETALL', P .. 'counts'), 0
  for i = 1, #counts, 2 do
    local state = string.match(counts[i], '|(%u+)$')
    if state == 'LAUNCHING' or state == 'LAUNCHED' then total = total + (valid_number(counts[i + 1]) or 0) end
  end
  return total
end

local function in_flight_of(queue)
  local launching, launched = unpack(call('HMGET', P .. 'counts', queue .. '|LAUNCHING', queue .. '|LAUNCHED'))
  return (valid_number(launching) or 0) + (valid_number(launched) or 0)
end

-- The result code, and why the record waits.
local function find_claim_obstacle(r, queue_limit)
  if call('HEXISTS', P .. 'paused', r.queue) == 1 then return 'paused', REASONS.queue_paused end
  if SETTINGS.max_in_flight > 0 and in_flight() >= SETTINGS.max_in_flight then
    return 'limit_reached', REASONS.namespace_full
  end
  if queue_limit > 0 and in_flight_of(r.queue) >= queue_limit then return 'limit_reached', REASONS.queue_full end
end

local STARTING_FIELDS = { 'state', 'queue', 'max_starting', 'started_at', 'last_status' }

-- An index entry holds a slot only while its record does: a client of the version before may have ended it.
local function holds_start_slot(id, queue)
  local values = redis.pcall('HMGET', key_of(id), unpack(STARTING_FIELDS))
  if is_error(values) or not values[1] or values[2] ~= queue then return false end
  local max_starting, started_at = valid_number(values[3] or '0'), valid_number(values[4] or '0')
  return is_starting({ state = values[1], max_starting = max_starting or 0, started_at = started_at or 0,
                       last_status = values[5] or '' })
end

-- The entries that are there longest are checked, before a claim waits for them.
local function is_start_limit_reached(r, max_starting)
  local key = P .. 'starting:' .. r.queue
  if max_starting == 0 or call('ZCARD', key) < max_starting then return false end
  for _, id in ipairs(call('ZRANGE', key, 0, SETTINGS.max_starting_checked - 1)) do
    if not holds_start_slot(id, r.queue) then call('ZREM', key, id) end
  end
  return call('ZCARD', key) >= max_starting
end

local function wait_for_key(r, claim_token, limit, ahead)
  local wait = math.min(math.max(SETTINGS.key_retry_seconds, ahead), SETTINGS.max_key_retry_seconds)
  set(r, 'waits_for_key', 1)
  set(r, 'not_before', NOW + wait)
  set(r, 'reason', fill(REASONS.key_full, r.concurrency_key))
  keep_answer(r, 'claim', claim_token, 'key_full')
  store(r, r.not_before)
  concurrency_keys().use_free_slots(r, limit)
  return { 'key_full' }
end

local function wait_for_room(r, claim_token, code, reason)
  set(r, 'not_before', NOW + SETTINGS.claim_retry_seconds)
  set(r, 'reason', reason)
  keep_answer(r, 'claim', claim_token, code)
  store(r, r.not_before)
  return { code }
end

-- When the worker that holds the record claimed it.
local function claimed_at(r) return r.lease_until - SETTINGS.lease_seconds end

local function set_claim(r, claim_token, worker)
  set(r, 'claim', claim_token)
  set(r, 'last_answer', '')
  set(r, 'worker', worker)
  set(r, 'lease_until', NOW + SETTINGS.lease_seconds)
  set(r, 'abandoned_claims', r.abandoned_claims + 1)
  if has_key(r) then set(r, 'waits_for_key', 0) end
end

-- Whether the worker is registered, and by a process that started before `since`, not by a later one of its name.
local function is_worker_alive(worker, since)
  local entry = call('HGET', P .. 'workers', worker or '')
  if not entry then return false end
  local seen_at, forget_at, info = split_heartbeat(entry)
  local started_at = tonumber(string.match(info or '', '"started_at":([%d.eE+-]+)'))
  return started_at ~= nil and seen_at ~= nil and is_present(seen_at, forget_at) and started_at <= since
end

local function freeze(r, args, target, container_name, max_attempts, spec_version, start_timeout, retry_rules,
                      max_starting, variant, variant_reason)
  set_payload(r, 'args', args)
  set(r, 'target', target)
  set(r, 'container_name', container_name)
  set(r, 'max_attempts', tonumber(max_attempts))
  set(r, 'spec_version', tonumber(spec_version))
  set(r, 'start_timeout', tonumber(start_timeout))
  set(r, 'retry_rules', retry_rules)
  set(r, 'max_starting', max_starting)
  set(r, 'variant', tonumber(variant))
  set(r, 'variant_reason', variant_reason)
end

-- The record has an idle runner, without a call.
local function assign(r, run, claim_token, worker, payload)
  redis.call('DEL', run_key(own_run_name(r)), turn_key(own_run_name(r)))
  set(r, 'worker', worker)
  set(r, 'run', run.name)
  launch_by(r)
  set(r, 'arn', run.arn)
  assign_run(run, r, run.turn + 1, payload)
  wake(run.name)
  keep_answer(r, 'claim', claim_token, 'assigned')
  store(r, NOW + math.min(SETTINGS.first_look_seconds, SETTINGS.runner_ttl))
  return { 'assigned', reply_record(r) }
end

-- claim_token '': only end an expired record. for_nonce '': args are good for any launch, else only for the one named.
-- The arguments are the fields of ClaimRequest in its order.
local function claim(r, claim_token, worker, args, target, container_name, max_attempts, spec_version, queue_limit,
                     for_nonce, for_launch, pool, payload, may_call, start_timeout, retry_rules, max_starting,
                     variant, variant_reason, key_limit)
  max_starting, key_limit = tonumber(max_starting), tonumber(key_limit)
  local answer = find_answer(r, 'claim', claim_token)
  if answer == 'paused' or answer == 'limit_reached' or answer == 'key_full' then return { answer } end
  if answer then return { answer, reply_record(r, answer == 'run_task' and ARGS or nil) } end
  if r.state ~= 'QUEUED' then return { 'not_claimable', reply_record(r) } end
  if is_expired(r) then
    finish(r, 'EXPIRED', r.attempt - 1, NOW, expiry_reason(r))
    keep_answer(r, 'claim', claim_token, 'ended')
    store(r)
    return { 'ended', reply_record(r) }
  end
  if claim_token == '' or r.not_before > NOW or r.delayed_until > NOW then return { 'not_claimable', reply_record(r) } end
  if for_nonce ~= '' and (r.nonce ~= for_nonce or r.launch ~= tonumber(for_launch)) then
    return { 'not_claimable', reply_record(r) }
  end
  local obstacle, reason = find_claim_obstacle(r, tonumber(queue_limit))
  if obstacle then return wait_for_room(r, claim_token, obstacle, reason) end
  if key_limit > 0 and has_key(r) then
    local free, ahead = concurrency_keys().find_room(r, key_limit)
    if ahead >= free then return wait_for_key(r, claim_token, key_limit, ahead) end
  end
  local run = pool ~= '' and find_idle_run(r, pool, target)
  if run then
    -- Its runner has started: no start timeout, and no start that counts.
    freeze(r, args, target, container_name, max_attempts, spec_version, 0, retry_rules, 0, variant, variant_reason)
    local reply = assign(r, run, claim_token, worker, payload)
    if has_key(r) then concurrency_keys().use_free_slots(r, key_limit) end
    return reply
  end
  if pool ~= '' and may_call ~= '1' then return { 'no_runner' } end
  if is_start_limit_reached(r, max_starting) then
    return wait_for_room(r, claim_token, 'limit_reached', REASONS.too_many_starting)
  end
  if payload_of(r, 'args') == '' then
    freeze(r, args, target, container_name, max_attempts, spec_version, start_timeout, retry_rules, max_starting,
           variant, variant_reason)
    -- Arguments that an earlier claim of this launch froze without a run start a task of its own.
    set(r, 'run', pool ~= '' and own_run_name(r) or '')
    if pool ~= '' then make_run(r, pool, payload) end
  end
  set(r, 'state', 'LAUNCHING')
  set(r, 'not_before', 0)
  set(r, 'calls', r.calls + 1)
  set(r, 'first_called_at', NOW)
  set(r, 'last_claim_at', NOW)
  set_claim(r, claim_token, worker)
  keep_answer(r, 'claim', claim_token, 'run_task')
  store(r, r.lease_until)
  if has_key(r) then concurrency_keys().use_free_slots(r, key_limit) end
  return { 'run_task', reply_record(r, ARGS) }
end

function operations.claim(id, ...)
  local r = load(id)
  if not r then return { 'not_found' } end
  return claim(r, ...)
end

-- put, then claim if the record is of this very request: {put's reply, claim's reply}
function operations.put_and_claim(id, nonce, digest, queue, owner, relaunch, request, accept_until, expires_at,
                                  time_limit, traceparent, delayed_until, labels, submitted_by, concurrency_key,
                                  priority, ...)
  local code, r = put(id, nonce, digest, queue, owner, relaunch, request, accept_until, expires_at, time_limit,
                      traceparent, delayed_until, labels, submitted_by, concurrency_key, priority)
  if code == 'too_late' then return { { code }, { 'not_found' } } end
  if code ~= 'created' and code ~= 'unchanged' then return { reply_with(code, r), { 'not_claimable' } } end
  return { { code }, claim(r or load(id), ...) }
end

-- RunTask may not be called again, and no runner has bound the run: voided, that launch provably never starts.
local function give_up(r, run)
  if not run then
    finish(r, 'UNKNOWN', r.attempt, NOW, REASONS.run_lost)
    return 'ended'
  end
  if has_stop(r) then
    finish_stopped(r)
  elseif is_poison(r) then
    finish(r, 'FAILED', r.attempt - 1, NOW, poison_reason())
  elseif is_expired(r) then
    finish(r, 'EXPIRED', r.attempt - 1, NOW, expiry_reason(r))
  else
    queue_next_launch(r, NOW)
  end
  void_left_run(r, run)
  return r.state == 'QUEUED' and 'requeued' or 'ended'
end

function operations.reclaim(id, claim_token, worker)
  local r = load(id)
  if not r then return { 'not_found' } end
  local answer = find_answer(r, 'reclaim', claim_token)
  local is_open = answer == 'run_task' or answer == 'list_tasks'
  if answer then return { answer, reply_record(r, is_open and REQUEST_AND_ARGS or nil) } end
  if r.state ~= 'LAUNCHING' or r.lease_until > NOW then return { 'not_claimable', reply_record(r) } end
  local run = assigned_run(r)
  if take_bound_run(r, run) then
    store(r, NOW)
    return { 'not_claimable', reply_record(r) }
  end
  if is_worker_alive(r.worker, claimed_at(r)) then set(r, 'abandoned_claims', math.max(0, r.abandoned_claims - 1)) end
  if r.abandoned_claims > SETTINGS.list_deliveries_factor * SETTINGS.max_deliveries then
    finish(r, 'UNKNOWN', r.attempt, NOW, poison_reason() .. REASONS.poison_task_unknown)
    void_left_run(r, run)
    keep_answer(r, 'reclaim', claim_token, 'ended')
    store(r)
    return { 'ended', reply_record(r) }
  end
  set(r, 'ambiguous', 1)
  set_claim(r, claim_token, worker)
  if is_poison(r) then
    set(r, 'retired', 1)
    set(r, 'reason', poison_reason())
  end
  local list_only = has_stop(r) or r.retired == 1 or is_expired(r)
    or NOW - r.first_called_at >= SETTINGS.list_only_after
  if list_only and (r.run or '') ~= '' then
    answer = give_up(r, run)
    keep_answer(r, 'reclaim', claim_token, answer)
    store(r, r.not_before)
    return { answer, reply_record(r) }
  end
  if not list_only then
    set(r, 'calls', r.calls + 1)
    set(r, 'last_claim_at', NOW)
  end
  answer = list_only and 'list_tasks' or 'run_task'
  keep_answer(r, 'reclaim', claim_token, answer)
  store(r, r.lease_until)
  return { answer, reply_record(r, REQUEST_AND_ARGS) }
end

function operations.launched(id, nonce, launch, arn, wait)
  local r = load(id)
  if not r or r.nonce ~= nonce or r.launch ~= tonumber(launch) then return { 'unwanted' } end
  if r.arn == arn and r.state ~= 'QUEUED' then return { 'unchanged' } end
  if r.state ~= 'LAUNCHING' and r.state ~= 'QUEUED' then return { 'unwanted' } end
  local run = assigned_run(r)
  set(r, 'state', 'LAUNCHED')
  set(r, 'arn', run and run.boot ~= '' and run.arn or arn)
  set(r, 'launched_at', NOW)
  set(r, 'reason', '')
  set(r, 'not_before', 0)
  set(r, 'calls', 0)
  clear_claim(r)
  store(r, has_stop(r) and NOW or NOW + tonumber(wait))
  return { 'ok', false, text(NOW) }
end

-- An operation of the worker that holds the claim. change(r, ...) returns the result code, and when the record is due.
local function under_claim(name, change)
  return function(id, claim_token, ...)
    local r = load(id)
    local code, due_at = find_answer(r, name, claim_token), nil
    if not code then
      if not has_claim(r, claim_token) then return { 'claim_lost' } end
      code, due_at = change(r, ...)
      if code == 'claim_lost' then return { code } end
      keep_answer(r, name, claim_token, code)
      store(r, due_at)
    end
    if code == 'requeued' or code == 'ended' then return { code, reply_record(r) } end
    return { code }
  end
end

local function end_record(r, state, attempts, reason)
  finish(r, state, attempts, NOW, reason)
  return 'ended'
end

local function requeue(r, wait)
  queue_next_launch(r, NOW + tonumber(wait))
  return 'requeued', r.not_before
end

-- The record stays LAUNCHING: the next worker resolves the launch.
local function release_lease(r, code, due_at)
  set(r, 'lease_until', NOW)
  reset_abandoned_claims(r)
  return code, due_at
end

operations.call_ambiguous = under_claim('call_ambiguous', function(r, wait, reason, call_completed)
  if call_completed ~= '1' then set(r, 'ambiguous', 1) end
  set(r, 'claim', '') -- given up: no later write under it counts
  set(r, 'reason', reason)
  return release_lease(r, 'ok', NOW + tonumber(wait))
end)

operations.no_effect = under_claim('no_effect', function(r, wait, reason)
  local run = assigned_run(r)
  local code, due_at = take_bound_run(r, run, 'ok')
  if code then return code, due_at end
  set(r, 'reason', reason)
  if r.ambiguous == 1 then return release_lease(r, 'ok', NOW + tonumber(wait)) end
  if has_stop(r) then
    end_record(r, 'REVOKED', r.attempt - 1, stop_reason(r))
    void_left_run(r, run)
    return 'ended'
  end
  if (r.run or '') ~= '' then -- the launch has a run: the next one has another number
    queue_next_launch(r, NOW + tonumber(wait))
    void_left_run(r, run)
    return 'ok', r.not_before
  end
  set(r, 'state', 'QUEUED')
  set(r, 'not_before', NOW + tonumber(wait))
  set(r, 'first_called_at', 0)
  set(r, 'last_claim_at', 0)
  clear_claim(r)
  return 'ok', r.not_before
end)

local function refuse(r, kind, wait, reason, max_attempts)
  set(r, 'reason', reason)
  if r.ambiguous == 1 then
    if kind ~= 'given_back' then set(r, 'retired', 1) end
    return release_lease(r, 'ok', NOW + tonumber(wait))
  end
  if has_stop(r) then
    local is_uncounted = kind == 'capacity' or kind == 'given_back'
    return end_record(r, 'REVOKED', is_uncounted and r.attempt - 1 or r.attempt, stop_reason(r))
  end
  if kind == 'permanent' then return end_record(r, 'FAILED', r.attempt, reason) end
  if kind == 'start_failure' then
    if r.attempt >= tonumber(max_attempts) then return end_record(r, 'REMOVED', r.attempt, reason) end
    set(r, 'attempt', r.attempt + 1)
    set(r, 'calls', 0)
    set(r, 'requeued_at', NOW)
  end
  return requeue(r, wait)
end

operations.refused = under_claim('refused', function(r, ...)
  local run = assigned_run(r)
  local code, due_at = take_bound_run(r, run, 'ok')
  if code then return code, due_at end
  code, due_at = refuse(r, ...)
  void_left_run(r, run)
  return code, due_at
end)

operations.task_absent = under_claim('task_absent', function(r, wait, advice)
  if (r.run or '') ~= '' then return 'claim_lost' end -- a run decides whether its launch started
  local absence_provable_at = r.last_claim_at + SETTINGS.lease_seconds + SETTINGS.settle_seconds
  -- The tasks were listed after the claim, so the claim, not this moment, must be at H or later.
  if claimed_at(r) < absence_provable_at - SETTINGS.time_tolerance then
    return release_lease(r, 'too_early', math.min(absence_provable_at, NOW + tonumber(wait)))
  end
  if NOW - r.first_called_at > SETTINGS.absence_unprovable_after then
    return end_record(r, 'UNKNOWN', r.attempt, fill(REASONS.absence_unprovable, advice))
  end
  if has_stop(r) then return end_record(r, 'REVOKED', r.attempt - 1, stop_reason(r)) end
  if is_poison(r) then return end_record(r, 'FAILED', r.attempt - 1, poison_reason()) end
  if is_expired(r) then return end_record(r, 'EXPIRED', r.attempt - 1, expiry_reason(r)) end
  return requeue(r, wait)
end)
