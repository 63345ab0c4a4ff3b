-- Dead letters: messages that could not be used.

local function drop_letter(key)
  local size = redis.call('HSTRLEN', P .. 'letters', key)
  redis.call('ZREM', P .. 'letter_at', key)
  if redis.call('HDEL', P .. 'letters', key) == 0 then return 0 end
  redis.call('DECRBY', P .. 'letter_bytes', size)
  return 1
end

-- The oldest go first. At most so many at a time, for a script blocks the server; the next call goes on.
local function trim_letters()
  for _ = 1, 500 do
    local oldest = redis.call('ZRANGE', P .. 'letter_at', 0, 0, 'WITHSCORES')
    if not oldest[1] then return end
    local kept = redis.call('ZCARD', P .. 'letter_at')
    local bytes = tonumber(redis.call('GET', P .. 'letter_bytes') or 0)
    local over = kept > DEAD_LETTERS_KEPT or (bytes > DEAD_LETTERS_BYTES and kept > 1)
    if not over and tonumber(oldest[2]) > NOW - DEAD_LETTERS_SECONDS then return end
    drop_letter(oldest[1])
  end
end

function operations.bury(key, letter)
  if redis.call('HSETNX', P .. 'letters', key, letter) == 0 then return { 'ok' } end
  -- Each a little later than the one before, so that their order is that of their burials.
  local newest = redis.call('ZRANGE', P .. 'letter_at', -1, -1, 'WITHSCORES')
  local at = math.max(NOW, newest[2] and tonumber(newest[2]) + 1e-6 or 0)
  redis.call('ZADD', P .. 'letter_at', string.format('%.6f', at), key)
  redis.call('INCRBY', P .. 'letter_bytes', #letter)
  trim_letters()
  return { 'ok' }
end

-- {buried at, JSON, ...}, newest first; at: of the last one that the caller has, or ''
function operations.dead(limit, at)
  local most = at == '' and '+inf' or '(' .. at
  local keys = redis.call('ZREVRANGEBYSCORE', P .. 'letter_at', most, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
  local found = {}
  for i = 1, #keys, 2 do
    found[#found + 1] = keys[i + 1]
    found[#found + 1] = redis.call('HGET', P .. 'letters', keys[i])
  end
  return found
end

-- {buried at, JSON, ...}; '' twice for an unknown key
function operations.letters(...)
  local found = {}
  for _, key in ipairs({ ... }) do
    found[#found + 1] = redis.call('ZSCORE', P .. 'letter_at', key) or ''
    found[#found + 1] = redis.call('HGET', P .. 'letters', key) or ''
  end
  return found
end

function operations.discard(...)
  local dropped = {}
  for i, key in ipairs({ ... }) do dropped[i] = drop_letter(key) end
  return dropped
end
