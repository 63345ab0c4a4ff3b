-- Popping what is due, the shared token buckets, and the dispatch.

-- In a state of a newer version, whose workers know what to do. When none of them has looked for as long as results are
-- kept, there is none any more.
local function leave_unread(r, index)
  if r.unread_since == 0 then
    redis.call('HSET', key_of(r.id), 'unread_since', text(NOW))
  elseif NOW - r.unread_since >= RETENTION then
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
      leave_unread(r, index)
    elseif r and shelf_of(r) == index then
      if r.unread_since > 0 then redis.call('HDEL', key_of(id), 'unread_since') end
      redis.call('ZADD', index, text(NOW + LEASE), id)
      found[#found + 1] = shown(r, with_request)
    else
      redis.call('ZREM', index, id)
    end
  end
  return found
end

function operations.due(limit) return pop(P .. 'due', limit) end

function operations.due_retries(queue, limit) return pop(P .. 'retry:' .. queue, limit, true) end

function operations.due_silent(queue, limit) return pop(P .. 'silent:' .. queue, limit, true) end

function operations.due_expired(limit)
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
function operations.rest(...)
  local looks = { ... }
  for i = 1, #looks, 2 do
    local score = redis.call('ZSCORE', P .. 'due', looks[i])
    if score and tonumber(score) > NOW then
      redis.call('ZADD', P .. 'due', text(NOW + tonumber(looks[i + 1])), looks[i])
    end
  end
  return { 'ok' }
end

function operations.undelivered(owner, limit)
  local found, index = {}, P .. 'undelivered:' .. owner
  for _, id in ipairs(redis.call('ZRANGE', index, 0, limit - 1)) do
    local r = load(id)
    if r and r.undelivered == 1 and r.owner == owner then
      found[#found + 1] = shown(r)
    else
      redis.call('ZREM', index, id)
    end
  end
  return found
end

function operations.prune(limit)
  local ids = redis.call('ZRANGEBYSCORE', P .. 'finished', '-inf', text(NOW), 'LIMIT', 0, limit)
  if #ids > 0 then redis.call('ZREM', P .. 'finished', unpack(ids)) end
  trim_letters()
  return #ids
end

-- core/bucket.py
local DECREASE, RECOVERY, INTERVAL = 0.75, 0.02, 2

local function bucket_of(name, tokens)
  local held = redis.call('HMGET', P .. 'bucket:' .. name, 'tokens', 'at', 'share', 'lowered_at')
  local b = { tokens = tonumber(held[1] or tokens), at = tonumber(held[2] or NOW),
              share = tonumber(held[3] or 1), lowered_at = tonumber(held[4] or 0) }
  b.share_now = math.min(1, b.share + RECOVERY * math.max(0, NOW - b.lowered_at))
  return b
end

-- Kept until it would be full and at its whole rate again: then it is as good as new.
local function keep_bucket(name, b, seconds)
  local key = P .. 'bucket:' .. name
  redis.call('HSET', key, 'tokens', string.format('%.6f', b.tokens), 'at', string.format('%.6f', b.at),
             'share', string.format('%.6f', b.share), 'lowered_at', string.format('%.6f', b.lowered_at))
  local keep = math.ceil(seconds + 1 / RECOVERY) + 60
  if redis.call('TTL', key) < keep then redis.call('EXPIRE', key, keep) end
end

-- {granted, seconds until the next token}. reserve: tokens that stay; a negative one may be owed.
function operations.take(name, want, rate, burst, reserve)
  want, rate, burst, reserve = tonumber(want), tonumber(rate), tonumber(burst), tonumber(reserve)
  local b = bucket_of(name, burst)
  local actual = rate * b.share_now
  b.tokens = math.min(burst, b.tokens + math.max(0, NOW - b.at) * actual)
  local granted = math.max(0, math.min(want, math.floor(b.tokens - reserve + 1e-6)))
  b.tokens = b.tokens - granted
  b.at = math.max(b.at, NOW)
  keep_bucket(name, b, 2 * burst / rate)
  return { granted, string.format('%.6f', math.max(0, (1 + reserve - b.tokens) / actual)) }
end

-- The share of the rate that is left; 0: this throttle lowered nothing.
function operations.throttled(name)
  local b = bucket_of(name, 0)
  if b.lowered_at > 0 and NOW - b.lowered_at < INTERVAL then return '0' end
  b.share = b.share_now * DECREASE
  b.lowered_at = NOW
  b.tokens = math.min(b.tokens, 0)
  b.at = math.max(b.at, NOW)
  keep_bucket(name, b, 0)
  return string.format('%.6f', b.share)
end

function operations.pause(...)
  for _, queue in ipairs({ ... }) do redis.call('HSETNX', P .. 'paused', queue, text(NOW)) end
  return { 'ok' }
end

function operations.resume(...)
  redis.call('HDEL', P .. 'paused', ...)
  return { 'ok' }
end

function operations.hold(nonce)
  local key = P .. 'hand:' .. nonce
  local held = redis.call('INCR', key)
  redis.call('PEXPIRE', key, milliseconds(ACCEPT))
  return held
end

function operations.let_go(nonce) return redis.call('DEL', P .. 'hand:' .. nonce) end

function operations.heartbeat(name, ttl, info)
  redis.call('HSET', P .. 'workers', name, text(NOW) .. ' ' .. text(NOW + tonumber(ttl)) .. ' ' .. info)
  return { 'ok' }
end

-- {seen at, JSON, seen at, JSON, ...}
function operations.workers()
  local found, said = {}, redis.call('HGETALL', P .. 'workers')
  for i = 1, #said, 2 do
    local seen_at, gone_at, info = string.match(said[i + 1], '^(%S+) (%S+) (.*)$')
    if gone_at and tonumber(gone_at) > NOW then
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
local WHEN_FULL = {
  launched = 1, unsure = 1, no_effect = 1, refused = 1, none = 1, outcome = 1, stop = 1, adopt = 1, confirm = 1,
  reclaim = 1, due = 1, due_expired = 1, rest = 1, prune = 1, take = 1, throttled = 1,
  pause = 1, resume = 1, heartbeat = 1, discard = 1,
}
if WHEN_FULL[ARGV[1]] then redis.call('DEL', key_of('')) end

local run = operations[ARGV[1]]
if not EACH then return run(unpack(ARGV, ARG + 1)) end
local answers = {}
for first = ARG + 1, #ARGV, EACH do
  -- An error is the answer to the call that has met it, and no other's.
  local done, answer = pcall(run, unpack(ARGV, first, first + EACH - 1))
  if not done and type(answer) ~= 'table' then answer = { err = tostring(answer) } end
  answers[#answers + 1] = answer
end
return answers
