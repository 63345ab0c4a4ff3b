-- Dead letters: messages that could not be used.

local function drop_dead_letter(key)
  local size = redis.call('HSTRLEN', P .. 'dead_letters', key)
  redis.call('ZREM', P .. 'dead_letter_times', key)
  if redis.call('HDEL', P .. 'dead_letters', key) == 0 then return 0 end
  redis.call('DECRBY', P .. 'dead_letter_bytes', size)
  return 1
end

-- Drop the oldest beyond a bound. A script blocks the server, so at most 500 at a time; the next call continues.
local function trim_dead_letters()
  for _ = 1, 500 do
    local oldest = redis.call('ZRANGE', P .. 'dead_letter_times', 0, 0, 'WITHSCORES')
    if not oldest[1] then return end
    local number = redis.call('ZCARD', P .. 'dead_letter_times')
    local bytes = tonumber(redis.call('GET', P .. 'dead_letter_bytes') or 0)
    local over = number > SETTINGS.max_dead_letters or (bytes > SETTINGS.max_dead_letter_bytes and number > 1)
    if not over and tonumber(oldest[2]) > NOW - SETTINGS.max_dead_letter_age then return end
    drop_dead_letter(oldest[1])
  end
end

function operations.add_dead_letter(key, encoded)
  if redis.call('HSETNX', P .. 'dead_letters', key, encoded) == 0 then return { 'ok' } end
  -- Each a little later than the one before, so that the times give the order in which they were added.
  local newest = redis.call('ZRANGE', P .. 'dead_letter_times', -1, -1, 'WITHSCORES')
  local at = math.max(NOW, newest[2] and tonumber(newest[2]) + 1e-6 or 0)
  redis.call('ZADD', P .. 'dead_letter_times', string.format('%.6f', at), key)
  redis.call('INCRBY', P .. 'dead_letter_bytes', #encoded)
  trim_dead_letters()
  return { 'ok' }
end

-- {added at, JSON, ...}, newest first; before: the time of the last one that the caller has, or ''
function operations.list_dead_letters(limit, before)
  local upper = before == '' and '+inf' or '(' .. before
  local keys = redis.call('ZREVRANGEBYSCORE', P .. 'dead_letter_times', upper, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
  local reply = {}
  for i = 1, #keys, 2 do
    reply[#reply + 1] = keys[i + 1]
    reply[#reply + 1] = redis.call('HGET', P .. 'dead_letters', keys[i])
  end
  return reply
end

-- {added at, JSON, ...}; '' twice for an unknown key
function operations.get_dead_letters(...)
  local reply = {}
  for _, key in ipairs({ ... }) do
    reply[#reply + 1] = redis.call('ZSCORE', P .. 'dead_letter_times', key) or ''
    reply[#reply + 1] = redis.call('HGET', P .. 'dead_letters', key) or ''
  end
  return reply
end

function operations.delete_dead_letters(...)
  local deleted = {}
  for i, key in ipairs({ ... }) do deleted[i] = drop_dead_letter(key) end
  return deleted
end
