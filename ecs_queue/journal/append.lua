-- Appends one batch to the journal and makes room. Every key of a journal, P = "{<namespace>}:j:":
--
--   P s         stream  one element per batch: w = worker, n = number of events, z = their JSON, deflated, i = the ids of
--                       their requests, separated by spaces; of a signed batch also b = "<writer>:<number>", s = its
--                       signature
--   P ids       hash    element of P s -> the ids of its requests: who only appends need not read events to evict them
--   P sizes     list    "<element> <bytes>" of each element of P s, oldest first
--   P bytes     string  the sum of these bytes
--   P r:<id>    list    the elements with events of a request, oldest first: one request is found without a scan
--   P w:<token> string  the number of a writer's last batch: a batch that is sent again is not appended again
--
-- KEYS: 1 P slot, which never exists (server_keys.py). ARGV: 1 P, 2 maximum bytes, 3 retention in seconds, 4 writer's token, 5 number of the batch, 6 worker, 7 number of
-- events, 8 body, 9 ids, 10 signature ('' for none). Returns the server's time.

local P, MAX_BYTES, RETENTION = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local LEDGER = string.sub(P, 1, -3) .. 'l:'
local WRITER, NUMBER = P .. 'w:' .. ARGV[4], tonumber(ARGV[5])
-- About the bytes that an element and an index entry take besides their content.
local ENTRY_OVERHEAD, ID_OVERHEAD, MAX_EVICTIONS = 100, 60, 200
local MAX_DIGITS = 12 -- of the size of an element

local time = redis.call('TIME')
local now = tonumber(time[1]) + tonumber(time[2]) / 1e6

-- A request's index and a writer's number may be of another type, by another program: then they are left out.
local function index(...)
  local reply = redis.pcall(...)
  if type(reply) ~= 'table' or not reply.err then return reply end
  if not string.find(reply.err, 'WRONGTYPE', 1, true) then error(reply, 0) end
end

-- The sum of bytes after a change. What cannot be the sum, or is no number, is replaced by the change alone.
local function count_bytes(change)
  local total = redis.pcall('INCRBY', P .. 'bytes', change)
  if type(total) == 'number' and total >= 0 then return total end
  if type(total) == 'table' and string.find(total.err, 'NOPERM', 1, true) then error(total, 0) end
  redis.call('SET', P .. 'bytes', math.max(0, change))
  return math.max(0, change)
end

-- The sizes of elements that have ids, on average: what is not among the sizes would never be evicted.
local function restore_sizes()
  local elements = redis.call('HKEYS', P .. 'ids')
  for i, element in ipairs(elements) do
    elements[i] = string.format('%20s-%20s %s', element:match('^(%d*)'), element:match('(%d*)$'), element)
  end
  table.sort(elements) -- by number, the oldest first
  local size = math.floor(count_bytes(0) / math.max(1, #elements))
  for _, element in ipairs(elements) do
    redis.call('RPUSH', P .. 'sizes', element:match('%S+$') .. ' ' .. size)
  end
end

-- A key that all batches share, and that cannot be used, is renamed and listed like the ledger's (05_broken.lua). A user
-- whose rights do not allow that waits for a worker: with an error before anything is written, for a batch that fails
-- after its append would be appended again without end.
local function set_aside(name, reply)
  local aside = 'journal-' .. name
  local renamed = redis.pcall('RENAME', P .. name, LEDGER .. 'aside:' .. aside)
  if renamed.err then error(reply, 0) end
  local reason = 'it could not be used, and an empty one took its place: ' .. reply.err
  redis.pcall('HSET', LEDGER .. 'broken', 'key ' .. aside, string.format('%.3f 0 %s', now, reason))
  redis.pcall('ZADD', LEDGER .. 'broken_checks', '+inf', 'key ' .. aside)
  if name == 'sizes' then restore_sizes() end
end

local function set_aside_other_type(name, command)
  local reply = redis.pcall(command, P .. name, '0')
  if type(reply) == 'table' and reply.err and string.find(reply.err, 'WRONGTYPE', 1, true) then set_aside(name, reply) end
end

local function add_element(fields)
  local reply = redis.pcall('XADD', P .. 's', '*', unpack(fields))
  if type(reply) ~= 'table' then return reply end
  if not string.find(reply.err, 'exhausted', 1, true) then error(reply, 0) end -- its ids are not
  set_aside('s', reply)
  return redis.call('XADD', P .. 's', '*', unpack(fields))
end

local function evict_entry(oldest, size)
  local ids = redis.call('HGET', P .. 'ids', oldest)
  if not ids then -- the version before wrote it; where this user may not read it, its index entries stay
    local found = redis.pcall('XRANGE', P .. 's', oldest, oldest)[1]
    ids = found and found[2][8] or ''
  end
  for id in string.gmatch(ids, '%S+') do
    index('LREM', P .. 'r:' .. id, 1, oldest) -- usually the first of the list
  end
  redis.call('HDEL', P .. 'ids', oldest)
  redis.call('XDEL', P .. 's', oldest)
  redis.call('LPOP', P .. 'sizes')
  return count_bytes(-size)
end

local function evict_oldest(total)
  for _ = 1, MAX_EVICTIONS do -- bounded: a lowered limit is reached after several appends
    local first = redis.call('LINDEX', P .. 'sizes', 0)
    if not first then return end
    local oldest, added_at, size = first:match('^((%d+)%-%d+) (%d+)$')
    if not oldest or #size > MAX_DIGITS then
      redis.call('LPOP', P .. 'sizes') -- not from here
    else
      local age = now - tonumber(added_at) / 1000
      if total <= MAX_BYTES and age <= RETENTION then return end
      total = evict_entry(oldest, tonumber(size))
    end
  end
end

if NUMBER > (tonumber(index('GET', WRITER) or 0) or 0) then
  set_aside_other_type('s', 'XDEL')
  set_aside_other_type('ids', 'HGET')
  set_aside_other_type('sizes', 'LINDEX')
  local fields = {'w', ARGV[6], 'n', ARGV[7], 'z', ARGV[8], 'i', ARGV[9]} -- evict_entry reads the 8th
  if ARGV[10] ~= '' then
    for _, value in ipairs({'b', ARGV[4] .. ':' .. ARGV[5], 's', ARGV[10]}) do table.insert(fields, value) end
  end
  local element = add_element(fields)
  redis.call('SET', WRITER, NUMBER, 'EX', 86400)
  redis.call('HSET', P .. 'ids', element, ARGV[9])
  local size = #ARGV[8] + 2 * #ARGV[9] + #ARGV[10] + ENTRY_OVERHEAD
  for id in string.gmatch(ARGV[9], '%S+') do
    index('RPUSH', P .. 'r:' .. id, element)
    size = size + ID_OVERHEAD + #id
  end
  redis.call('RPUSH', P .. 'sizes', element .. ' ' .. size)
  evict_oldest(count_bytes(size))
end
return string.format('%.6f', now)
