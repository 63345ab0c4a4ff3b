-- Operations on a request from `launched` to the confirmed result.

local function final_state_and_reason(r, state, stopped_by_user, reason)
  if not (has_stop(r) and stopped_by_user == '1') then return state, reason end
  if r.stop_requested_by == 'expiry' then return r.started_at > 0 and 'FAILED' or 'EXPIRED', expiry_reason(r) end
  if r.stop_requested_by == 'time_limit' then
    return 'FAILED', string.format(REASONS.time_limit_exceeded, r.time_limit)
  end
  return 'REVOKED', stop_reason(r)
end

-- When to poll next. A record that a stop has made due since it was leased stays due.
local function next_poll_at(r, wait)
  if has_stop(r) then
    local score = call('ZSCORE', P .. 'due', r.id)
    if score and tonumber(score) <= NOW then return nil end
  end
  return NOW + tonumber(wait)
end

-- The arguments are the fields of TaskUpdate in its order. state '': the task still runs.
function operations.update_task(id, launch, arn, version, last_status, wait, started_at, state, may_relaunch,
                                stopped_by_user, max_attempts, finished_at, exit_code, stop_code, reason,
                                counts_attempt)
  local r = load(id)
  if not r then return { 'not_found' } end
  version = tonumber(version)
  local is_own = (r.run or '') == '' -- a runner's task is not the request's own
  if not is_own or not is_news(r, launch, arn, version, last_status, tonumber(started_at), state) then
    return { 'stale' }
  end
  set(r, 'version', math.max(r.version, version))
  set(r, 'last_status', last_status)
  if tonumber(started_at) > 0 then set(r, 'started_at', tonumber(started_at)) end
  if state == '' then
    store(r, next_poll_at(r, wait))
    return { 'ok' }
  end
  if may_relaunch == '1' and not has_stop(r) and (r.attempt < tonumber(max_attempts) or counts_attempt ~= '1') then
    if counts_attempt == '1' then set(r, 'attempt', r.attempt + 1) end
    set(r, 'reason', reason)
    set(r, 'calls', 0)
    queue_next_launch(r, NOW + tonumber(wait))
    store(r, r.not_before)
    return { 'requeued', reply_record(r) }
  end
  state, reason = final_state_and_reason(r, state, stopped_by_user, reason)
  if exit_code ~= '' then set(r, 'exit_code', exit_code) end
  set(r, 'stop_code', stop_code)
  local at = tonumber(finished_at)
  finish(r, state, r.attempt, at > 0 and at or NOW, reason)
  store(r)
  return { 'ended', reply_record(r) }
end

function operations.adopt(id, owner)
  local r = load(id)
  if not r then return { 'not_found' } end
  set(r, 'owner', owner)
  if has_ended(r) then
    set(r, 'undelivered', owner ~= '' and 1 or 0)
    set(r, 'confirmed_at', 0)
  end
  store(r)
  return { has_ended(r) and 'ended' or 'ok', reply_record(r) }
end

function operations.confirm(id, nonce, owner)
  local r = load(id)
  if not r or not has_ended(r) or r.nonce ~= nonce or (r.owner or '') ~= owner then return { 'not_owner' } end
  set(r, 'undelivered', 0)
  if r.confirmed_at == 0 then set(r, 'confirmed_at', NOW) end
  store(r)
  return { 'ok' }
end
