-- Appends one batch to the journal and makes room. Every key of a journal, P = "<namespace>:j:":
--
--   P s         stream  one element per batch: w = worker, n = number of events, z = their JSON, deflated, i = the ids of
--                       their requests, separated by spaces
--   P sizes     list    "<element> <bytes>" of each element of P s, oldest first
--   P bytes     string  the sum of these bytes
--   P r:<id>    list    the elements with events of a request, oldest first: one request is found without a scan
--   P w:<token> string  the number of a writer's last batch: a batch that is sent again is not appended again
--
-- ARGV: 1 P, 2 maximum bytes, 3 retention in seconds, 4 writer's token, 5 number of the batch, 6 worker, 7 number of
-- events, 8 body, 9 ids. Returns the server's time.

local P, MAX_BYTES, RETENTION = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local WRITER, NUMBER = P .. 'w:' .. ARGV[4], tonumber(ARGV[5])
-- About the bytes that an element and an index entry take besides their content.
local ENTRY_OVERHEAD, ID_OVERHEAD, MAX_EVICTIONS = 100, 60, 200

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

local function evict_entry(oldest, size)
  local found = redis.call('XRANGE', P .. 's', oldest, oldest)[1]
  for id in string.gmatch(found and found[2][8] or '', '%S+') do
    redis.call('LREM', P .. 'r:' .. id, 1, oldest) -- usually the first of the list
  end
  redis.call('XDEL', P .. 's', oldest)
  redis.call('LPOP', P .. 'sizes')
  return redis.call('DECRBY', P .. 'bytes', size)
end

local function evict_oldest(total)
  for _ = 1, MAX_EVICTIONS do -- bounded: a lowered limit is reached after several appends
    local first = redis.call('LINDEX', P .. 'sizes', 0)
    if not first then return end
    local oldest, size = first:match('^(%S+) (%d+)$')
    local age = now - tonumber(oldest:match('^%d+')) / 1000
    if total <= MAX_BYTES and age <= RETENTION then return end
    total = evict_entry(oldest, size)
  end
end

if NUMBER > tonumber(redis.call('GET', WRITER) or 0) then
  local element = redis.call('XADD', P .. 's', '*', 'w', ARGV[6], 'n', ARGV[7], 'z', ARGV[8], 'i', ARGV[9])
  local size = #ARGV[8] + #ARGV[9] + ENTRY_OVERHEAD
  for id in string.gmatch(ARGV[9], '%S+') do
    redis.call('RPUSH', P .. 'r:' .. id, element)
    size = size + ID_OVERHEAD + #id
  end
  redis.call('RPUSH', P .. 'sizes', element .. ' ' .. size)
  redis.call('SET', WRITER, NUMBER, 'EX', 86400)
  evict_oldest(redis.call('INCRBY', P .. 'bytes', size))
end
return string.format('%.6f', now)
