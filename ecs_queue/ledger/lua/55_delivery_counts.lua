-- Deliveries of request bodies that no worker has completed.

function operations.begin_delivery(nonce)
  local key = P .. 'delivery:' .. nonce
  local count = redis.call('INCR', key)
  redis.call('PEXPIRE', key, milliseconds(SETTINGS.accept_seconds))
  return count
end

function operations.end_delivery(nonce) return redis.call('DEL', P .. 'delivery:' .. nonce) end
