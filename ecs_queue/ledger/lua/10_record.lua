-- Loading, changing and storing one record, with every index it stands in.

RECORD_NUMBERS.unknown_state_since = 0 -- only here: since when no worker has known the state

-- A state that is in neither table is a newer version's: this version knows nothing of it.
local function has_ended(r) return TERMINAL_STATES[r.state] end

-- To format a number takes as long as a short command, and most are the present time.
local formatted = {}
local function text(value)
  if type(value) ~= 'number' then return value end
  local known = formatted[value]
  if known then return known end
  known = string.format(value == math.floor(value) and '%.0f' or '%.3f', value)
  if value == value then formatted[value] = known end -- NaN is no key
  return known
end

local function key_of(id) return P .. 'r:' .. id end

-- The payload of a record has a key of its own. Workers of the version before know only the fields of the record itself:
-- a record that is made while one of them is alive, or was made by their version, keeps its payload there until it ends.
local PAYLOAD_FIELDS = { request = true, args = true }
local REQUEST_AND_ARGS, ARGS = { 'request', 'args' }, { 'args' }

local function payload_key_of(id) return P .. 'payload:' .. id end

local function scan_for_old_workers()
  local entries = call('HGETALL', P .. 'workers')
  for i = 2, #entries, 2 do
    local forget_at, info = string.match(entries[i], '^%S+ (%S+) (.*)$')
    if (valid_number(forget_at) or 0) > NOW and not string.find(info, '"payload_keys":true', 1, true) then return '1' end
  end
  return '0'
end

local have_old_workers -- nil: not known yet
local function find_old_workers()
  if have_old_workers == nil then
    have_old_workers = call('GET', P .. 'old_workers')
    if not have_old_workers then
      have_old_workers = scan_for_old_workers()
      call('SET', P .. 'old_workers', have_old_workers, 'PX', 1000) -- a scan takes as long as a put
    end
  end
  return have_old_workers == '1'
end

local function index_of(r)
  if r.state == 'QUEUED' then
    if r.not_before > 0 then return P .. 'retry:' .. r.queue end
    return P .. 'unclaimed:' .. r.queue
  end
  if LIVE_STATES[r.state] then return P .. 'due' end
end

-- Whether it counts for its queue's max_starting: its task may exist and does not run yet.
local function is_starting(r)
  if r.max_starting == 0 or (r.state ~= 'LAUNCHING' and r.state ~= 'LAUNCHED') then return false end
  if r.state == 'LAUNCHED' and r.started_at > 0 then return false end
  local status = r.last_status or ''
  return status == '' or (STATUS_RANKS[status] or STATUS_RANKS.RUNNING) < STATUS_RANKS.RUNNING
end

-- Without reading a field of the record: most have no key.
local function has_key(r) return (r.stored.concurrency_key or r.changed.concurrency_key) ~= nil end

local concurrency_keys -- 11_keys.lua

local function snapshot(r)
  r.before = { state = r.state, index = r.state and index_of(r), arn = r.arn, owner = r.owner,
               undelivered = r.undelivered, run = r.run, is_starting = is_starting(r) }
  if has_key(r) then concurrency_keys().note(r) end
  return r
end

-- A record reads a field of what is stored when it is asked for it first: most operations use a few of them.
local RECORD = {
  __index = function(r, field)
    local value = r.stored[field]
    local default = RECORD_NUMBERS[field]
    if default then value = value and tonumber(value) or default end
    r[field] = value
    return value
  end,
}

-- flat: the stored fields, {field, value, ...}; stored: the same as a table; changed: the fields that differ from them;
-- before: what the indexes show, by snapshot(). All are set, so that no stored field takes their place.
local function new_record(id)
  return setmetatable({ id = id, flat = {}, stored = {}, changed = {}, before = false, is_payload_inside = false,
                        changed_payload = false }, RECORD)
end

local function is_utf8(value)
  if not string.find(value, '[\128-\255]') then return true end
  for _, overlong_or_surrogate in ipairs({ '\224[\128-\159]', '\237[\160-\191]', '\240[\128-\143]', '\244[\144-\191]' }) do
    if string.find(value, overlong_or_surrogate) then return false end
  end
  value = string.gsub(value, '[\194-\223][\128-\191]', ' ')
  value = string.gsub(value, '[\224-\239][\128-\191][\128-\191]', ' ')
  value = string.gsub(value, '[\240-\244][\128-\191][\128-\191][\128-\191]', ' ')
  return not string.find(value, '[\128-\255]')
end

