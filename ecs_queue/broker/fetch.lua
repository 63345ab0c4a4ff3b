-- Fetches messages: takes them off their lists and stores them among the unacknowledged ones. kombu does that with BRPOP,
-- and with ZADD and HSET in a second step; here it is one step for several messages, so that a process cannot die between
-- the two. The same run acknowledges other messages as kombu does.
--
-- ARGV: 1 prefix of every key, 2 separator between a queue's name and a priority, 3 the priorities, "0 1 2", in the order
-- in which they are served, 4 kombu's hash of unacknowledged messages, 5 its index, 6 now, by the consumer's clock as kombu
-- wants it, 7 number of delivery tags to acknowledge; then these tags, then pairs of a queue and a maximum number. Returns
-- {queue, element, delivery tag, ...}, each queue in the order of BRPOP.

local P, SEPARATOR, UNACKED, INDEX, NOW = ARGV[1], ARGV[2], ARGV[1] .. ARGV[4], ARGV[1] .. ARGV[5], ARGV[6]
local FIRST_PAIR = 8 + tonumber(ARGV[7])

-- The tag of a message that kombu can requeue. Any other element is left to BRPOP, with all elements behind it.
local function read_delivery_tag(element)
  local readable, message = pcall(cjson.decode, element)
  if not readable or type(message) ~= 'table' or type(message.body) ~= 'string' then return end
  local properties = message.properties
  if type(message.headers) ~= 'table' or type(properties) ~= 'table' then return end
  if type(properties.delivery_info) ~= 'table' or type(properties.delivery_tag) ~= 'string' then return end
  return properties.delivery_tag
end

local fetched = {}

-- Fetches at most `limit` messages of one list. Returns their number, and whether more can be fetched.
local function fetch(queue, list, limit)
  local elements = redis.call('LRANGE', list, -limit, -1)
  local count = 0
  for i = #elements, 1, -1 do
    local element = elements[i]
    local tag = read_delivery_tag(element)
    if not tag then break end
    -- This comes first: a full server refuses the first write of a script, which then has no effect.
    redis.call('ZADD', INDEX, NOW, tag)
    redis.call('HSET', UNACKED, tag, '[' .. element .. ',"",' .. cjson.encode(queue) .. ']')
    fetched[#fetched + 1], fetched[#fetched + 2], fetched[#fetched + 3] = queue, element, tag
    count = count + 1
  end
  if count > 0 then redis.call('LTRIM', list, 0, -count - 1) end
  return count, count == #elements
end

for i = FIRST_PAIR, #ARGV, 2 do
  local queue, left = ARGV[i], tonumber(ARGV[i + 1])
  for priority in string.gmatch(ARGV[3], '%S+') do
    local list = P .. queue
    if priority ~= '0' then list = list .. SEPARATOR .. priority end
    local count, may_continue = fetch(queue, list, left)
    left = left - count
    if left <= 0 or not may_continue then break end
  end
end
if FIRST_PAIR > 8 then
  redis.call('ZREM', INDEX, unpack(ARGV, 8, FIRST_PAIR - 1))
  redis.call('HDEL', UNACKED, unpack(ARGV, 8, FIRST_PAIR - 1))
end
return fetched
