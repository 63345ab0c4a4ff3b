-- The indexes of what is due, and of what is over.

-- The record is in a state of a newer version, whose workers know what to do. When none of them has leased it for as
-- long as results are kept, there is none any more, and the record ends.
local function track_unknown_state(r, index)
  if r.unknown_state_since == 0 then
    redis.call('HSET', key_of(r.id), 'unknown_state_since', text(NOW))
  elseif NOW - r.unknown_state_since >= SETTINGS.retention_seconds then
    finish(r, 'UNKNOWN', r.attempt, NOW, string.format('it is in the state %s, which no worker has known for %.0f s: '
      .. 'were the workers set back to an older version? Search for it by hand', r.state, SETTINGS.retention_seconds))
    redis.call('ZREM', index, r.id)
    store(r)
  end
end

local function lease(index, limit, with_request)
  local reply = {}
  local ids = redis.call('ZRANGEBYSCORE', index, '-inf', text(NOW), 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    local r = load(id)
    if r and not LIVE_STATES[r.state] and not TERMINAL_STATES[r.state] then
      redis.call('ZADD', index, text(NOW + SETTINGS.lease_seconds), id)
      track_unknown_state(r, index)
    elseif r and index_of(r) == index then
      if r.unknown_state_since > 0 then redis.call('HDEL', key_of(id), 'unknown_state_since') end
      redis.call('ZADD', index, text(NOW + SETTINGS.lease_seconds), id)
      reply[#reply + 1] = reply_record(r, with_request)
    else
      redis.call('ZREM', index, id)
    end
  end
  return reply
end

function operations.lease_due(limit) return lease(P .. 'due', limit) end

function operations.lease_due_retries(queue, limit) return lease(P .. 'retry:' .. queue, limit, true) end

function operations.lease_unclaimed(queue, limit) return lease(P .. 'unclaimed:' .. queue, limit, true) end

function operations.lease_expired(limit)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'expiry', '-inf', text(NOW), 'LIMIT', 0, limit)
  local reply = {}
  for _, id in ipairs(ids) do
    if redis.call('HGET', key_of(id), 'state') == 'QUEUED' then
      redis.call('ZADD', P .. 'expiry', text(NOW + SETTINGS.lease_seconds), id)
      reply[#reply + 1] = id
    else
      redis.call('ZREM', P .. 'expiry', id)
    end
  end
  return reply
end

-- id, seconds, id, seconds, ...: moves only records that still stand in `due` and are not due yet
function operations.reschedule_poll(...)
  local waits = { ... }
  for i = 1, #waits, 2 do
    local score = redis.call('ZSCORE', P .. 'due', waits[i])
    if score and tonumber(score) > NOW then
      redis.call('ZADD', P .. 'due', text(NOW + tonumber(waits[i + 1])), waits[i])
    end
  end
  return { 'ok' }
end

function operations.list_undelivered(owner, limit)
  local reply, index = {}, P .. 'undelivered:' .. owner
  for _, id in ipairs(redis.call('ZRANGE', index, 0, limit - 1)) do
    local r = load(id)
    if r and r.undelivered == 1 and r.owner == owner then
      reply[#reply + 1] = reply_record(r)
    else
      redis.call('ZREM', index, id)
    end
  end
  return reply
end

function operations.prune(limit)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'finished', '-inf', text(NOW), 'LIMIT', 0, limit)
  if #ids > 0 then redis.call('ZREM', P .. 'finished', unpack(ids)) end
  trim_dead_letters()
  return #ids
end

-- How many LAUNCHED records that were due later are now due within this many seconds, spread.
function operations.poll_soon(within, limit)
  within = tonumber(within)
  local ids = {}
  local after = '(' .. text(NOW + within)
  for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', P .. 'due', '+inf', after, 'LIMIT', 0, tonumber(limit))) do
    if redis.call('HGET', key_of(id), 'state') == 'LAUNCHED' then ids[#ids + 1] = id end
  end
  for number, id in ipairs(ids) do
    redis.call('ZADD', P .. 'due', text(NOW + within * number / #ids), id)
  end
  return #ids
end