-- Why a stored field cannot be used; nil if it can.
local function find_field_defect(field, value)
  if #value > SETTINGS.max_field_bytes then return 'its field ' .. field .. ' has ' .. #value .. ' bytes' end
  if RECORD_NUMBERS[field] or field == 'exit_code' then
    local number = valid_number(value)
    if not number then return 'its field ' .. field .. ' is no number' end
    if number < 0 and field ~= 'exit_code' then return 'its field ' .. field .. ' is below zero' end
  elseif string.find(RECORD_TEXTS, ' ' .. field .. ' ', 1, true) and not is_utf8(value) then
    return 'its field ' .. field .. ' is no text in UTF-8'
  end
end

-- Why a record cannot be used, whose fields can; nil if it can.
local function find_record_defect(r)
  if (r.state or '') == '' then return 'its field state is missing' end
  if not LIVE_STATES[r.state] then return nil end
  for _, field in ipairs({ 'queue', 'nonce' }) do
    if (r[field] or '') == '' then return 'its field ' .. field .. ' is missing' end
  end
  if r.state == 'LAUNCHED' and (r.arn or '') == '' then return 'its field arn is missing' end
  if r.launch < 1 or r.attempt < 1 then return 'launches and attempts count from 1' end
end

-- Why a field cannot be used; nil if all can.
local function find_first_field_defect(flat)
  for i = 1, #flat, 2 do
    local defect = find_field_defect(flat[i], flat[i + 1])
    if defect then return defect end
  end
end

-- Texts in ASCII: the records of one run have many in common.
local usual_texts = {}

-- Take the fields into the record. Whether they are those of a usual one, which can be used: short numbers without sign
-- and exponent, and short texts in ASCII. find_field_defect takes several times as long.
local function read_fields(r, flat)
  local stored, are_usual, find = r.stored, true, string.find
  for i = 1, #flat, 2 do
    local field, value = flat[i], flat[i + 1]
    stored[field] = value
    if RECORD_NUMBERS[field] then
      are_usual = are_usual and #value <= SETTINGS.max_usual_digits and find(value, '^%d+%.?%d*$')
    elseif are_usual and not usual_texts[value] then
      are_usual = #value <= SETTINGS.max_usual_bytes and find(value, '^[^\128-\255]*$')
      usual_texts[value] = are_usual
    end
  end
  r.flat = flat
  r.is_payload_inside = stored.request ~= nil or stored.args ~= nil
  return are_usual and not stored.exit_code
end

-- Raises { broken = reason, record = ... } for a record that cannot be used.
local function load(id)
  local flat = redis.pcall('HGETALL', key_of(id))
  if is_error(flat) then
    if not is_data_error(flat) then error(flat, 0) end
    error({ broken = 'its key holds no hash', record = new_record(id) }, 0)
  end
  if #flat == 0 then return nil end
  local r = new_record(id)
  local defect = not read_fields(r, flat) and find_first_field_defect(flat) or find_record_defect(r)
  if defect then error({ broken = defect, record = r }, 0) end
  return snapshot(r)
end

local function set(r, field, value)
  if (r[field] or '') ~= value then
    r[field] = value
    r.changed[field] = true
  end
end

local function payload_of(r, field)
  if r[field] == nil then
    -- Arguments are frozen for a target; without one they are of an earlier launch.
    local is_absent = field == 'args' and (r.target or '') == ''
    local value = not is_absent and redis.call('HGET', payload_key_of(r.id), field) or ''
    if #value > SETTINGS.max_field_bytes then error({ broken = 'its payload is too long', record = r }, 0) end
    r[field] = value
  end
  return r[field]
end

local function set_payload(r, field, value)
  if r.is_payload_inside then return set(r, field, value) end
  r[field] = value
  r.changed_payload = r.changed_payload or {}
  r.changed_payload[field] = true
end

local function store_payload(r)
  if has_ended(r) then
    if not TERMINAL_STATES[r.before.state] then redis.call('DEL', payload_key_of(r.id)) end
    return
  end
  if not r.changed_payload then return end
  for field in pairs(r.changed_payload) do
    if r[field] == '' then
      redis.call('HDEL', payload_key_of(r.id), field)
    else
      redis.call('HSET', payload_key_of(r.id), field, r[field])
    end
  end
end

-- A runner's task is one request's after the other's: the entry may be the next one's by now.
local function drop_arn(r)
  local arn = r.before.arn
  if (arn or '') == '' then return end
  local is_shared = (r.run or '') ~= '' or (r.before.run or '') ~= ''
  if not is_shared or call('HGET', P .. 'arns', arn) == r.id then call('HDEL', P .. 'arns', arn) end
