-- Loading, changing and storing one record, with every index it stands in.

local NUMBERS = {
  accept_until = 0, expires_at = 0, time_limit = 0, created_at = 0, launch = 1, attempt = 1, calls = 0,
  not_before = 0, lease_until = 0, first_called_at = 0, last_claim_at = 0, ambiguous = 0, retired = 0, abandoned_claims = 0, version = 0,
  launched_at = 0, started_at = 0, stop_requested_at = 0, finished_at = 0, attempts = 0, undelivered = 0, confirmed_at = 0, unknown_state_since = 0,
  max_attempts = 0, spec_version = 0,
}
local STATES = { QUEUED = true, LAUNCHING = true, LAUNCHED = true, SUCCESS = true, FAILED = true, REMOVED = true,
                 REVOKED = true, EXPIRED = true, UNKNOWN = true }
local LIVE_STATES = { QUEUED = true, LAUNCHING = true, LAUNCHED = true }

-- A state that is in neither table is a newer version's: nothing is known of it.
local function ended(r) return STATES[r.state] and not LIVE_STATES[r.state] end

local function text(value)
  if type(value) == 'number' then
    if value == math.floor(value) then return string.format('%.0f', value) end
    return string.format('%.3f', value)
  end
  return value
end

local function key_of(id) return P .. 'r:' .. id end

local function index_of(r)
  if r.state == 'QUEUED' then
    if r.not_before > 0 then return P .. 'retry:' .. r.queue end
    return P .. 'unclaimed:' .. r.queue
  end
  if LIVE_STATES[r.state] then return P .. 'due' end
end

local function snapshot(r)
  r.was = { state = r.state, index = r.state and index_of(r), arn = r.arn, owner = r.owner,
            undelivered = r.undelivered }
  return r
end

-- flat: what is stored, {field, value, ...}; changed: the fields that differ from it.
local DEFAULTS = { __index = NUMBERS }
local function new_record(id) return setmetatable({ id = id, flat = {}, changed = {} }, DEFAULTS) end

local function load(id)
  local flat = redis.call('HGETALL', key_of(id))
  if #flat == 0 then return nil end
  local r = new_record(id)
  r.flat = flat
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    r[field] = NUMBERS[field] and tonumber(value) or value
  end
  return snapshot(r)
end

local function set(r, field, value)
  if (r[field] or '') ~= value then
    r[field] = value
    r.changed[field] = true
  end
end

local function move_indexes(r, due_at)
  local was, index = r.was, index_of(r)
  if was.index and was.index ~= index then redis.call('ZREM', was.index, r.id) end
  if index and (due_at or was.index ~= index) then redis.call('ZADD', index, text(due_at or NOW), r.id) end
  if was.arn ~= r.arn then
    if was.arn and was.arn ~= '' then redis.call('HDEL', P .. 'arns', was.arn) end
    if r.arn and r.arn ~= '' and LIVE_STATES[r.state] then redis.call('HSET', P .. 'arns', r.arn, r.id) end
  end
  if was.state ~= r.state then
    if was.state then redis.call('HINCRBY', P .. 'counts', r.queue .. '|' .. was.state, -1) end
    redis.call('HINCRBY', P .. 'counts', r.queue .. '|' .. r.state, 1)
    if r.expires_at > 0 then
      if r.state == 'QUEUED' then
        redis.call('ZADD', P .. 'expiry', text(r.expires_at - ALLOWANCE), r.id)
      elseif was.state == 'QUEUED' then
        redis.call('ZREM', P .. 'expiry', r.id)
      end
    end
  end
end

local function move_results(r)
  local was = r.was
  if was.undelivered == 1 and (r.undelivered == 0 or was.owner ~= r.owner) then
    redis.call('ZREM', P .. 'undelivered:' .. was.owner, r.id)
  end
  if r.undelivered == 1 and (was.undelivered ~= 1 or was.owner ~= r.owner) then
    redis.call('ZADD', P .. 'undelivered:' .. r.owner, text(r.finished_at), r.id)
  end
end

local function milliseconds(duration) return string.format('%.0f', math.floor(duration * 1000)) end

-- The index of an owner that never comes back must not outlive the records in it.
local function extend_results_ttl(r, forget_at)
  local key = P .. 'undelivered:' .. r.owner
  if redis.call('PTTL', key) < (forget_at - NOW) * 1000 then
    redis.call('PEXPIRE', key, milliseconds(forget_at - NOW))
  end
end

