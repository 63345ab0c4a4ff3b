-- From put to launched.

-- A word; and the record, where it was there before.
local function put(id, nonce, digest, queue, owner, relaunch, body, accept_until, expires_at, time_limit)
  local r = load(id)
  if not r then
    if NOW >= tonumber(accept_until) then return 'too_late' end
    r = fresh(id)
    r.was = {}
    set(r, 'nonce', nonce)
    set(r, 'digest', digest)
    set(r, 'queue', queue)
    set(r, 'owner', owner)
    set(r, 'relaunch', relaunch)
    set(r, 'request', body)
    set(r, 'accept_until', tonumber(accept_until))
    set(r, 'expires_at', tonumber(expires_at))
    set(r, 'time_limit', tonumber(time_limit))
    set(r, 'created_at', NOW)
    set(r, 'state', 'QUEUED')
    store(r, NOW + RING)
    return 'created'
  end
  if not LIVE[r.state] and (r.digest or '') == '' then -- a stop came first, for this very request
    set(r, 'nonce', nonce)
    set(r, 'digest', digest)
    if (r.owner or '') == '' then set(r, 'owner', owner) end -- else it was adopted
    set(r, 'queue', queue)
    set(r, 'accept_until', tonumber(accept_until))
    set(r, 'undelivered', (r.owner or '') ~= '' and 1 or 0)
    store(r)
    return 'ended', r
  end
  return r.digest == digest and 'same' or 'conflict', r
end

local function told(word, r) return r and { word, shown(r) } or { word } end

function operations.put(...) return told(put(...)) end

local function in_flight()
  local counts, total = redis.call('HGETALL', P .. 'counts'), 0
  for i = 1, #counts, 2 do
    local state = string.match(counts[i], '|(%u+)$')
    if state == 'LAUNCHING' or state == 'LAUNCHED' then total = total + tonumber(counts[i + 1]) end
  end
  return total
end

local function in_flight_of(queue)
  local launching, launched = unpack(redis.call('HMGET', P .. 'counts', queue .. '|LAUNCHING', queue .. '|LAUNCHED'))
  return tonumber(launching or 0) + tonumber(launched or 0)
end

local function held_back(r, limit)
  if redis.call('HEXISTS', P .. 'paused', r.queue) == 1 then return 'paused' end
  if MAX_IN_FLIGHT > 0 and in_flight() >= MAX_IN_FLIGHT then return 'full' end
  if limit > 0 and in_flight_of(r.queue) >= limit then return 'full' end
end

local function hold(r, token, worker)
  set(r, 'claim', token)
  set(r, 'worker', worker)
  set(r, 'lease_until', NOW + LEASE)
  set(r, 'holds', r.holds + 1)
end

-- Whether this very worker, not a later one of its name, was heard of lately.
local function lives(worker, since)
  local said = redis.call('HGET', P .. 'workers', worker or '')
  if not said then return false end
  local gone_at, info = string.match(said, '^%S+ (%S+) (.*)$')
  local started_at = tonumber(string.match(info or '', '"started_at":([%d.eE+-]+)'))
  return started_at ~= nil and tonumber(gone_at) > NOW and started_at <= since
end

-- token '': no offer, only end what has expired. for_nonce '': what is offered fits any launch, else only this one
local function claim(r, token, worker, args, target, limit, for_nonce, for_launch)
  if r.state ~= 'QUEUED' then return { 'moved_on', shown(r) } end
  if expired(r) then
    finish(r, 'EXPIRED', r.attempt - 1, NOW, expiry_reason(r))
    store(r)
    return { 'ended', shown(r) }
  end
  if token == '' or r.not_before > NOW then return { 'moved_on', shown(r) } end
  if for_nonce ~= '' and (r.nonce ~= for_nonce or r.launch ~= tonumber(for_launch)) then
    return { 'moved_on', shown(r) }
  end
  local held = held_back(r, tonumber(limit))
  if held then
    set(r, 'not_before', NOW + 1)
    store(r, r.not_before)
    return { held }
  end
  if (r.args or '') == '' then
    set(r, 'args', args)
    set(r, 'target', target)
  end
  set(r, 'state', 'LAUNCHING')
  set(r, 'not_before', 0)
  set(r, 'calls', r.calls + 1)
  set(r, 'first_called_at', NOW)
  set(r, 'last_claim_at', NOW)
  hold(r, token, worker)
  store(r, r.lease_until)
  return { 'call', shown(r) }
end

function operations.claim(id, ...)
  local r = load(id)
  if not r then return { 'missing' } end
  return claim(r, ...)
end

-- put, and claim only what this very request is the record of: {put's answer, claim's answer}
function operations.admit(id, token, worker, args, target, limit, for_nonce, for_launch, ...)
  local word, r = put(id, ...)
  if word == 'too_late' then return { { word }, { 'missing' } } end
  if word ~= 'created' and word ~= 'same' then return { told(word, r), { 'moved_on' } } end
  return { { word }, claim(r or load(id), token, worker, args, target, limit, for_nonce, for_launch) }
end

