-- Dead letters: messages that could not be used.

local function drop_dead_letter(key)
  local size = redis.call('HSTRLEN', P .. 'dead_letters', key)
  redis.call('ZREM', P .. 'dead_letter_times', key)
  if redis.call('HDEL', P .. 'dead_letters', key) == 0 then return 0 end
  redis.call('DECRBY', P .. 'dead_letter_bytes', size)
  return 1
end

-- The oldest go first. At most so many at a time, for a script blocks the server; the next call goes on.
local function trim_dead_letters()
  for _ = 1, 500 do
    local oldest = redis.call('ZRANGE', P .. 'dead_letter_times', 0, 0, 'WITHSCORES')
    if not oldest[1] then return end
    local kept = redis.call('ZCARD', P .. 'dead_letter_times')
    local bytes = tonumber(redis.call('GET', P .. 'dead_letter_bytes') or 0)
    local over = kept > MAX_DEAD_LETTERS or (bytes > MAX_DEAD_LETTER_BYTES and kept > 1)
    if not over and tonumber(oldest[2]) > NOW - MAX_DEAD_LETTER_AGE then return end
    drop_dead_letter(oldest[1])
  end
end

function operations.add_dead_letter(key, letter)
  if redis.call('HSETNX', P .. 'dead_letters', key, letter) == 0 then return { 'ok' } end
  -- Each a little later than the one before, so that their order is that of their burials.
  local newest = redis.call('ZRANGE', P .. 'dead_letter_times', -1, -1, 'WITHSCORES')
  local at = math.max(NOW, newest[2] and tonumber(newest[2]) + 1e-6 or 0)
  redis.call('ZADD', P .. 'dead_letter_times', string.format('%.6f', at), key)
  redis.call('INCRBY', P .. 'dead_letter_bytes', #letter)
  trim_dead_letters()
  return { 'ok' }
end

-- {buried at, JSON, ...}, newest first; at: of the last one that the caller has, or ''
function operations.list_dead_letters(limit, at)
  local most = at == '' and '+inf' or '(' .. at
  local keys = redis.call('ZREVRANGEBYSCORE', P .. 'dead_letter_times', most, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
  local found = {}
  for i = 1, #keys, 2 do
    found[#found + 1] = keys[i + 1]
    found[#found + 1] = redis.call('HGET', P .. 'dead_letters', keys[i])
  end
  return found
end

-- {buried at, JSON, ...}; '' twice for an unknown key
function operations.get_dead_letters(...)
  local found = {}
  for _, key in ipairs({ ... }) do
    found[#found + 1] = redis.call('ZSCORE', P .. 'dead_letter_times', key) or ''
    found[#found + 1] = redis.call('HGET', P .. 'dead_letters', key) or ''
  end
  return found
end

function operations.delete_dead_letters(...)
  local dropped = {}
  for i, key in ipairs({ ... }) do dropped[i] = drop_dead_letter(key) end
  return dropped
end
