-- Acknowledges messages, and takes others: in one step it moves them from their lists to the unacknowledged ones, so that
-- no process can die between the two.
--
-- KEYS: 1 hash of unacknowledged messages, delivery tag -> [message, exchange, queue], as kombu has it; 2 its index, tag ->
-- time of the take; 3 hash of elements that are no messages; then for each queue its lists in the order in which they are
-- served, and its wake-up key.
-- ARGV: 1 number of lists of a queue, 2 maximum number of messages, 3 maximum size of an element in bytes, 4 what the
-- tags of elements without a tag end with, 5 number of tags to acknowledge, then these tags; then for each queue its name
-- and its own maximum number.
-- Returns {taken, unreadable}: {number of the list's key, tag, element, ...} and {number of the list's key, tag, first bytes
-- of the element, its size, ...}.

local LISTS, left, MAX_BYTES, TAG_END = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local FIRST_QUEUE = 6 + tonumber(ARGV[5])
local TIME = redis.call('TIME')
local taken, unreadable = {}, {}

-- The tag of a message that can be returned to its list; nil of any other element.
local function read_tag(element)
  local readable, message = pcall(cjson.decode, element)
  if not readable or type(message) ~= 'table' then return end
  local properties = message.properties
  if type(properties) ~= 'table' or type(properties.delivery_tag) ~= 'string' then return end
  return properties.delivery_tag
end

-- The time of the next take. Later ones of this run are later by a microsecond each, so that they are returned in order.
local function now()
  return string.format('%.6f', TIME[1] + (TIME[2] + #taken / 3) / 1000000)
end

local function append(list, ...)
  for _, value in ipairs({...}) do list[#list + 1] = value end
end

-- Takes at most `limit` elements of one list; returns their number.
local function take(number, queue, limit)
  local elements = redis.call('LRANGE', KEYS[number], -limit, -1)
  if #elements == 0 then return 0 end
  local times, messages, broken, queue_json = {}, {}, {}, cjson.encode(queue)
  for i = #elements, 1, -1 do
    local element = elements[i]
    local tag = #element <= MAX_BYTES and read_tag(element)
    if tag then
      append(times, now(), tag)
      append(messages, tag, '[' .. element .. ',"",' .. queue_json .. ']')
      append(taken, number, tag, element)
    else
      tag = string.format('%s %s %d %s', now(), queue, #unreadable, TAG_END)
      append(broken, tag, string.sub(element, 1, MAX_BYTES))
      append(unreadable, number, tag, string.sub(element, 1, MAX_BYTES), #element)
    end
  end
  -- A full server refuses a script's write if nothing was acknowledged before it; then the script has no effect.
  if #times > 0 then
    redis.call('ZADD', KEYS[2], unpack(times))
    redis.call('HSET', KEYS[1], unpack(messages))
  end
  if #broken > 0 then redis.call('HSET', KEYS[3], unpack(broken)) end
  redis.call('LTRIM', KEYS[number], 0, -#elements - 1)
  return #elements
end

if FIRST_QUEUE > 6 then
  redis.call('ZREM', KEYS[2], unpack(ARGV, 6, FIRST_QUEUE - 1))
  redis.call('HDEL', KEYS[1], unpack(ARGV, 6, FIRST_QUEUE - 1))
end
local first = 4
for i = FIRST_QUEUE, #ARGV, 2 do
  local limit = math.min(left, tonumber(ARGV[i + 1]))
  left = left - limit
  for number = first, first + LISTS - 1 do
    if limit > 0 then limit = limit - take(number, ARGV[i], limit) end
  end
  left = left + limit
  -- What is left wakes another consumer.
  if limit == 0 and redis.call('EXISTS', unpack(KEYS, first, first + LISTS - 1)) > 0 then
    redis.call('ZADD', KEYS[first + LISTS], 0, '1')
  end
  first = first + LISTS + 1
end
return {taken, unreadable}
