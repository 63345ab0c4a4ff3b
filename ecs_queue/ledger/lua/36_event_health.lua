-- What is known about the sources of ECS events.

function operations.record_event_fact(source, fact, at)
  local field = source .. '|' .. fact
  local latest = valid_number(call('HGET', P .. 'event_health', field))
  if not latest or latest < tonumber(at) then call('HSET', P .. 'event_health', field, at) end
  return { 'ok' }
end
