-- Deliveries of request bodies that no worker has completed.

local function keys_of(nonce) return P .. 'delivery:' .. nonce, P .. 'last_delivery:' .. nonce end

-- delivery: random. The client library may repeat the call, which counts once.
function operations.begin_delivery(nonce, delivery)
  local count_key, last_key = keys_of(nonce)
  if call('GET', last_key) == delivery then return valid_number(call('GET', count_key)) or 1 end
  local count = call('INCR', count_key)
  redis.call('PEXPIRE', count_key, milliseconds(SETTINGS.accept_seconds))
  redis.call('SET', last_key, delivery, 'PX', milliseconds(SETTINGS.accept_seconds))
  return count
end

function operations.end_delivery(nonce)
  local count_key, last_key = keys_of(nonce)
  redis.call('DEL', last_key)
  return redis.call('DEL', count_key)
end
