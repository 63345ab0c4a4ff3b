-- Dead letters are bounded in number, bytes and age.

local function drop_dead_letter(key)
  local size = call('HSTRLEN', P .. 'dead_letters', key)
  call('ZREM', P .. 'dead_letter_times', key)
  if call('HDEL', P .. 'dead_letters', key) == 0 then return 0 end
  call('DECRBY', P .. 'dead_letter_bytes', size)
  return 1
end

-- Drop the oldest beyond a bound. A script blocks the server, so at most 500 at a time; the next call continues.
local function trim_dead_letters()
  for _ = 1, 500 do
    local oldest = call('ZRANGE', P .. 'dead_letter_times', 0, 0, 'WITHSCORES')
    if not oldest[1] then return end
    local number = call('ZCARD', P .. 'dead_letter_times')
    local bytes = valid_number(call('GET', P .. 'dead_letter_bytes')) or 0
    local over = number > SETTINGS.max_dead_letters or (bytes > SETTINGS.max_dead_letter_bytes and number > 1)
    if not over and tonumber(oldest[2]) > NOW - SETTINGS.max_dead_letter_age then return end
    drop_dead_letter(oldest[1])
  end
end
