-- The clock of the ledger, and the call of the operation that ARGV names.

function operations.now() return string.format('%.6f', NOW) end

-- Operations that bring requests to their end continue when the server is full (maxmemory, noeviction): they take
-- little memory and free more. The server checks only the first write of a script, and only if it may need memory. DEL
-- needs none; this key is no record's, and every user of the ledger may write it. An operation that is not listed must
-- begin with a write that may need memory: any other would open a full server to the calls that run with it.
local ALLOWED_WHEN_FULL = {
  launched = 1, call_ambiguous = 1, no_effect = 1, refused = 1, task_absent = 1, update_task = 1, stop = 1, adopt = 1,
  confirm = 1, reclaim = 1, lease_due = 1, lease_expired = 1, reschedule_poll = 1, prune = 1, take_tokens = 1,
  record_throttle = 1, pause_queues = 1, resume_queues = 1, heartbeat = 1, delete_dead_letters = 1,
}
if ALLOWED_WHEN_FULL[ARGV[1]] then redis.call('DEL', key_of('')) end

-- WAIT and WAITAOF wait for what their own connection has written, and only that. An operation that finds its work done
-- writes nothing, but what it reports may be another connection's write that is not durable yet: so this connection
-- writes something of its own, and what is written later is durable later. DEL first, for a server that is full.
local function write_before_barrier()
  redis.call('DEL', key_of(''))
  redis.call('SET', key_of(''), '')
  redis.call('DEL', key_of(''))
end

local run = operations[ARGV[1]]
if not ARGUMENTS_PER_CALL then
  local reply = run(unpack(ARGV, FIRST_ARGUMENT))
  if BARRIER_FOLLOWS then write_before_barrier() end
  return reply
end
local replies = {}
for first = FIRST_ARGUMENT, #ARGV, ARGUMENTS_PER_CALL do
  -- An error is the reply to the call that met it only.
  local succeeded, reply = pcall(run, unpack(ARGV, first, first + ARGUMENTS_PER_CALL - 1))
  if not succeeded and type(reply) ~= 'table' then reply = { err = tostring(reply) } end
  replies[#replies + 1] = reply
end
if BARRIER_FOLLOWS then write_before_barrier() end
return replies
