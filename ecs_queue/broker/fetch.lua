-- Takes messages off their lists and notes them among the unacknowledged: what kombu does with BRPOP, and with ZADD and
-- HSET in a second step, in one, and for several messages. Nobody can die between the two. In the same go it acknowledges
-- others, as kombu does.
--
-- ARGV: 1 prefix of every key, 2 what separates a queue's name from a priority, 3 the priorities, "0 1 2", the first one
-- served first, 4 kombu's hash of what is not acknowledged, 5 its index, 6 now, by the consumer's clock as kombu wants it,
-- 7 how many delivery tags to acknowledge; then these, then pairs: a queue, and how many of it. Answers {queue, element,
-- delivery tag, ...}, each queue in the order of BRPOP.

local P, SEPARATOR, UNACKED, INDEX, NOW = ARGV[1], ARGV[2], ARGV[1] .. ARGV[4], ARGV[1] .. ARGV[5], ARGV[6]
local FIRST = 8 + tonumber(ARGV[7]) -- of the pairs

-- The tag of what kombu can restore without further ado. Anything else is left to BRPOP, with all that comes behind it.
local function read_delivery_tag(element)
  local readable, message = pcall(cjson.decode, element)
  if not readable or type(message) ~= 'table' or type(message.body) ~= 'string' then return end
  local properties = message.properties
  if type(message.headers) ~= 'table' or type(properties) ~= 'table' then return end
  if type(properties.delivery_info) ~= 'table' or type(properties.delivery_tag) ~= 'string' then return end
  return properties.delivery_tag
end

local fetched = {}

-- How many of at most `most` were fetched off one list; and whether there may be more that can be fetched.
local function take(queue, list, most)
  local elements = redis.call('LRANGE', list, -most, -1)
  local number = 0
  for i = #elements, 1, -1 do
    local element = elements[i]
    local tag = read_delivery_tag(element)
    if not tag then break end
    -- Noted first: a server that is full refuses the first write of a script, and nothing has happened.
    redis.call('ZADD', INDEX, NOW, tag)
    redis.call('HSET', UNACKED, tag, '[' .. element .. ',"",' .. cjson.encode(queue) .. ']')
    fetched[#fetched + 1], fetched[#fetched + 2], fetched[#fetched + 3] = queue, element, tag
    number = number + 1
  end
  if number > 0 then redis.call('LTRIM', list, 0, -number - 1) end
  return number, number == #elements
end

for i = FIRST, #ARGV, 2 do
  local queue, left = ARGV[i], tonumber(ARGV[i + 1])
  for priority in string.gmatch(ARGV[3], '%S+') do
    local list = P .. queue
    if priority ~= '0' then list = list .. SEPARATOR .. priority end
    local number, may_continue = take(queue, list, left)
    left = left - number
    if left <= 0 or not may_continue then break end
  end
end
if FIRST > 8 then
  redis.call('ZREM', INDEX, unpack(ARGV, 8, FIRST - 1))
  redis.call('HDEL', UNACKED, unpack(ARGV, 8, FIRST - 1))
end
return fetched
