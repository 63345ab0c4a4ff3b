-- The workers that are alive.

function operations.heartbeat(name, ttl, info)
  local entries = call('HGETALL', P .. 'workers')
  for i = 1, #entries, 2 do -- not by list_workers: those who only look may not write
    local _, forget_at = split_heartbeat(entries[i + 1])
    if not forget_at then
      note_broken('worker', entries[i], 'it is no heartbeat')
    elseif forget_at <= NOW then
      call('HDEL', P .. 'workers', entries[i])
    end
  end
  call('HSET', P .. 'workers', name, text(NOW) .. ' ' .. text(NOW + tonumber(ttl)) .. ' ' .. info)
  return { 'ok' }
end

-- {name, seen at, JSON, ...}
function operations.list_workers()
  local reply, entries = {}, call('HGETALL', P .. 'workers')
  for i = 1, #entries, 2 do
    local name, seen_at, forget_at, info = entries[i], split_heartbeat(entries[i + 1])
    if not seen_at then
      note_broken('worker', name, 'it is no heartbeat')
    elseif is_present(seen_at, forget_at) then
      reply[#reply + 1] = name
      reply[#reply + 1] = text(seen_at)
      reply[#reply + 1] = info
    end
  end
  return reply
end
