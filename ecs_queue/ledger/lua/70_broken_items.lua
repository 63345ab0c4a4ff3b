-- The list of broken items: what is checked again, returned, and dropped.

local ENTRY_KEYS = { dead_letter = 'dead_letters', worker = 'workers', pause = 'paused', event_fact = 'event_health',
                     count = 'counts' }
-- The entries that are a number.
local NUMBER_KINDS = { pause = true, event_fact = true, count = true }

local function split_item(item) return string.match(item, '^([%a_]+) (.*)$') end

local function remove_from_list(item)
  call('HDEL', BROKEN, item)
  call('ZREM', BROKEN_CHECKS, item)
end

local function split_entry(entry) return string.match(entry or '', '^(%S+) (%S+) (.*)$') end

local function add_to_count(numbers, id)
  local fields = redis.pcall('HMGET', key_of(id), 'queue', 'state')
  if is_error(fields) or not fields[1] or not LIVE_STATES[fields[2]] then return end
  local field = fields[1] .. '|' .. fields[2]
  numbers[field] = (numbers[field] or 0) + 1
end

-- Count the live requests anew: what a broken record counted for is not known.
local function recount_live()
  local numbers, counts = {}, call('HGETALL', P .. 'counts')
  for i = 1, #counts, 2 do
    if LIVE_STATES[string.match(counts[i], '|(%u+)$') or ''] then numbers[counts[i]] = 0 end
  end
  for _, id in ipairs(call('ZRANGE', P .. 'live', 0, -1)) do add_to_count(numbers, id) end
  for field, number in pairs(numbers) do call('HSET', P .. 'counts', field, text(number)) end
end

-- Restore the indexes of `number` records of `source` from rank `after` on; the next rank, nil at the end.
local function restore_range(source, after, number)
  local ids = call('ZRANGE', P .. source, after, after + number - 1)
  for _, id in ipairs(ids) do
    local succeeded, r = pcall(load, id)
    if succeeded and r then restore_indexes(r) end
  end
  return #ids == number and after + number or nil
end

