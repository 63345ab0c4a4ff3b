-- What cannot be used is kept apart with the reason, so that it does not stop the work on everything else. A record or
-- an entry that cannot be loaded leaves its index for the list of broken items. A key that many items share and that
-- cannot be used is renamed to P aside:<its name>, and an empty one takes its place.

local BROKEN, BROKEN_CHECKS = P .. 'broken', P .. 'broken_checks'

-- The server's errors, and Lua's own for a value that no rule expects.
local DATA_ERRORS = { 'WRONGTYPE', 'not an integer', 'not a float', 'would overflow', 'attempt to ', 'bad argument' }

local function message_of(err) return tostring(type(err) == 'table' and (err.broken or err.err) or err) end

-- Whether stored data is the cause, not the server's state or this user's rights.
local function is_data_error(err)
  if type(err) == 'table' and err.broken then return true end
  local message = message_of(err)
  for _, words in ipairs(DATA_ERRORS) do
    if string.find(message, words, 1, true) then return true end
  end
  return false
end

local function is_error(reply) return type(reply) == 'table' and reply.err ~= nil end

-- A time or a number as this script stores it; nil for anything else, such as NaN, infinity and hexadecimal digits.
local function valid_number(value)
  local number = value and not string.find(value, '[^%d.eE+-]') and tonumber(value)
  if number and number > -SETTINGS.max_stored_number and number < SETTINGS.max_stored_number then return number end
end

local NO_RECORD = 'there is no record of this id'

local call

-- Whether the list has the item now. A full list takes no more: the item stays where it is, and is left out. So it is
-- for a user of the server that may not write the list: a worker lists the item later.
local function note_broken(kind, name, reason)
  local item = kind .. ' ' .. name
  local succeeded, is_listed = pcall(function()
    if call('HEXISTS', BROKEN, item) == 1 then return true end
    if call('ZCARD', BROKEN_CHECKS) >= SETTINGS.max_broken_items then return false end
    local entry = string.format('%.3f 0 %s', NOW, string.sub(reason, 1, SETTINGS.max_broken_reason))
    call('HSET', BROKEN, item, entry)
    call('ZADD', BROKEN_CHECKS, string.format('%.3f', kind == 'key' and NOW or NOW + SETTINGS.broken_check_seconds), item)
    return true
  end)
  return succeeded and is_listed
end

local function set_aside(key, message)
  local name = string.sub(key, #P + 1)
  redis.call('RENAME', key, P .. 'aside:' .. name)
  note_broken('key', name, 'it could not be used, and an empty one took its place: ' .. message)
end

-- redis.call on a key that many items share. One that cannot be used is set aside first.
call = function(command, key, ...)
  local reply = redis.pcall(command, key, ...)
  if not is_error(reply) then return reply end
  if not is_data_error(reply) then error(reply, 0) end
  if command == 'HINCRBY' and not string.find(message_of(reply), 'WRONGTYPE', 1, true) then
    local field = ...
    redis.call('HDEL', key, field)
    note_broken('count', field, 'it was no number, and counting began anew')
  else
    set_aside(key, message_of(reply))
  end
  return redis.call(command, key, ...)
end
