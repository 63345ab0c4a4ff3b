-- What is known of the sources of ECS's events, and waits that were put off because they were trusted.

function operations.record_event_fact(source, fact, at)
  local field = source .. '|' .. fact
  local known = redis.call('HGET', P .. 'event_health', field)
  if not known or tonumber(known) < tonumber(at) then redis.call('HSET', P .. 'event_health', field, at) end
  return { 'ok' }
end

-- The number of LAUNCHED records that were due later, and now are due within so many seconds, spread.
function operations.poll_soon(within, limit)
  within = tonumber(within)
  local found = {}
  local after = '(' .. text(NOW + within)
  for _, id in ipairs(redis.call('ZREVRANGEBYSCORE', P .. 'due', '+inf', after, 'LIMIT', 0, tonumber(limit))) do
    if redis.call('HGET', key_of(id), 'state') == 'LAUNCHED' then found[#found + 1] = id end
  end
  for number, id in ipairs(found) do
    redis.call('ZADD', P .. 'due', text(NOW + within * number / #found), id)
  end
  return #found
end
