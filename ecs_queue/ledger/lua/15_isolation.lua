-- One record that cannot be used must not stop the work on the others, and a clock that goes back none at all.

-- The record leaves its indexes for the list of broken items. A live one stays among the live, where listings show it.
local function keep_apart(id, err, index)
  local reason = message_of(err)
  if not note_broken('record', id, reason) then
    if index then pcall(call, 'ZADD', index, text(NOW + SETTINGS.lease_seconds), id) end -- skipped until the lease ends
    return
  end
  local r = type(err) == 'table' and err.record or {}
  local indexes = { P .. 'due', P .. 'expiry', index }
  if type(r.queue) == 'string' then
    indexes[#indexes + 1] = P .. 'unclaimed:' .. r.queue
    indexes[#indexes + 1] = P .. 'retry:' .. r.queue
    indexes[#indexes + 1] = P .. 'delayed:' .. r.queue
    indexes[#indexes + 1] = P .. 'starting:' .. r.queue
    if has_key(r) then indexes[#indexes + 1] = concurrency_keys().holders_of(r.queue, r.concurrency_key) end
  end
  if type(r.owner) == 'string' then indexes[#indexes + 1] = P .. 'undelivered:' .. r.owner end
  for _, key in pairs(indexes) do pcall(call, 'ZREM', key, id) end
  if type(r.queue) == 'string' and has_key(r) then
    local keys = concurrency_keys()
    pcall(call, 'ZREM', keys.waiting_of(r.queue), keys.waiting_entry(r))
    pcall(keys.wake, r.queue, r.concurrency_key, SETTINGS.max_key_waiters_checked, 1)
  end
end

-- What work(id, index, ...) returns; nothing for a record that cannot be used.
local function isolate(id, index, work, ...)
  local succeeded, reply = pcall(work, id, index, ...)
  if succeeded then return reply end
  if not is_data_error(reply) then error(reply, 0) end
  keep_apart(id, reply, index)
end

-- A request that waits has something to launch, and what is launched can be read.
local function require_payload(r)
  if r.state == 'QUEUED' and payload_of(r, 'request') == '' then
    error({ broken = 'its request is missing', record = r }, 0)
  end
  if r.state == 'LAUNCHING' then payload_of(r, 'args') end
end

-- What the server's clock showed when a record was written, of those fields that its next step depends on.
local CLOCK_FIELDS = { 'lease_until', 'not_before', 'first_called_at', 'last_claim_at', 'launched_at' }

local function shift_times(id, seconds)
  local times = redis.pcall('HMGET', key_of(id), unpack(CLOCK_FIELDS))
  for i, field in ipairs(CLOCK_FIELDS) do
    local time = not is_error(times) and valid_number(times[i])
    if time and time > seconds then redis.call('HSET', key_of(id), field, text(time - seconds)) end
  end
end

local function bring_forward(index, seconds)
  local entries = call('ZRANGEBYSCORE', index, '-inf', '+inf', 'WITHSCORES')
  for i = 1, #entries, 2 do
    local id, at = entries[i], tonumber(entries[i + 1])
    if index ~= BROKEN_CHECKS then shift_times(id, seconds) end
    if at > NOW then call('ZADD', index, text(math.max(NOW, at - seconds)), id) end
  end
end

-- When the server's clock has gone back, everything that is due would come that much later, and what is older would
-- count as younger: all of it is brought forward by as much. Every operation of a worker looks first, so that no record
-- has times from before and after.
local function follow_clock()
  local shown = valid_number(call('HGET', P .. 'clock', 'shown'))
  if not shown or math.abs(NOW - shown) > SETTINGS.max_clock_jitter then
    call('HSET', P .. 'clock', 'shown', text(NOW))
  end
  if not shown or NOW >= shown - SETTINGS.max_clock_jitter then return end
  bring_forward(P .. 'due', shown - NOW)
  bring_forward(BROKEN_CHECKS, shown - NOW)
  local counts = call('HGETALL', P .. 'counts')
  for i = 1, #counts, 2 do
    local queue = string.match(counts[i], '^(.*)|QUEUED$')
    if queue then
      bring_forward(P .. 'unclaimed:' .. queue, shown - NOW)
      bring_forward(P .. 'retry:' .. queue, shown - NOW)
    end
  end
end

local function restore_key_places(r, keys)
  if keys.holds(r) then call('ZADD', keys.holders_of(r.queue, r.concurrency_key), 'NX', text(NOW), r.id) end
  if keys.waits(r) then call('ZADD', keys.waiting_of(r.queue), 0, keys.waiting_entry(r)) end
end

-- Put a sound record back into the indexes that it belongs to; where it stands already, it stays.
local function restore_indexes(r)
  local index = index_of(r)
  if index then
    call('ZADD', P .. 'live', 'NX', text(r.created_at), r.id)
    local at = r.state == 'QUEUED' and r.not_before or math.min(r.lease_until, NOW + SETTINGS.lease_seconds)
    call('ZADD', index, 'NX', text(math.max(NOW, at)), r.id)
    if r.state == 'QUEUED' and r.expires_at > 0 then
      call('ZADD', P .. 'expiry', 'NX', text(r.expires_at - SETTINGS.startup_allowance), r.id)
    end
    if (r.arn or '') ~= '' then call('HSET', P .. 'arns', r.arn, r.id) end
    if is_starting(r) then call('ZADD', P .. 'starting:' .. r.queue, 'NX', text(NOW), r.id) end
    if has_key(r) then restore_key_places(r, concurrency_keys()) end
  elseif r.undelivered == 1 then
    call('ZADD', P .. 'undelivered:' .. r.owner, 'NX', text(r.finished_at), r.id)
  end
end