local function set_lifetime(r)
  if LIVE_STATES[r.state] then
    if not r.was.state then
      redis.call('ZADD', P .. 'live', text(r.created_at), r.id)
      redis.call('ZREM', P .. 'finished', r.id) -- of an earlier request with this id, gone but not yet pruned
    end
    return
  end
  local keep = RETENTION
  if r.undelivered == 1 then keep = math.max(MIN_UNCONFIRMED_RETENTION, RETENTION) end
  local forget_at = math.max(r.accept_until + MAX_CLOCK_SKEW, NOW + keep)
  redis.call('ZREM', P .. 'live', r.id)
  redis.call('ZADD', P .. 'finished', text(forget_at), r.id)
  redis.call('PEXPIRE', key_of(r.id), milliseconds(forget_at - NOW))
  if r.undelivered == 1 then extend_results_ttl(r, forget_at) end
  if r.was.arn and r.was.arn ~= '' then redis.call('HDEL', P .. 'arns', r.was.arn) end
end

-- Store what changed. due_at: when somebody must look at it next; nil leaves an unmoved record's time as it is.
local function store(r, due_at)
  local put, drop = {}, {}
  for field in pairs(r.changed) do
    local value = r[field]
    if value == '' or value == 0 then
      drop[#drop + 1] = field
    else
      put[#put + 1] = field
      put[#put + 1] = text(value)
    end
  end
  if #put > 0 then redis.call('HSET', key_of(r.id), unpack(put)) end
  if #drop > 0 then redis.call('HDEL', key_of(r.id), unpack(drop)) end
  move_indexes(r, due_at)
  move_results(r)
  if ended(r) or not r.was.state then set_lifetime(r) end
end

local function clear_claim(r)
  set(r, 'claim', '')
  set(r, 'lease_until', 0)
  set(r, 'ambiguous', 0)
  set(r, 'retired', 0)
  set(r, 'abandoned_claims', 0)
end

local function finish(r, state, attempts, at, reason)
  set(r, 'state', state)
  set(r, 'attempts', attempts)
  set(r, 'finished_at', at)
  set(r, 'reason', reason)
  set(r, 'undelivered', (r.owner or '') ~= '' and 1 or 0)
  set(r, 'request', '')
  set(r, 'args', '')
  set(r, 'not_before', 0)
  clear_claim(r)
end

local function queue_next_launch(r, not_before)
  set(r, 'state', 'QUEUED')
  set(r, 'launch', r.launch + 1)
  set(r, 'not_before', not_before)
  set(r, 'first_called_at', 0)
  set(r, 'last_claim_at', 0)
  set(r, 'args', '')
  set(r, 'target', '')
  set(r, 'container_name', '')
  set(r, 'max_attempts', 0)
  set(r, 'spec_version', 0)
  set(r, 'arn', '')
  set(r, 'last_status', '')
  set(r, 'version', 0)
  set(r, 'launched_at', 0)
  set(r, 'started_at', 0)
  clear_claim(r)
end

local function is_expired(r) return r.expires_at > 0 and NOW + ALLOWANCE >= r.expires_at end

local function stop_reason(r) return 'stopped by ' .. r.stop_requested_by end

local function expiry_reason(r)
  local waited = ''
  if (r.reason or '') ~= '' then
    waited = '; it waited because: ' .. r.reason
  elseif r.launch == 1 and r.calls == 0 then
    waited = '; no worker came to it: is one alive that takes from the queue ' .. r.queue .. '?'
  end
  return 'not started before its deadline (expires_in or launch_deadline)' .. waited
end

local function poison_reason()
  return string.format('workers died %d times in a row with it in hand, so it is not tried again (max_deliveries): '
    .. 'see their logs, mend the request and submit it under another id', MAX_DELIVERIES)
end

local function is_poison(r) return r.abandoned_claims > MAX_DELIVERIES end

-- The holder lives, and the record stays LAUNCHING.
local function reset_abandoned_claims(r) set(r, 'abandoned_claims', is_poison(r) and MAX_DELIVERIES + 1 or 0) end

local function has_stop(r) return (r.stop_requested_by or '') ~= '' end

local function has_claim(r, token) return r and r.state == 'LAUNCHING' and token ~= '' and r.claim == token end

-- The record as the caller gets it: {id, field, value, ...}, without the payload unless asked for.
local function reply_record(r, with_request)
  local found, stored, changed = { r.id }, r.flat, r.changed
  local last = 1
  for i = 1, #stored, 2 do
    local field = stored[i]
    if not changed[field] and (with_request or field ~= 'request') then
      found[last + 1], found[last + 2] = field, stored[i + 1]
      last = last + 2
    end
  end
  for field in pairs(changed) do
    local value = r[field]
    if value ~= '' and value ~= 0 and (with_request or field ~= 'request') then
      found[last + 1], found[last + 2] = field, text(value)
      last = last + 2
    end
  end
  return found
end
