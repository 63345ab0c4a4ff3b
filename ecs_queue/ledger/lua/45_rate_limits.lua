-- Token buckets shared by all workers; protocol/token_bucket.py has the same rules.

local function load_bucket(name, tokens)
  local stored = call('HMGET', P .. 'bucket:' .. name, 'tokens', 'at', 'share', 'lowered_at')
  for i = 1, #stored do
    if stored[i] and not valid_number(stored[i]) then
      set_aside(P .. 'bucket:' .. name, 'it holds what is no number')
      stored = {}
    end
  end
  -- Times ahead of the clock are from before it went back.
  local b = { tokens = tonumber(stored[1] or tokens), at = math.min(NOW, tonumber(stored[2] or NOW)),
              share = tonumber(stored[3] or 1), lowered_at = math.min(NOW, tonumber(stored[4] or 0)) }
  b.share_now = math.min(1, b.share + SETTINGS.recovery_per_second * math.max(0, NOW - b.lowered_at))
  return b
end

-- The key expires once the bucket would be full and back at its whole rate: a new one is the same.
local function store_bucket(name, b, seconds)
  local key = P .. 'bucket:' .. name
  redis.call('HSET', key, 'tokens', string.format('%.6f', b.tokens), 'at', string.format('%.6f', b.at),
             'share', string.format('%.6f', b.share), 'lowered_at', string.format('%.6f', b.lowered_at))
  local keep = math.ceil(seconds + 1 / SETTINGS.recovery_per_second) + 60
  if redis.call('TTL', key) < keep then redis.call('EXPIRE', key, keep) end
end

-- {granted, seconds until the next token}. reserve: tokens that stay; a negative one is a debt that may be run up.
function operations.take_tokens(name, want, rate, burst, reserve)
  want, rate, burst, reserve = tonumber(want), tonumber(rate), tonumber(burst), tonumber(reserve)
  local b = load_bucket(name, burst)
  local actual = rate * b.share_now
  b.tokens = math.min(burst, b.tokens + math.max(0, NOW - b.at) * actual)
  local granted = math.max(0, math.min(want, math.floor(b.tokens - reserve + SETTINGS.token_tolerance)))
  b.tokens = b.tokens - granted
  b.at = NOW
  store_bucket(name, b, 2 * burst / rate)
  return { granted, string.format('%.6f', math.max(0, (1 + reserve - b.tokens) / actual)) }
end

-- The share of the rate that is left; 0 when this throttle lowered nothing.
function operations.record_throttle(name)
  local b = load_bucket(name, 0)
  if b.lowered_at > 0 and NOW - b.lowered_at < SETTINGS.decrease_interval then return '0' end
  b.share = b.share_now * SETTINGS.decrease_factor
  b.lowered_at = NOW
  b.tokens = math.min(b.tokens, 0)
  b.at = NOW
  store_bucket(name, b, 0)
  return string.format('%.6f', b.share)
end
