-- Reads elements of the journal, without those that are too large to be sent. The keys are those of append.lua.
--
-- KEYS: 1 as there. ARGV: 1 the stream, 2 maximum bytes of an element, 3 number of bytes after which a page ends, then either
--   4 'ids',                    5... ids of elements: returns those that exist
--   4 'XRANGE' or 'XREVRANGE',  5 and 6 the command's two ends, 7 maximum number of elements: returns them in order
-- Returns {id, bytes, fields} of each element, or {id, bytes} of one that is too large.

local STREAM, MAX_ELEMENT, MAX_PAGE, MODE = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local AFTER_LAST = '(18446744073709551615-18446744073709551615' -- the server refuses to look behind the last possible id
local found, total = {}, 0

local function add(entry)
  local size = 0
  for _, value in ipairs(entry[2]) do size = size + #value end
  if size > MAX_ELEMENT then
    table.insert(found, {entry[1], size})
  else
    total = total + size
    table.insert(found, {entry[1], size, entry[2]})
  end
end

if MODE == 'ids' then
  for index = 5, #ARGV do
    for _, entry in ipairs(redis.call('XRANGE', STREAM, ARGV[index], ARGV[index])) do add(entry) end
  end
  return found
end

local start, last = ARGV[5], ARGV[6]
for _ = 1, tonumber(ARGV[7]) do -- one by one: the server holds one large element at a time, too
  local entry = start ~= AFTER_LAST and redis.call(MODE, STREAM, start, last, 'COUNT', 1)[1]
  if not entry or total >= MAX_PAGE then break end
  add(entry)
  start = '(' .. entry[1]
end
return found