end

local function move_indexes(r, due_at)
  local before, index = r.before, index_of(r)
  if before.index and before.index ~= index then call('ZREM', before.index, r.id) end
  if index and (due_at or before.index ~= index) then call('ZADD', index, text(due_at or NOW), r.id) end
  if is_starting(r) ~= (before.is_starting or false) then
    local key = P .. 'starting:' .. r.queue
    if before.is_starting then call('ZREM', key, r.id) else call('ZADD', key, text(NOW), r.id) end
  end
  if before.arn ~= r.arn then
    drop_arn(r)
    if r.arn and r.arn ~= '' and LIVE_STATES[r.state] then call('HSET', P .. 'arns', r.arn, r.id) end
  end
  if before.state ~= r.state then
    if before.state then call('HINCRBY', P .. 'counts', r.queue .. '|' .. before.state, -1) end
    call('HINCRBY', P .. 'counts', r.queue .. '|' .. r.state, 1)
    if r.delayed_until > NOW and not before.state then
      call('ZADD', P .. 'delayed:' .. r.queue, text(r.delayed_until), r.id)
    elseif r.delayed_until > 0 and before.state == 'QUEUED' then
      call('ZREM', P .. 'delayed:' .. r.queue, r.id)
    end
    if r.expires_at > 0 then
      if r.state == 'QUEUED' then
        call('ZADD', P .. 'expiry', text(r.expires_at - SETTINGS.startup_allowance), r.id)
      elseif before.state == 'QUEUED' then
        call('ZREM', P .. 'expiry', r.id)
      end
    end
  end
end

local function move_results(r)
  local before = r.before
  if before.undelivered == 1 and (r.undelivered == 0 or before.owner ~= r.owner) then
    call('ZREM', P .. 'undelivered:' .. before.owner, r.id)
  end
  if r.undelivered == 1 and (before.undelivered ~= 1 or before.owner ~= r.owner) then
    call('ZADD', P .. 'undelivered:' .. r.owner, text(r.finished_at), r.id)
  end
end

local function milliseconds(duration) return string.format('%.0f', math.floor(duration * 1000)) end

-- The index of an owner that never returns must not outlive the records in it.
local function extend_results_ttl(r, forget_at)
  local key = P .. 'undelivered:' .. r.owner
  if call('PTTL', key) < (forget_at - NOW) * 1000 then
    call('PEXPIRE', key, milliseconds(forget_at - NOW))
  end
end

local function set_lifetime(r)
  if LIVE_STATES[r.state] then
    if not r.before.state then
      call('ZADD', P .. 'live', text(r.created_at), r.id)
      call('ZREM', P .. 'finished', r.id) -- of an earlier request with this id, forgotten but not yet pruned
    end
    return
  end
  local keep = SETTINGS.retention_seconds
  if r.undelivered == 1 then keep = math.max(SETTINGS.min_unconfirmed_retention, SETTINGS.retention_seconds) end
  local forget_at = math.max(r.accept_until + SETTINGS.max_clock_skew, NOW + keep)
  call('ZREM', P .. 'live', r.id)
  call('ZADD', P .. 'finished', text(forget_at), r.id)
  redis.call('PEXPIRE', key_of(r.id), milliseconds(forget_at - NOW))
  if r.undelivered == 1 then extend_results_ttl(r, forget_at) end
  drop_arn(r)
end

