-- Dead letters: messages that could not be used.

function operations.add_dead_letter(key, encoded)
  if call('HSETNX', P .. 'dead_letters', key, encoded) == 0 then return { 'ok' } end
  -- Each a little later than the one before, so that the times give the order in which they were added.
  local newest = call('ZRANGE', P .. 'dead_letter_times', -1, -1, 'WITHSCORES')
  local at = math.max(NOW, newest[2] and tonumber(newest[2]) + 1e-6 or 0)
  call('ZADD', P .. 'dead_letter_times', string.format('%.6f', at), key)
  call('INCRBY', P .. 'dead_letter_bytes', #encoded)
  trim_dead_letters()
  return { 'ok' }
end

-- {key, added at, JSON, ...}, newest first; before: the time of the last one that the caller has, or ''
function operations.list_dead_letters(limit, before)
  local upper = before == '' and '+inf' or '(' .. before
  local keys = call('ZREVRANGEBYSCORE', P .. 'dead_letter_times', upper, '-inf', 'WITHSCORES', 'LIMIT', 0, limit)
  local reply = {}
  for i = 1, #keys, 2 do
    local encoded = call('HGET', P .. 'dead_letters', keys[i])
    if encoded then
      reply[#reply + 1] = keys[i]
      reply[#reply + 1] = keys[i + 1]
      reply[#reply + 1] = encoded
    end
  end
  return reply
end

-- {key, added at, JSON, ...}; '' twice for an unknown key
function operations.get_dead_letters(...)
  local reply = {}
  for _, key in ipairs({ ... }) do
    reply[#reply + 1] = key
    reply[#reply + 1] = call('ZSCORE', P .. 'dead_letter_times', key) or ''
    reply[#reply + 1] = call('HGET', P .. 'dead_letters', key) or ''
  end
  return reply
end

function operations.delete_dead_letters(...)
  local deleted = {}
  for i, key in ipairs({ ... }) do deleted[i] = drop_dead_letter(key) end
  return deleted
end
