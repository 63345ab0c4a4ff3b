-- Moves a consumer's own messages back to their lists; one that another process has acknowledged or moved stays as it is.
--
-- KEYS: 1 hash of unacknowledged messages, 2 its index (take.lua), then the lists and wake-up keys.
-- ARGV: for each message its tag, the numbers of its list's and its wake-up key, LPUSH (the end of its queue) or RPUSH
-- (the head), and the element.
-- Returns the number of messages that were moved.

local moved = 0
for i = 1, #ARGV, 5 do
  local tag, list, wake, push, element = unpack(ARGV, i, i + 4)
  if redis.call('HDEL', KEYS[1], tag) == 1 then
    redis.call('ZREM', KEYS[2], tag)
    redis.call(push, KEYS[tonumber(list)], element)
    redis.call('ZADD', KEYS[tonumber(wake)], 0, '1')
    moved = moved + 1
  end
end
return moved
