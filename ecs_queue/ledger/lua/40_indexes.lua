-- Popping what is due, the shared token buckets, and the dispatch.

local function pop(index, limit, with_request)
  local found = {}
  local ids = redis.call('ZRANGEBYSCORE', index, '-inf', text(NOW), 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    local r = load(id)
    if r and shelf_of(r) == index then
      redis.call('ZADD', index, text(NOW + LEASE), id)
      found[#found + 1] = shown(r, with_request)
    else
      redis.call('ZREM', index, id)
    end
  end
  return found
end

function operations.due(limit) return pop(P .. 'due', limit) end

function operations.due_retries(queue, limit) return pop(P .. 'retry:' .. queue, limit, true) end

function operations.due_silent(queue, limit) return pop(P .. 'silent:' .. queue, limit, true) end

function operations.due_expired(limit)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'expiry', '-inf', text(NOW), 'LIMIT', 0, limit)
  local found = {}
  for _, id in ipairs(ids) do
    if redis.call('HGET', key_of(id), 'state') == 'QUEUED' then
      redis.call('ZADD', P .. 'expiry', text(NOW + LEASE), id)
      found[#found + 1] = id
    else
      redis.call('ZREM', P .. 'expiry', id)
    end
  end
  return found
end

-- id, seconds, id, seconds, ...: only where the record still stands in `due`, and nobody wants it looked at already
function operations.rest(...)
  local looks = { ... }
  for i = 1, #looks, 2 do
    local score = redis.call('ZSCORE', P .. 'due', looks[i])
    if score and tonumber(score) > NOW then
      redis.call('ZADD', P .. 'due', text(NOW + tonumber(looks[i + 1])), looks[i])
    end
  end
  return { 'ok' }
end

function operations.undelivered(owner, limit)
  local found, index = {}, P .. 'undelivered:' .. owner
  for _, id in ipairs(redis.call('ZRANGE', index, 0, limit - 1)) do
    local r = load(id)
    if r and r.undelivered == 1 and r.owner == owner then
      found[#found + 1] = shown(r)
    else
      redis.call('ZREM', index, id)
    end
  end
  return found
end

function operations.prune(limit)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'finished', '-inf', text(NOW), 'LIMIT', 0, limit)
  if #ids > 0 then redis.call('ZREM', P .. 'finished', unpack(ids)) end
  return #ids
end

-- {granted, seconds until the next token}
function operations.take(bucket, want, rate, burst)
  local key = P .. 'bucket:' .. bucket
  want, rate, burst = tonumber(want), tonumber(rate), tonumber(burst)
  local held = redis.call('HMGET', key, 'tokens', 'at')
  local tokens = tonumber(held[1] or burst)
  local at = tonumber(held[2] or NOW)
  tokens = math.min(burst, tokens + math.max(0, NOW - at) * rate)
  local granted = math.max(0, math.min(want, math.floor(tokens + 1e-6)))
  tokens = tokens - granted
  redis.call('HSET', key, 'tokens', string.format('%.6f', tokens), 'at', string.format('%.6f', math.max(at, NOW)))
  redis.call('EXPIRE', key, math.ceil(burst / rate) + 60)
  return { granted, string.format('%.6f', math.max(0, (1 - tokens) / rate)) }
end

function operations.bury(letter)
  redis.call('LPUSH', P .. 'dead', text(NOW) .. ' ' .. letter)
  redis.call('LTRIM', P .. 'dead', 0, DEAD_LETTERS_KEPT - 1)
  return { 'ok' }
end

function operations.heartbeat(name, ttl, info)
  redis.call('HSET', P .. 'workers', name, text(NOW) .. ' ' .. text(NOW + tonumber(ttl)) .. ' ' .. info)
  return { 'ok' }
end

-- {seen at, JSON, seen at, JSON, ...}
function operations.workers()
  local found, said = {}, redis.call('HGETALL', P .. 'workers')
  for i = 1, #said, 2 do
    local seen_at, gone_at, info = string.match(said[i + 1], '^(%S+) (%S+) (.*)$')
    if gone_at and tonumber(gone_at) > NOW then
      found[#found + 1] = seen_at
      found[#found + 1] = info
    else
      redis.call('HDEL', P .. 'workers', said[i])
    end
  end
  return found
end

function operations.now() return string.format('%.6f', NOW) end

return operations[ARGV[1]](unpack(ARGV, ARG + 1))
