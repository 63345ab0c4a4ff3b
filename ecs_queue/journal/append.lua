-- Appends one batch to the journal and makes room. Every key of a journal, P = "<namespace>:j:":
--
--   P s         stream  one element a batch: w = worker, n = events, z = their JSON, deflated, i = the requests they
--                       speak of, separated by spaces
--   P sizes     list    "<element> <bytes>" of each element of P s, oldest first
--   P bytes     string  the sum of them
--   P r:<id>    list    the elements that speak of a request, oldest first: one request is found without a scan
--   P w:<token> string  the last batch of a writer: one that is sent again is not appended again
--
-- ARGV: 1 P, 2 most bytes, 3 retention in seconds, 4 writer's token, 5 number of the batch, 6 worker, 7 events, 8 body,
-- 9 ids. Answers the server's time.

local P, MAX_BYTES, RETENTION = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local WRITER, NUMBER = P .. 'w:' .. ARGV[4], tonumber(ARGV[5])
local ENTRY_OVERHEAD, ID, MAX_EVICTIONS = 100, 60, 200 -- about what an element and a mention of a request take besides their bytes

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

local function evict_entry(oldest, size)
  local found = redis.call('XRANGE', P .. 's', oldest, oldest)[1]
  for id in string.gmatch(found and found[2][8] or '', '%S+') do
    redis.call('LREM', P .. 'r:' .. id, 1, oldest) -- the first of the list, as a rule
  end
  redis.call('XDEL', P .. 's', oldest)
  redis.call('LPOP', P .. 'sizes')
  return redis.call('DECRBY', P .. 'bytes', size)
end

local function evict_oldest(total)
  for _ = 1, MAX_EVICTIONS do -- bounded: a limit that was lowered is reached after some appends
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
    size = size + ID + #id
  end
  redis.call('RPUSH', P .. 'sizes', element .. ' ' .. size)
  redis.call('SET', WRITER, NUMBER, 'EX', 86400)
  evict_oldest(redis.call('INCRBY', P .. 'bytes', size))
end
return string.format('%.6f', now)
