-- The workers that are alive.

function operations.heartbeat(name, ttl, info)
  redis.call('HSET', P .. 'workers', name, text(NOW) .. ' ' .. text(NOW + tonumber(ttl)) .. ' ' .. info)
  return { 'ok' }
end

-- {seen at, JSON, ...}
function operations.list_workers()
  local reply, entries = {}, redis.call('HGETALL', P .. 'workers')
  for i = 1, #entries, 2 do
    local seen_at, forget_at, info = string.match(entries[i + 1], '^(%S+) (%S+) (.*)$')
    if forget_at and tonumber(forget_at) > NOW then
      reply[#reply + 1] = seen_at
      reply[#reply + 1] = info
    else
      redis.call('HDEL', P .. 'workers', entries[i])
    end
  end
  return reply
end
