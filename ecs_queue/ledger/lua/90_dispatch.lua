-- The clock of the ledger, and the call of the operation that ARGV names.

function operations.now() return string.format('%.6f', NOW) end

-- Whether the operation is one of these: text, since a table of them would be built anew for each run.
local function is_one_of(names) return string.find(names, ' ' .. ARGV[1] .. ' ', 1, true) ~= nil end

-- Operations that bring requests to their end continue when the server is full (maxmemory, noeviction): they take
-- little memory and free more. The server checks only the first write of a script, and only if it may need memory. DEL
-- needs none; this key is no record's, and every user of the ledger may write it. An operation that is not listed must
-- begin with a write that may need memory: any other would open a full server to the calls that run with it.
local ALLOWED_WHEN_FULL = ' launched call_ambiguous no_effect refused task_absent update_task stop adopt confirm reclaim'
  .. ' lease_due lease_expired reschedule_poll prune take_tokens record_throttle pause_queues resume_queues'
  .. ' heartbeat delete_dead_letters check_broken drop_broken settle update_runner_task close_silent'
  .. ' forget_runner drain_run put_back may_stop set_record_apart set_entry_apart release_entry report_capacity '
if is_one_of(ALLOWED_WHEN_FULL) then redis.call('DEL', key_of('')) end

-- Operations on the one record that their first argument names.
local RECORD_OPERATIONS = ' put put_and_claim claim reclaim launched call_ambiguous no_effect refused task_absent update_task'
  .. ' stop adopt confirm settle update_runner_task put_back '

-- WAIT and WAITAOF wait for what their own connection has written, and only that. An operation that finds its work done
-- writes nothing, but what it reports may be another connection's write that is not durable yet: so this connection
-- writes something of its own, and what is written later is durable later. DEL first, for a server that is full.
local function write_before_barrier()
  redis.call('DEL', key_of(''))
  redis.call('SET', key_of(''), '')
  redis.call('DEL', key_of(''))
end

-- Operations of workers; users of the server that only submit or look have no right to the clock.
local WORKER_OPERATIONS = ' put_and_claim claim reclaim launched call_ambiguous no_effect refused task_absent update_task'
  .. ' lease_due lease_due_retries lease_unclaimed lease_expired reschedule_poll poll_soon heartbeat settle'
  .. ' update_runner_task '
if is_one_of(WORKER_OPERATIONS) then
  local succeeded, err = pcall(follow_clock)
  if not succeeded then return { err = message_of(err) } end
end

local run = operations[ARGV[1]]
local BROKEN_REPLY = ARGV[1] == 'put_and_claim' and { { 'broken' }, { 'not_claimable' } } or { 'broken' }

-- The reply, or in its place the error: it is the reply to the call that met it only. An operation on one record that
-- cannot be used is answered with that.
local function run_isolated(...)
  local succeeded, reply = pcall(run, ...)
  if succeeded then return reply end
  if is_one_of(RECORD_OPERATIONS) and is_data_error(reply) then
    keep_apart((...), reply)
    return BROKEN_REPLY
  end
  if type(reply) ~= 'table' or not reply.err then return { err = message_of(reply) } end
  return reply
end

if not ARGUMENTS_PER_CALL then
  local reply = run_isolated(unpack(ARGV, FIRST_ARGUMENT))
  if BARRIER_FOLLOWS then write_before_barrier() end
  return reply
end
local replies = {}
for first = FIRST_ARGUMENT, #ARGV, ARGUMENTS_PER_CALL do
  replies[#replies + 1] = run_isolated(unpack(ARGV, first, first + ARGUMENTS_PER_CALL - 1))
end
if BARRIER_FOLLOWS then write_before_barrier() end
return replies