function operations.reclaim(id, token, worker)
  local r = load(id)
  if not r then return { 'missing' } end
  if r.state ~= 'LAUNCHING' or r.lease_until > NOW then return { 'moved_on', shown(r) } end
  if lives(r.worker, r.lease_until - LEASE) then set(r, 'holds', math.max(0, r.holds - 1)) end
  if r.holds > 2 * MAX_DELIVERIES then
    finish(r, 'UNKNOWN', r.attempt, NOW,
      broken_reason() .. '; whether a task was started is not known: look for it by hand')
    store(r)
    return { 'ended', shown(r) }
  end
  set(r, 'dirty', 1)
  hold(r, token, worker)
  if breaks_workers(r) then
    set(r, 'burnt', 1)
    set(r, 'reason', broken_reason())
  end
  local look = has_stop(r) or r.burnt == 1 or expired(r) or NOW - r.first_called_at >= LOOK_ONLY_AFTER
  if not look then
    set(r, 'calls', r.calls + 1)
    set(r, 'last_claim_at', NOW)
  end
  store(r, r.lease_until)
  return { look and 'look' or 'call', shown(r, true) }
end

function operations.launched(id, nonce, launch, arn, wait)
  local r = load(id)
  if not r or r.nonce ~= nonce or r.launch ~= tonumber(launch) then return { 'stop_it' } end
  if r.arn == arn and r.state ~= 'QUEUED' then return { 'same' } end
  if r.state ~= 'LAUNCHING' and r.state ~= 'QUEUED' then return { 'stop_it' } end
  set(r, 'state', 'LAUNCHED')
  set(r, 'arn', arn)
  set(r, 'launched_at', NOW)
  set(r, 'reason', '')
  set(r, 'not_before', 0)
  set(r, 'calls', 0)
  release(r)
  store(r, has_stop(r) and NOW or NOW + tonumber(wait))
  return { 'ok' }
end

function operations.unsure(id, token, wait, reason, answered)
  local r = load(id)
  if not holds(r, token) then return { 'lost' } end
  if answered ~= '1' then set(r, 'dirty', 1) end
  set(r, 'claim', '') -- its holder has given up: nothing it may say later is the word of a clean holder
  set(r, 'lease_until', NOW)
  set(r, 'reason', reason)
  speak(r)
  store(r, NOW + tonumber(wait))
  return { 'ok' }
end

function operations.no_effect(id, token, wait, reason)
  local r = load(id)
  if not holds(r, token) then return { 'lost' } end
  set(r, 'reason', reason)
  if r.dirty == 1 then
    set(r, 'lease_until', NOW)
    speak(r)
    store(r, NOW + tonumber(wait))
    return { 'ok' }
  end
  if has_stop(r) then
    finish(r, 'REVOKED', r.attempt - 1, NOW, stop_reason(r))
    store(r)
    return { 'ended', shown(r) }
  end
  set(r, 'state', 'QUEUED')
  set(r, 'not_before', NOW + tonumber(wait))
  set(r, 'first_called_at', 0)
  set(r, 'last_claim_at', 0)
  release(r)
  store(r, r.not_before)
  return { 'ok' }
end

function operations.refused(id, token, kind, reason, wait, max_attempts)
  local r = load(id)
  if not holds(r, token) then return { 'lost' } end
  set(r, 'reason', reason)
  if r.dirty == 1 then
    set(r, 'burnt', 1)
    set(r, 'lease_until', NOW)
    speak(r)
    store(r, NOW + tonumber(wait))
    return { 'ok' }
  end
  local state
  if has_stop(r) then
    state, reason = 'REVOKED', stop_reason(r)
  elseif kind == 'permanent' then
    state = 'FAILED'
  elseif kind == 'start_failure' then
    if r.attempt >= tonumber(max_attempts) then
      state = 'REMOVED'
    else
      set(r, 'attempt', r.attempt + 1)
      set(r, 'calls', 0)
    end
  end
  if state then
    -- lack of capacity consumes no attempt
    finish(r, state, kind == 'capacity' and r.attempt - 1 or r.attempt, NOW, reason)
    store(r)
    return { 'ended', shown(r) }
  end
  next_launch(r, NOW + tonumber(wait))
  store(r, r.not_before)
  return { 'retry', shown(r) }
end

function operations.none(id, token, wait, why)
  local r = load(id)
  if not holds(r, token) then return { 'lost' } end
  local safe_at = r.last_claim_at + LEASE + SETTLE
  -- The look was made after the claim: the claim, not this moment, must be at or after H. Half a millisecond for text().
  if r.lease_until - LEASE < safe_at - 0.0005 then
    set(r, 'lease_until', NOW)
    speak(r)
    store(r, math.min(safe_at, NOW + tonumber(wait)))
    return { 'early' }
  end
  if NOW - r.first_called_at > PROOF_ENDS_AFTER then
    finish(r, 'UNKNOWN', r.attempt, NOW,
      'nobody saw whether RunTask started a task, and after an hour ECS cannot tell: ' .. why)
  elseif has_stop(r) then
    finish(r, 'REVOKED', r.attempt - 1, NOW, stop_reason(r))
  elseif breaks_workers(r) then
    finish(r, 'FAILED', r.attempt - 1, NOW, broken_reason())
  elseif expired(r) then
    finish(r, 'EXPIRED', r.attempt - 1, NOW, expiry_reason(r))
  else
    next_launch(r, NOW + tonumber(wait))
    store(r, r.not_before)
    return { 'retry', shown(r) }
  end
  store(r)
  return { 'ended', shown(r) }
end
