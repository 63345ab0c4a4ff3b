-- Popping what is due, the shared token buckets, and the dispatch.

-- In a state of a newer version, whose workers know what to do. When none of them has looked for as long as results are
-- kept, there is none any more.
local function track_unknown_state(r, index)
  if r.unknown_state_since == 0 then
    redis.call('HSET', key_of(r.id), 'unknown_state_since', text(NOW))
  elseif NOW - r.unknown_state_since >= RETENTION then
    local state = r.state
    finish(r, 'UNKNOWN', r.attempt, NOW, 'it is in the state ' .. state .. ', which no worker has known for '
      .. string.format('%.0f', RETENTION) .. ' s: were the workers set back to an older version? Look for it by hand')
    redis.call('ZREM', index, r.id)
    store(r)
  end
end

local function pop(index, limit, with_request)
  local found = {}
  local ids = redis.call('ZRANGEBYSCORE', index, '-inf', text(NOW), 'LIMIT', 0, limit)
  for _, id in ipairs(ids) do
    local r = load(id)
    if r and not STATES[r.state] then
      redis.call('ZADD', index, text(NOW + LEASE), id)
      track_unknown_state(r, index)
    elseif r and index_of(r) == index then
      if r.unknown_state_since > 0 then redis.call('HDEL', key_of(id), 'unknown_state_since') end
      redis.call('ZADD', index, text(NOW + LEASE), id)
      found[#found + 1] = reply_record(r, with_request)
    else
      redis.call('ZREM', index, id)
    end
  end
  return found
end

function operations.lease_due(limit) return pop(P .. 'due', limit) end

function operations.lease_due_retries(queue, limit) return pop(P .. 'retry:' .. queue, limit, true) end

function operations.lease_unclaimed(queue, limit) return pop(P .. 'unclaimed:' .. queue, limit, true) end

function operations.lease_expired(limit)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'expiry', '-inf', text(NOW), 'LIMIT', 0, limit)
  local found = {}
  for _, id in ipairs(ids) do
    if redis.call('HGET', key_of(id), 'state') == 'QUEUED' then
      redis.call('ZADD', P .. 'expiry', text(NOW + LEASE), id)
      found[#found + 1] = id
    else
      redis.call('ZREM', P .. 'expiry', id)
    end
  end
  return found
end

-- id, seconds, id, seconds, ...: only where the record still stands in `due`, and nobody wants it looked at already
function operations.reschedule_poll(...)
  local waits = { ... }
  for i = 1, #waits, 2 do
    local score = redis.call('ZSCORE', P .. 'due', waits[i])
    if score and tonumber(score) > NOW then
      redis.call('ZADD', P .. 'due', text(NOW + tonumber(waits[i + 1])), waits[i])
    end
  end
  return { 'ok' }
end

function operations.list_undelivered(owner, limit)
  local found, index = {}, P .. 'undelivered:' .. owner
  for _, id in ipairs(redis.call('ZRANGE', index, 0, limit - 1)) do
    local r = load(id)
    if r and r.undelivered == 1 and r.owner == owner then
      found[#found + 1] = reply_record(r)
    else
      redis.call('ZREM', index, id)
    end
  end
  return found
end

function operations.prune(limit)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'finished', '-inf', text(NOW), 'LIMIT', 0, limit)
  if #ids > 0 then redis.call('ZREM', P .. 'finished', unpack(ids)) end
  trim_dead_letters()
  return #ids
end

-- protocol/token_bucket.py
local DECREASE_FACTOR, RECOVERY_PER_SECOND, DECREASE_INTERVAL = 0.75, 0.02, 2

local function load_bucket(name, tokens)
  local held = redis.call('HMGET', P .. 'bucket:' .. name, 'tokens', 'at', 'share', 'lowered_at')
  local b = { tokens = tonumber(held[1] or tokens), at = tonumber(held[2] or NOW),
              share = tonumber(held[3] or 1), lowered_at = tonumber(held[4] or 0) }
  b.share_now = math.min(1, b.share + RECOVERY_PER_SECOND * math.max(0, NOW - b.lowered_at))
  return b
end

-- Kept until it would be full and at its whole rate again: then it is as good as new.
local function store_bucket(name, b, seconds)
  local key = P .. 'bucket:' .. name
  redis.call('HSET', key, 'tokens', string.format('%.6f', b.tokens), 'at', string.format('%.6f', b.at),
             'share', string.format('%.6f', b.share), 'lowered_at', string.format('%.6f', b.lowered_at))
  local keep = math.ceil(seconds + 1 / RECOVERY_PER_SECOND) + 60
  if redis.call('TTL', key) < keep then redis.call('EXPIRE', key, keep) end
end

-- {granted, seconds until the next token}. reserve: tokens that stay; a negative one may be owed.
function operations.take_tokens(name, want, rate, burst, reserve)
  want, rate, burst, reserve = tonumber(want), tonumber(rate), tonumber(burst), tonumber(reserve)
  local b = load_bucket(name, burst)
  local actual = rate * b.share_now
  b.tokens = math.min(burst, b.tokens + math.max(0, NOW - b.at) * actual)
  local granted = math.max(0, math.min(want, math.floor(b.tokens - reserve + 1e-6)))
  b.tokens = b.tokens - granted
  b.at = math.max(b.at, NOW)
  store_bucket(name, b, 2 * burst / rate)
  return { granted, string.format('%.6f', math.max(0, (1 + reserve - b.tokens) / actual)) }
end

-- The share of the rate that is left; 0: this throttle lowered nothing.
function operations.record_throttle(name)
  local b = load_bucket(name, 0)
  if b.lowered_at > 0 and NOW - b.lowered_at < DECREASE_INTERVAL then return '0' end
  b.share = b.share_now * DECREASE_FACTOR
  b.lowered_at = NOW
  b.tokens = math.min(b.tokens, 0)
  b.at = math.max(b.at, NOW)
  store_bucket(name, b, 0)
  return string.format('%.6f', b.share)
end

function operations.pause_queues(...)
  for _, queue in ipairs({ ... }) do redis.call('HSETNX', P .. 'paused', queue, text(NOW)) end
  return { 'ok' }
end

function operations.resume_queues(...)
  redis.call('HDEL', P .. 'paused', ...)
  return { 'ok' }
end

function operations.begin_delivery(nonce)
  local key = P .. 'delivery:' .. nonce
  local held = redis.call('INCR', key)
  redis.call('PEXPIRE', key, milliseconds(ACCEPT))
  return held
end

function operations.end_delivery(nonce) return redis.call('DEL', P .. 'delivery:' .. nonce) end

function operations.heartbeat(name, ttl, info)
  redis.call('HSET', P .. 'workers', name, text(NOW) .. ' ' .. text(NOW + tonumber(ttl)) .. ' ' .. info)
  return { 'ok' }
end

-- {seen at, JSON, seen at, JSON, ...}
function operations.list_workers()
  local found, said = {}, redis.call('HGETALL', P .. 'workers')
  for i = 1, #said, 2 do
    local seen_at, forget_at, info = string.match(said[i + 1], '^(%S+) (%S+) (.*)$')
    if forget_at and tonumber(forget_at) > NOW then
      found[#found + 1] = seen_at
      found[#found + 1] = info
    else
      redis.call('HDEL', P .. 'workers', said[i])
    end
  end
  return found
end

function operations.now() return string.format('%.6f', NOW) end

-- What brings requests to their end goes on when the server is full (maxmemory, noeviction): it takes little and frees
-- more. The server refuses a script its first write only, and only one that may need memory; this one cannot. The key is
-- no record's, and one that every user of the ledger may write. What is not listed must begin with a write that may need
-- memory: any other would open a full server to the calls that run with it.
local ALLOWED_WHEN_FULL = {
  launched = 1, call_ambiguous = 1, no_effect = 1, refused = 1, task_absent = 1, update_task = 1, stop = 1, adopt = 1, confirm = 1,
  reclaim = 1, lease_due = 1, lease_expired = 1, reschedule_poll = 1, prune = 1, take_tokens = 1, record_throttle = 1,
  pause_queues = 1, resume_queues = 1, heartbeat = 1, delete_dead_letters = 1,
}
if ALLOWED_WHEN_FULL[ARGV[1]] then redis.call('DEL', key_of('')) end

local run = operations[ARGV[1]]
if not ARGUMENTS_PER_CALL then return run(unpack(ARGV, ARG + 1)) end
local answers = {}
for first = ARG + 1, #ARGV, ARGUMENTS_PER_CALL do
  -- An error is the answer to the call that has met it, and no other's.
  local done, answer = pcall(run, unpack(ARGV, first, first + ARGUMENTS_PER_CALL - 1))
  if not done and type(answer) ~= 'table' then answer = { err = tostring(answer) } end
  answers[#answers + 1] = answer
end
return answers
