-- Concurrency keys: who holds a slot of a key, and who waits for one. protocol/concurrency_keys.py has the rules.
-- To create a function takes a run of the script about as long as to read a field: without a key none of these are.

local made_keys
concurrency_keys = function()
  if made_keys then return made_keys end
  local keys = {}
  made_keys = keys

  function keys.holds(r) return r.state == 'LAUNCHING' or r.state == 'LAUNCHED' end

  function keys.waits(r) return r.state == 'QUEUED' and r.waits_for_key == 1 end

  function keys.holders_of(queue, key) return P .. 'key_holders:' .. queue .. '|' .. key end

  function keys.waiting_of(queue) return P .. 'key_waiting:' .. queue end

  -- The entries of a queue stand by key, then in the order of its requests: priority, age, id. No key has a line break.
  function keys.waiting_entry(r)
    local since = math.max(r.created_at, r.delayed_until)
    return r.concurrency_key .. string.format('\n%d %018.3f ', math.max(0, SETTINGS.highest_priority - r.priority), since) .. r.id
  end

  local function first_waiting(queue, key, number)
    return call('ZRANGEBYLEX', keys.waiting_of(queue), '[' .. key .. '\n', '(' .. key .. '\11', 'LIMIT', 0, number)
  end

  -- Fields of another record; none if its key holds something else.
  local function read_fields_of(id, ...)
    local values = redis.pcall('HMGET', key_of(id), ...)
    if is_error(values) and not is_data_error(values) then error(values, 0) end
    return is_error(values) and {} or values
  end

  -- The id in an entry, and from when on its request may be claimed; no time for one that does not wait any more.
  local function read_waiting(entry, queue, key)
    local id = string.match(entry, '(%S+)$') or ''
    local values = read_fields_of(id, 'state', 'queue', 'concurrency_key', 'waits_for_key', 'not_before')
    local waits = values[1] == 'QUEUED' and values[2] == queue and values[3] == key and values[4] == '1'
    return id, waits and valid_number(values[5] or '0') or nil
  end

  -- Let up to `number` of the first `among` requests that wait be claimed now. Entries of others are dropped: a client of
  -- the version before may have ended their requests.
  function keys.wake(queue, key, among, number)
    local woken = 0
    for _ = 1, SETTINGS.max_key_rounds do
      local dropped = 0
      for _, entry in ipairs(first_waiting(queue, key, among)) do
        local id, at = read_waiting(entry, queue, key)
        if not at then
          dropped = dropped + call('ZREM', keys.waiting_of(queue), entry)
        elseif at > NOW and woken < number then
          redis.call('HSET', key_of(id), 'not_before', text(NOW))
          call('ZADD', P .. 'retry:' .. queue, text(NOW), id)
          woken = woken + 1
        end
      end
      if dropped == 0 then return end
    end
  end

  -- Called when a record was loaded: what the indexes show.
  function keys.note(r)
    r.before.holds_key, r.before.waits_for_key, r.before.not_before = keys.holds(r), keys.waits(r), r.not_before
  end

  -- Called by store(): the record moves into and out of its slot and its place among those that wait. What leaves a slot,
  -- or its turn without taking one, lets the next one try.
  function keys.follow(r)
    local before, queue, key = r.before, r.queue, r.concurrency_key
    local holds, waits = keys.holds(r), keys.waits(r)
    if holds ~= (before.holds_key or false) then
      local index = keys.holders_of(queue, key)
      if holds then call('ZADD', index, text(NOW), r.id) else call('ZREM', index, r.id) end
    end
    if waits ~= (before.waits_for_key or false) then
      local index, entry = keys.waiting_of(queue), keys.waiting_entry(r)
      if waits then call('ZADD', index, 0, entry) else call('ZREM', index, entry) end
    end
    local had_turn = before.waits_for_key and before.not_before <= NOW
    if not holds and (before.holds_key or (had_turn and not waits)) then
      keys.wake(queue, key, SETTINGS.max_key_waiters_checked, 1)
    end
  end

  -- Those that were not checked for longest are checked first; each holds its slot only while its record does.
  local function drop_wrong_holders(queue, key)
    local index, before = keys.holders_of(queue, key), text(NOW - SETTINGS.key_check_seconds)
    local ids = call('ZRANGEBYSCORE', index, '-inf', before, 'LIMIT', 0, SETTINGS.max_key_holders_checked)
    for _, id in ipairs(ids) do
      local values = read_fields_of(id, 'state', 'queue', 'concurrency_key')
      local is_in_flight = values[1] == 'LAUNCHING' or values[1] == 'LAUNCHED'
      if is_in_flight and values[2] == queue and values[3] == key then
        call('ZADD', index, text(NOW), id)
      else
        call('ZREM', index, id)
      end
    end
  end

  local function count_free(r, limit) return limit - call('ZCARD', keys.holders_of(r.queue, r.concurrency_key)) end

  -- Those whose turn no worker has taken for long wait for it no longer: they must not hold up the others.
  local function pass_over(r)
    local queue, key = r.queue, r.concurrency_key
    for _, entry in ipairs(first_waiting(queue, key, SETTINGS.max_key_waiters_checked)) do
      local id, at = read_waiting(entry, queue, key)
      if id ~= r.id and (not at or at + SETTINGS.key_turn_seconds <= NOW) then
        if at then redis.call('HDEL', key_of(id), 'waits_for_key') end
        call('ZREM', keys.waiting_of(queue), entry)
      end
    end
  end

  -- How many slots of the record's key are free, and how many requests that wait come before it.
  function keys.find_room(r, limit)
    if count_free(r, limit) <= 0 then drop_wrong_holders(r.queue, r.concurrency_key) end
    local free = count_free(r, limit)
    if free > 0 then pass_over(r) end
    local first, own = '[' .. r.concurrency_key .. '\n', '(' .. keys.waiting_entry(r)
    return free, call('ZLEXCOUNT', keys.waiting_of(r.queue), first, own)
  end

  -- After a claim: wake as many as there are free slots.
  function keys.use_free_slots(r, limit)
    local number = SETTINGS.max_key_waiters_checked
    if limit > 0 then number = math.min(number, count_free(r, limit)) end
    if number > 0 then keys.wake(r.queue, r.concurrency_key, number, number) end
  end

  return keys
end
