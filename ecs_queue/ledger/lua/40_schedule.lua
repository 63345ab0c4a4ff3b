-- The indexes of what is due, and of what is over.

-- The record is in a state of a newer version, whose workers know what to do. When none of them has leased it for as
-- long as results are kept, there is none any more, and the record ends.
local function track_unknown_state(r, index)
  if r.unknown_state_since == 0 then
    redis.call('HSET', key_of(r.id), 'unknown_state_since', text(NOW))
  elseif NOW - r.unknown_state_since >= SETTINGS.retention_seconds then
    finish(r, 'UNKNOWN', r.attempt, NOW, string.format('it is in the state %s, which no worker has known for %.0f s: '
      .. 'were the workers set back to an older version? Search for it by hand', r.state, SETTINGS.retention_seconds))
    call('ZREM', index, r.id)
    store(r)
  end
end

local function lease_record(id, index, payload_fields)
  local r = load(id)
  if not r then error({ broken = NO_RECORD }, 0) end
  if not LIVE_STATES[r.state] and not TERMINAL_STATES[r.state] then
    call('ZADD', index, text(NOW + SETTINGS.lease_seconds), id)
    track_unknown_state(r, index)
  elseif index_of(r) == index then
    if r.unknown_state_since > 0 then redis.call('HDEL', key_of(id), 'unknown_state_since') end
    require_payload(r)
    call('ZADD', index, text(NOW + SETTINGS.lease_seconds), id)
    return reply_record(r, payload_fields)
  else
    call('ZREM', index, id)
  end
end

local function lease(index, limit, payload_fields)
  local reply = {}
  for _, id in ipairs(call('ZRANGEBYSCORE', index, '-inf', text(NOW), 'LIMIT', 0, limit)) do
    reply[#reply + 1] = isolate(id, index, lease_record, payload_fields)
  end
  return reply
end

function operations.lease_due(limit) return lease(P .. 'due', limit, ARGS) end

function operations.lease_due_retries(queue, limit) return lease(P .. 'retry:' .. queue, limit, REQUEST_AND_ARGS) end

function operations.lease_unclaimed(queue, limit) return lease(P .. 'unclaimed:' .. queue, limit, REQUEST_AND_ARGS) end

local function lease_expired_record(id, index)
  local r = load(id)
  if r and r.state == 'QUEUED' then
    call('ZADD', index, text(NOW + SETTINGS.lease_seconds), id)
    return id
  end
  call('ZREM', index, id)
end

function operations.lease_expired(limit)
  local reply, index = {}, P .. 'expiry'
  for _, id in ipairs(call('ZRANGEBYSCORE', index, '-inf', text(NOW), 'LIMIT', 0, limit)) do
    reply[#reply + 1] = isolate(id, index, lease_expired_record)
  end
  return reply
end

-- id, seconds, id, seconds, ...: moves only records that still stand in `due` and are not due yet
function operations.reschedule_poll(...)
  local waits = { ... }
  for i = 1, #waits, 2 do
    local score = call('ZSCORE', P .. 'due', waits[i])
    if score and tonumber(score) > NOW then
      call('ZADD', P .. 'due', text(NOW + tonumber(waits[i + 1])), waits[i])
    end
  end
  return { 'ok' }
end

local function list_undelivered_record(id, index, owner)
  local r = load(id)
  if r and r.undelivered == 1 and r.owner == owner then return reply_record(r) end
  call('ZREM', index, id)
end

function operations.list_undelivered(owner, limit)
  local reply, index = {}, P .. 'undelivered:' .. owner
  for _, id in ipairs(call('ZRANGE', index, 0, limit - 1)) do
    reply[#reply + 1] = isolate(id, index, list_undelivered_record, owner)
  end
  return reply
end

function operations.prune(limit)
  local ids = call('ZRANGEBYSCORE', P .. 'finished', '-inf', text(NOW), 'LIMIT', 0, limit)
  if #ids > 0 then
    call('ZREM', P .. 'finished', unpack(ids))
    -- A client of the version before may have ended the request: it knows only the payload inside the record.
    for i, id in ipairs(ids) do ids[i] = payload_key_of(id) end
    redis.call('DEL', unpack(ids))
  end
  trim_dead_letters()
  return #ids
end

-- How many LAUNCHED records that were due later are now due within this many seconds, spread.
function operations.poll_soon(within, limit)
  within = tonumber(within)
  local ids = {}
  local after = '(' .. text(NOW + within)
  for _, id in ipairs(call('ZREVRANGEBYSCORE', P .. 'due', '+inf', after, 'LIMIT', 0, tonumber(limit))) do
    if redis.pcall('HGET', key_of(id), 'state') == 'LAUNCHED' then ids[#ids + 1] = id end
  end
  for number, id in ipairs(ids) do
    call('ZADD', P .. 'due', text(NOW + within * number / #ids), id)
  end
  return #ids
end