-- Store the changed fields and move the record between indexes. due_at: when it is due next; nil leaves the time of a
-- record that stays in its index.
local function store(r, due_at)
  local written, deleted = {}, {}
  for field in pairs(r.changed) do
    local value = r[field]
    if value == '' or value == 0 then
      deleted[#deleted + 1] = field
    else
      written[#written + 1] = field
      written[#written + 1] = text(value)
    end
  end
  if #written > 0 then redis.call('HSET', key_of(r.id), unpack(written)) end
  if #deleted > 0 then redis.call('HDEL', key_of(r.id), unpack(deleted)) end
  store_payload(r)
  move_indexes(r, due_at)
  move_results(r)
  if has_key(r) then concurrency_keys().follow(r) end
  if has_ended(r) or not r.before.state then set_lifetime(r) end
end

local function clear_claim(r)
  set(r, 'claim', '')
  set(r, 'last_answer', '')
  set(r, 'lease_until', 0)
  set(r, 'ambiguous', 0)
  set(r, 'retired', 0)
  set(r, 'abandoned_claims', 0)
  if has_key(r) then set(r, 'waits_for_key', 0) end
end

local function finish(r, state, attempts, at, reason)
  set(r, 'state', state)
  set(r, 'attempts', attempts)
  set(r, 'finished_at', at)
  set(r, 'reason', reason)
  set(r, 'undelivered', (r.owner or '') ~= '' and 1 or 0)
  set_payload(r, 'request', '')
  set_payload(r, 'args', '')
  set(r, 'not_before', 0)
  clear_claim(r)
end

local function queue_next_launch(r, not_before)
  if (r.arn or '') ~= '' then set(r, 'requeued_at', NOW) end
  set(r, 'state', 'QUEUED')
  set(r, 'launch', r.launch + 1)
  set(r, 'not_before', not_before)
  set(r, 'first_called_at', 0)
  set(r, 'last_claim_at', 0)
  set_payload(r, 'args', '')
  set(r, 'target', '')
  set(r, 'run', '')
  set(r, 'container_name', '')
  set(r, 'max_attempts', 0)
  set(r, 'spec_version', 0)
  set(r, 'arn', '')
  set(r, 'last_status', '')
  set(r, 'version', 0)
  set(r, 'launched_at', 0)
  set(r, 'started_at', 0)
  set(r, 'start_timeout', 0)
  set(r, 'retry_rules', '')
  set(r, 'max_starting', 0)
  set(r, 'variant', 0)
  set(r, 'variant_reason', '')
  clear_claim(r)
end

-- Whether the task of a LAUNCHED record should have started by now; whether it has is not looked at.
local function is_start_overdue(r)
  return r.start_timeout > 0 and r.launched_at > 0 and NOW >= r.launched_at + r.start_timeout
end

local function is_expired(r) return r.expires_at > 0 and NOW + SETTINGS.startup_allowance >= r.expires_at end

-- A printf template with its one %s filled in, whatever bytes the value has.
local function fill(template, value) return (string.gsub(template, '%%s', function() return value end)) end

local function stop_reason(r) return fill(REASONS.stopped, r.stop_requested_by) end

local function expiry_reason(r)
  if (r.reason or '') ~= '' then return REASONS.not_started_in_time .. fill(REASONS.waited_because, r.reason) end
  if r.launch == 1 and r.calls == 0 then return REASONS.not_started_in_time .. fill(REASONS.never_claimed, r.queue) end
  return REASONS.not_started_in_time
end

local function poison_reason() return string.format(REASONS.poison, SETTINGS.max_deliveries) end

local function is_poison(r) return r.abandoned_claims > SETTINGS.max_deliveries end

-- The worker that holds the claim is alive, and the record stays LAUNCHING.
local function reset_abandoned_claims(r)
  set(r, 'abandoned_claims', is_poison(r) and SETTINGS.max_deliveries + 1 or 0)
end

local function has_stop(r) return (r.stop_requested_by or '') ~= '' end

local function has_claim(r, claim_token)
  return r and r.state == 'LAUNCHING' and claim_token ~= '' and r.claim == claim_token
end

-- protocol/repeated_calls.py: the result code that this very call had before, or nil.
local function find_answer(r, operation, claim_token)
  local call = operation .. ' ' .. claim_token .. ' '
  local known = r and r.last_answer or ''
  if claim_token ~= '' and string.sub(known, 1, #call) == call then return string.sub(known, #call + 1) end
end

local function keep_answer(r, operation, claim_token, code)
  if claim_token ~= '' then set(r, 'last_answer', operation .. ' ' .. claim_token .. ' ' .. code) end
end

-- The record as the caller receives it: {id, field, value, ...}, with these fields of its payload.
local function reply_record(r, payload_fields)
  local reply, stored, changed = nil, r.flat, r.changed
  if next(changed) == nil and not r.is_payload_inside and #stored <= 1000 then
    reply = { r.id, unpack(stored) }
  else
    reply = { r.id }
    for i = 1, #stored, 2 do
      local field = stored[i]
      if not changed[field] and not PAYLOAD_FIELDS[field] then
        reply[#reply + 1] = field
        reply[#reply + 1] = stored[i + 1]
      end
    end
  end
  local last = #reply
  for field in pairs(changed) do
    local value = r[field]
    if value ~= '' and value ~= 0 and not PAYLOAD_FIELDS[field] then
      reply[last + 1], reply[last + 2] = field, text(value)
      last = last + 2
    end
  end
  for _, field in ipairs(payload_fields or {}) do
    local value = payload_of(r, field)
    if value ~= '' then
      reply[last + 1], reply[last + 2] = field, value
      last = last + 2
    end
  end
  return reply
end
