-- Loading, changing and storing one record, with every index it stands in.

RECORD_NUMBERS.unknown_state_since = 0 -- only here: since when no worker has known the state

-- A state that is in neither table is a newer version's: this version knows nothing of it.
local function has_ended(r) return TERMINAL_STATES[r.state] end

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
  r.before = { state = r.state, index = r.state and index_of(r), arn = r.arn, owner = r.owner,
               undelivered = r.undelivered }
  return r
end

-- flat: the stored fields, {field, value, ...}; changed: the fields that differ from them. snapshot() adds `before`:
-- what the indexes show.
local DEFAULTS = { __index = RECORD_NUMBERS }
local function new_record(id) return setmetatable({ id = id, flat = {}, changed = {} }, DEFAULTS) end

local function load(id)
  local flat = redis.call('HGETALL', key_of(id))
  if #flat == 0 then return nil end
  local r = new_record(id)
  r.flat = flat
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    r[field] = RECORD_NUMBERS[field] and tonumber(value) or value
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
  local before, index = r.before, index_of(r)
  if before.index and before.index ~= index then redis.call('ZREM', before.index, r.id) end
  if index and (due_at or before.index ~= index) then redis.call('ZADD', index, text(due_at or NOW), r.id) end
  if before.arn ~= r.arn then
    if before.arn and before.arn ~= '' then redis.call('HDEL', P .. 'arns', before.arn) end
    if r.arn and r.arn ~= '' and LIVE_STATES[r.state] then redis.call('HSET', P .. 'arns', r.arn, r.id) end
  end
  if before.state ~= r.state then
    if before.state then redis.call('HINCRBY', P .. 'counts', r.queue .. '|' .. before.state, -1) end
    redis.call('HINCRBY', P .. 'counts', r.queue .. '|' .. r.state, 1)
    if r.expires_at > 0 then
      if r.state == 'QUEUED' then
        redis.call('ZADD', P .. 'expiry', text(r.expires_at - SETTINGS.startup_allowance), r.id)
      elseif before.state == 'QUEUED' then
        redis.call('ZREM', P .. 'expiry', r.id)
      end
    end
  end
end

local function move_results(r)
  local before = r.before
  if before.undelivered == 1 and (r.undelivered == 0 or before.owner ~= r.owner) then
    redis.call('ZREM', P .. 'undelivered:' .. before.owner, r.id)
  end
  if r.undelivered == 1 and (before.undelivered ~= 1 or before.owner ~= r.owner) then
    redis.call('ZADD', P .. 'undelivered:' .. r.owner, text(r.finished_at), r.id)
  end
end

local function milliseconds(duration) return string.format('%.0f', math.floor(duration * 1000)) end

-- The index of an owner that never returns must not outlive the records in it.
local function extend_results_ttl(r, forget_at)
  local key = P .. 'undelivered:' .. r.owner
  if redis.call('PTTL', key) < (forget_at - NOW) * 1000 then
    redis.call('PEXPIRE', key, milliseconds(forget_at - NOW))
  end
end

local function set_lifetime(r)
  if LIVE_STATES[r.state] then
    if not r.before.state then
      redis.call('ZADD', P .. 'live', text(r.created_at), r.id)
      redis.call('ZREM', P .. 'finished', r.id) -- of an earlier request with this id, forgotten but not yet pruned
    end
    return
  end
  local keep = SETTINGS.retention_seconds
  if r.undelivered == 1 then keep = math.max(SETTINGS.min_unconfirmed_retention, SETTINGS.retention_seconds) end
  local forget_at = math.max(r.accept_until + SETTINGS.max_clock_skew, NOW + keep)
  redis.call('ZREM', P .. 'live', r.id)
  redis.call('ZADD', P .. 'finished', text(forget_at), r.id)
  redis.call('PEXPIRE', key_of(r.id), milliseconds(forget_at - NOW))
  if r.undelivered == 1 then extend_results_ttl(r, forget_at) end
  if r.before.arn and r.before.arn ~= '' then redis.call('HDEL', P .. 'arns', r.before.arn) end
end

-- Store the changed fields and move the record between indexes. due_at: when it is due next; nil leaves the time of a
-- record that stays in its index.
local function store(r, due_at)
  local written, deleted = {}, {}
  for field in pairs(r.changed) do
    local value = r[field]
    if value == '' or value == 0 then
      deleted[#deleted + 1] = field
    else
      written[#written + 1] = field
      written[#written + 1] = text(value)
    end
  end
  if #written > 0 then redis.call('HSET', key_of(r.id), unpack(written)) end
  if #deleted > 0 then redis.call('HDEL', key_of(r.id), unpack(deleted)) end
  move_indexes(r, due_at)
  move_results(r)
  if has_ended(r) or not r.before.state then set_lifetime(r) end
end

local function clear_claim(r)
  set(r, 'claim', '')
  set(r, 'last_answer', '')
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

local function is_expired(r) return r.expires_at > 0 and NOW + SETTINGS.startup_allowance >= r.expires_at end

-- A printf template with its one %s filled in, whatever bytes the value has.
local function fill(template, value) return (string.gsub(template, '%%s', function() return value end)) end

local function stop_reason(r) return fill(REASONS.stopped, r.stop_requested_by) end

local function expiry_reason(r)
  if (r.reason or '') ~= '' then return REASONS.not_started_in_time .. fill(REASONS.waited_because, r.reason) end
  if r.launch == 1 and r.calls == 0 then return REASONS.not_started_in_time .. fill(REASONS.never_claimed, r.queue) end
  return REASONS.not_started_in_time
end

local function poison_reason() return string.format(REASONS.poison, SETTINGS.max_deliveries) end

local function is_poison(r) return r.abandoned_claims > SETTINGS.max_deliveries end

-- The worker that holds the claim is alive, and the record stays LAUNCHING.
local function reset_abandoned_claims(r)
  set(r, 'abandoned_claims', is_poison(r) and SETTINGS.max_deliveries + 1 or 0)
end

local function has_stop(r) return (r.stop_requested_by or '') ~= '' end

local function has_claim(r, claim_token)
  return r and r.state == 'LAUNCHING' and claim_token ~= '' and r.claim == claim_token
end

-- protocol/repeated_calls.py: the result code that this very call had before, or nil.
local function find_answer(r, operation, claim_token)
  local call = operation .. ' ' .. claim_token .. ' '
  local known = r and r.last_answer or ''
  if claim_token ~= '' and string.sub(known, 1, #call) == call then return string.sub(known, #call + 1) end
end

local function keep_answer(r, operation, claim_token, code)
  if claim_token ~= '' then set(r, 'last_answer', operation .. ' ' .. claim_token .. ' ' .. code) end
end

-- The record as the caller receives it: {id, field, value, ...}, with the payload only on request.
local function reply_record(r, with_request)
  local reply, stored, changed = { r.id }, r.flat, r.changed
  local last = 1
  for i = 1, #stored, 2 do
    local field = stored[i]
    if not changed[field] and (with_request or field ~= 'request') then
      reply[last + 1], reply[last + 2] = field, stored[i + 1]
      last = last + 2
    end
  end
  for field in pairs(changed) do
    local value = r[field]
    if value ~= '' and value ~= 0 and (with_request or field ~= 'request') then
      reply[last + 1], reply[last + 2] = field, text(value)
      last = last + 2
    end
  end
  return reply
end
