-- The heartbeats of workers as they are stored.

-- When it was seen, when it is forgotten, its JSON; nothing for an entry that is no heartbeat.
local function split_heartbeat(entry)
  local seen_at, forget_at, info = string.match(entry, '^(%S+) (%S+) (.*)$')
  seen_at, forget_at = valid_number(seen_at), valid_number(forget_at)
  if seen_at and forget_at then return seen_at, forget_at, info end
end

-- A heartbeat from before the clock went back counts no more: a live worker sends the next one in a moment.
local function is_present(seen_at, forget_at) return forget_at > NOW and seen_at <= NOW + SETTINGS.max_clock_jitter end
