-- Pausing of queues.

function operations.pause_queues(...)
  for _, queue in ipairs({ ... }) do redis.call('HSETNX', P .. 'paused', queue, text(NOW)) end
  return { 'ok' }
end

function operations.resume_queues(...)
  redis.call('HDEL', P .. 'paused', ...)
  return { 'ok' }
end
