-- On which variant of its capacity a queue launches; protocol/capacity_fallback.py has the same rules.

local function load_capacity(queue)
  local key = P .. 'capacity:' .. queue
  local stored = call('HMGET', key, 'variant', 'refusals', 'until', 'reason', 'reported')
  for i = 1, 3 do
    if stored[i] and not valid_number(stored[i]) then
      set_aside(key, 'it holds what is no number')
      stored = {}
    end
  end
  return { variant = tonumber(stored[1] or 1), refusals = tonumber(stored[2] or 0), until_at = tonumber(stored[3] or 0),
           reason = stored[4] or '', reported = stored[5] or '' }
end

-- The key expires `capacity_kept_seconds` after its time: then the queue begins on its first variant again.
local function store_capacity(queue, s, seconds)
  local key = P .. 'capacity:' .. queue
  redis.call('HSET', key, 'variant', s.variant, 'refusals', s.refusals, 'until', text(s.until_at),
             'reason', s.reason, 'reported', s.reported)
  redis.call('EXPIRE', key, math.ceil(seconds + SETTINGS.capacity_kept_seconds))
end

local function return_to_first(s, variants, max_refusals, seconds)
  if s.variant == 1 then return end
  s.until_at = math.min(s.until_at, NOW + seconds)
  if NOW >= s.until_at or s.variant > variants then
    s.variant, s.refusals, s.until_at, s.reason = 1, max_refusals - 1, 0, ''
  end
end

local function leave_variant(s, variants, seconds, event, reason)
  local left = s.variant
  s.variant, s.refusals = s.variant % variants + 1, 0
  s.until_at = s.variant == 1 and 0 or NOW + seconds
  s.reason = s.variant == 1 and '' or event .. ' on variant ' .. left .. ': ' .. reason
end

-- {variant, refusals, until, reason, reported}. The arguments after the queue are the fields of CapacityReport in its order.
function operations.report_capacity(queue, variants, max_refusals, seconds, event, variant, name, reason)
  variants, max_refusals, seconds = tonumber(variants), tonumber(max_refusals), tonumber(seconds)
  local s = load_capacity(queue)
  local before = s.variant .. ' ' .. s.refusals .. ' ' .. s.until_at .. ' ' .. s.reported
  return_to_first(s, variants, max_refusals, seconds)
  if tonumber(variant) == s.variant then
    if event == 'started' then
      s.refusals = 0
    elseif event ~= '' and name ~= s.reported then
      s.reported, s.refusals = name, s.refusals + 1
      if event == 'interrupted' or s.refusals >= max_refusals then leave_variant(s, variants, seconds, event, reason) end
    end
  end
  if before ~= s.variant .. ' ' .. s.refusals .. ' ' .. s.until_at .. ' ' .. s.reported then
    store_capacity(queue, s, seconds)
  end
  return { s.variant, s.refusals, text(s.until_at), s.reason, s.reported }
end
