-- Pausing of queues.

function operations.pause_queues(...)
  for _, queue in ipairs({ ... }) do call('HSETNX', P .. 'paused', queue, text(NOW)) end
  return { 'ok' }
end

function operations.resume_queues(...)
  call('HDEL', P .. 'paused', ...)
  return { 'ok' }
end