-- The live records from the indexes of the queues that are known.
local function restore_live()
  local indexes, counts = { P .. 'due' }, call('HGETALL', P .. 'counts')
  for i = 1, #counts, 2 do
    local queue = string.match(counts[i], '^(.*)|QUEUED$')
    if queue then
      indexes[#indexes + 1] = P .. 'unclaimed:' .. queue
      indexes[#indexes + 1] = P .. 'retry:' .. queue
    end
  end
  for _, index in ipairs(indexes) do
    for _, id in ipairs(call('ZRANGE', index, 0, -1)) do
      local created_at = redis.pcall('HGET', key_of(id), 'created_at')
      call('ZADD', P .. 'live', 'NX', text(not is_error(created_at) and valid_number(created_at) or NOW), id)
    end
  end
end

local function restore_dead_letters(name)
  local bytes, at = 0, NOW
  for _, key in ipairs(call('HKEYS', P .. 'dead_letters')) do
    bytes = bytes + call('HSTRLEN', P .. 'dead_letters', key)
    at = at + 1e-6
    if name == 'dead_letter_times' then
      call('ZADD', P .. 'dead_letter_times', 'NX', string.format('%.6f', at), key)
    end
  end
  call('SET', P .. 'dead_letter_bytes', bytes)
end

-- What follows when a shared key was set aside: what can be known of its contents returns. The next rank, nil at the end.
local function restore_key(name, after, limit)
  if name == 'counts' then return recount_live() end
  if name == 'live' then return restore_live() end
  if string.sub(name, 1, #'dead_letter') == 'dead_letter' then return restore_dead_letters(name) end
  if string.sub(name, 1, #'undelivered:') == 'undelivered:' then return restore_range('finished', after, limit) end
  for _, prefix in ipairs({ 'due', 'unclaimed:', 'retry:', 'starting:', 'key_holders:', 'key_waiting:', 'expiry', 'arns' }) do
    if string.sub(name, 1, #prefix) == prefix then return restore_range('live', after, limit) end
  end
end

local function check_later(item, since)
  local wait = math.max(SETTINGS.broken_check_seconds, NOW - (valid_number(since) or NOW))
  call('ZADD', BROKEN_CHECKS, text(NOW + math.min(SETTINGS.max_broken_check_seconds, wait)), item)
end

-- Whether the record can be used now. One that has expired since it was listed is not missed.
local function is_record_sound(id, listed_reason)
  local succeeded, r = pcall(function()
    local found = load(id)
    if found then require_payload(found) end
    return found
  end)
  if not succeeded and not is_data_error(r) then error(r, 0) end
  if succeeded and not r then return listed_reason ~= NO_RECORD and not call('ZSCORE', P .. 'live', id) end
  return succeeded, r
end

local function check_record(item, id, since, reason)
  local is_sound, r = is_record_sound(id, reason)
  if not is_sound then return check_later(item, since) end
  if r then restore_indexes(r) end
  remove_from_list(item)
  return true
end

local function check_key(item, name, since, after, reason)
  local nextrank = restore_key(name, tonumber(after) or 0, SETTINGS.restore_batch)
  if nextrank then
    call('HSET', BROKEN, item, since .. ' ' .. text(nextrank) .. ' ' .. reason)
  else
    call('ZREM', BROKEN_CHECKS, item) -- stays in the list until it is dropped
    call('ZADD', BROKEN_CHECKS, '+inf', item)
  end
end

local function check_entry(item, kind, name, since)
  if kind == 'dead_letter' then
    if call('HEXISTS', P .. 'dead_letters', name) == 1 then return check_later(item, since) end
    remove_from_list(item)
    return true
  end
  local value = call('HGET', P .. ENTRY_KEYS[kind], name)
  -- A heartbeat is written anew every few seconds; reading it again shows whether it still cannot be used.
  if not value or (kind == 'worker' and split_heartbeat(value)) or (NUMBER_KINDS[kind] and valid_number(value)) then
    remove_from_list(item)
    if kind == 'count' then recount_live() end
    return true
  end
  check_later(item, since)
end

local function find_broken_numbers()
  for kind in pairs(NUMBER_KINDS) do
    local entries = call('HGETALL', P .. ENTRY_KEYS[kind])
    for i = 1, #entries, 2 do
      if not valid_number(entries[i + 1]) then note_broken(kind, entries[i], 'it is no number') end
    end
  end
end

-- How many items have left the list: they can be used again, or are gone.
function operations.check_broken(limit)
  call('HEXISTS', BROKEN, '') -- sets aside what is no list
  find_broken_numbers()
  local left = 0
  for _, item in ipairs(call('ZRANGEBYSCORE', BROKEN_CHECKS, '-inf', text(NOW), 'LIMIT', 0, limit)) do
    local kind, name = split_item(item)
    local since, after, reason = split_entry(call('HGET', BROKEN, item))
    local has_left
    if not since or not kind then
      remove_from_list(item)
    elseif kind == 'record' then
      has_left = check_record(item, name, since, reason)
    elseif kind == 'key' then
      check_key(item, name, since, after, reason)
    elseif ENTRY_KEYS[kind] then
      has_left = check_entry(item, kind, name, since)
    else
      remove_from_list(item) -- another program's
    end
    if has_left then left = left + 1 end
  end
  return left
end

local function delete_record(id)
  local succeeded, err = pcall(load, id)
  local r = not succeeded and type(err) == 'table' and err.record or {}
  keep_apart(id, err)
  redis.call('PEXPIRE', key_of(id), 0) -- deletes at once; a user who drops items needs no right to DEL records
  redis.call('DEL', payload_key_of(id))
  for _, index in ipairs({ 'live', 'finished', 'due', 'expiry' }) do call('ZREM', P .. index, id) end
  if type(r.arn) == 'string' and call('HGET', P .. 'arns', r.arn) == id then call('HDEL', P .. 'arns', r.arn) end
  recount_live()
end

-- expected: the value of an entry that the caller found to be broken.
function operations.drop_broken(kind, name, expected)
  local item = kind .. ' ' .. name
  if name == '' and call('HEXISTS', BROKEN, item) == 0 then item = kind end -- another program's
  if call('HEXISTS', BROKEN, item) == 0 then return { 'not_listed' } end
  if kind == 'record' then
    local _, _, reason = split_entry(call('HGET', BROKEN, item))
    local is_sound, r = is_record_sound(name, reason)
    if is_sound then
      if r then restore_indexes(r) end
      remove_from_list(item)
      return { 'sound' }
    end
    delete_record(name)
  elseif kind == 'key' then
    redis.call('DEL', P .. 'aside:' .. name)
  elseif ENTRY_KEYS[kind] then
    local value = call('HGET', P .. ENTRY_KEYS[kind], name)
    local is_changed = not NUMBER_KINDS[kind] and value ~= expected
    if value and (is_changed or (NUMBER_KINDS[kind] and valid_number(value))) then
      remove_from_list(item)
      if kind == 'count' then recount_live() end
      return { 'sound' }
    end
    if kind == 'dead_letter' then drop_dead_letter(name) else call('HDEL', P .. ENTRY_KEYS[kind], name) end
    if kind == 'count' then recount_live() end
  end
  remove_from_list(item)
  return { 'dropped' }
end

-- What the client could not decode.
function operations.set_record_apart(id, reason)
  keep_apart(id, { broken = reason })
  return { 'ok' }
end

function operations.set_entry_apart(kind, name, reason)
  note_broken(kind, name, reason)
  return { 'ok' }
end

-- What the client could decode.
function operations.release_entry(kind, name)
  remove_from_list(kind .. ' ' .. name)
  return { 'ok' }
end
