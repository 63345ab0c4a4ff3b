-- Moves unacknowledged messages of dead consumers to the heads of their lists, behind those that an earlier run has put
-- there: what was taken first stays first. One that was acknowledged, moved or taken again stays as it is.
--
-- KEYS: 1 hash of unacknowledged messages, 2 its index (take.lua), then the lists and wake-up keys.
-- ARGV: 1 a time: only messages that were taken no later; then for each list the numbers of its key and of its wake-up
-- key, the last element that an earlier run put there or "", the maximum number of elements up to that one (behind more
-- nothing is put: its messages stay unacknowledged), the number of messages, and their tags and elements, oldest first.
-- Returns for each list 1, or 0 if nothing was put there.

-- How far the earlier element is looked for. Other consumers also return messages to the head.
local MAX_LOOK = 10000

-- The elements at the head that stay there; nil when they are too many.
local function read_head(list, last, most)
  local position = last ~= '' and redis.call('LPOS', list, last, 'RANK', -1, 'MAXLEN', MAX_LOOK)
  if not position then return {} end
  local count = redis.call('LLEN', list) - position
  return count <= most and redis.call('LRANGE', list, -count, -1) or nil
end

local function is_due(tag)
  return tonumber(redis.call('ZSCORE', KEYS[2], tag) or 'inf') <= tonumber(ARGV[1])
end

local results, i = {}, 2
while i <= #ARGV do
  local list, wake, first, last = KEYS[tonumber(ARGV[i])], KEYS[tonumber(ARGV[i + 1])], i + 5, i + 3 + 2 * ARGV[i + 4]
  local head = read_head(list, ARGV[i + 2], tonumber(ARGV[i + 3]))
  local elements = {}
  for j = last, head and first or last + 1, -2 do
    if is_due(ARGV[j]) and redis.call('HDEL', KEYS[1], ARGV[j]) == 1 then
      redis.call('ZREM', KEYS[2], ARGV[j])
      elements[#elements + 1] = ARGV[j + 1]
    end
  end
  if #elements > 0 then
    if #head > 0 then redis.call('LTRIM', list, 0, -#head - 1) end
    redis.call('RPUSH', list, unpack(elements))
    if #head > 0 then redis.call('RPUSH', list, unpack(head)) end
    redis.call('ZADD', wake, 0, '1')
  end
  results[#results + 1] = head and 1 or 0
  i = last + 2
end
return results
