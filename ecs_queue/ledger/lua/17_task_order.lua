-- Which of two descriptions of a task is the later one (protocol/task_order.py).

local function status_rank(status)
  return status == '' and 0 or STATUS_RANKS[status] or STATUS_RANKS.RUNNING
end

-- Above 0: the first is later than what is known.
local function compare_observations(version, status, known_version, known_status)
  local rank, known_rank = status_rank(status), status_rank(known_status)
  local has_ended = rank == STATUS_RANKS.STOPPED or known_rank == STATUS_RANKS.STOPPED
  if version > 0 and known_version > 0 and version ~= known_version and not has_ended then
    return version - known_version
  end
  return rank - known_rank
end

-- Whether what ECS shows is of the record's present task, and later than what the record has.
local function is_news(r, launch, arn, version, last_status, started_at, state)
  if r.state ~= 'LAUNCHED' or r.launch ~= tonumber(launch) or r.arn ~= arn then return false end
  local order = compare_observations(version, last_status, r.version, r.last_status or '')
  return order > 0 or (order == 0 and (state ~= '' or (started_at > 0 and r.started_at == 0)))
end
