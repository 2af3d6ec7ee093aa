-- Joins histories with what is given, as History.join in schemas/history.py defines it.
-- A history: format (u8), rev (i64), erased at (i64), time of the last entry (i64), number of
-- entries (u16), entries in the last one's minute (u16), all big-endian; then entries, ascending:
-- at ms (i64), event id (8 bytes), value (f32), length of the action, of the item (u8 each), both.
-- KEYS of a user: history and, with two keys each, the set in which changed users are marked.
-- ARGV of all: keys of a user, entries kept, of them per minute, ms to keep a history, ms to keep
-- one with an erasure. ARGV of a user: what is given, as a history whose entries are distinct; its
-- rev is 0 for events, or that of a published history.
-- Answers the history, 1 where it changed, and how many entries the bound per minute let go.

local KEYS_EACH = tonumber(ARGV[1])
local MAX_EVENTS, MAX_PER_MINUTE = tonumber(ARGV[2]), tonumber(ARGV[3])
local TTL, MARK_TTL = ARGV[4], ARGV[5]
local SHARED = 5
local FORMAT, HEADER, ENTRY = 1, 29, 22
local MINUTE_MS = 60000
local NEVER = -1

local byte, find, sub = string.byte, string.find, string.sub
local pack, unpack = struct.pack, struct.unpack
local floor, max, min = math.floor, math.max, math.min

local time = redis.call('TIME')
local NOW_MS = tonumber(time[1]) * 1000 + floor(tonumber(time[2]) / 1000)

-- Whole numbers up to 2^53 are exact in a double; times and revisions in ms are far below.
local function header(blob)
  local format, rev, erased, newest, count, in_last = unpack('>Bi8i8i8I2I2', blob)
  return {rev = rev, erased = erased, newest = newest, count = count, in_last = in_last}
end

-- The offset after the entry at `from`.
local function after(blob, from)
  local action, item = byte(blob, from + 20, from + 21)
  return from + ENTRY + action + item
end

-- Where the entries of a history begin, and behind them where it ends; nil where the bytes do not
-- end where the last entry does.
local function entries(blob, count)
  local starts, from, size = {}, HEADER + 1, #blob
  for n = 1, count do
    if from + ENTRY - 1 > size then return nil end
    starts[n] = from
    local action, item = byte(blob, from + 20, from + 21)
    from = from + ENTRY + action + item
  end
  if from ~= size + 1 then return nil end
  starts[count + 1] = from
  return starts
end

local function time_at(blob, starts, n)
  return n > 0 and unpack('>i8', blob, starts[n]) or NEVER
end

-- How many entries lie before a time: they ascend.
local function before(blob, starts, count, at)
  local low, high = 0, count
  while low < high do
    local middle = floor((low + high + 1) / 2)
    if time_at(blob, starts, middle) < at then low = middle else high = middle - 1 end
  end
  return low
end

-- Byte by byte: comparing strings would depend on the server's locale.
local function greater(a, b)
  for n = 1, min(#a, #b) do
    local x, y = byte(a, n), byte(b, n)
    if x ~= y then return x > y end
  end
  return #a > #b
end

-- The usual case, whose cost is that of copying: events after all that are stored, with ids that
-- are new, and no minute full. Nil where it is not the case.
local function appended(stored, old, given, new)
  if new.count == 0 or new.count > MAX_EVENTS or new.erased > old.erased then return nil end
  local from, minute, in_minute = HEADER + 1, floor(old.newest / MINUTE_MS), old.in_last
  for n = 1, new.count do
    local at = unpack('>i8', given, from)
    if n == 1 and (at <= old.newest or at <= old.erased) then return nil end
    if floor(at / MINUTE_MS) ~= minute then
      minute, in_minute = floor(at / MINUTE_MS), 0
    end
    in_minute = in_minute + 1
    if in_minute > MAX_PER_MINUTE or find(stored, sub(given, from + 8, from + 15), 1, true) then
      return nil
    end
    from = after(given, from)
  end
  local kept = HEADER + 1
  for _ = 1, old.count + new.count - MAX_EVENTS do
    kept = after(stored, kept)
  end
  local count = min(old.count + new.count, MAX_EVENTS)
  return {
    erased = old.erased, newest = new.newest, count = count, in_last = min(in_minute, count),
    body = sub(stored, kept) .. sub(given, HEADER + 1), limited = 0, grown = true,
  }
end

-- The general case: both lists from their ends, greatest entry first. Minutes without anything new
-- stay as they are, so those after all that is given, and those before, are taken as a whole.
local function joined(stored, old, given, new)
  local a_starts = entries(stored, old.count)
  if not a_starts then return nil end
  local b_starts = entries(given, new.count)
  local erased = max(old.erased, new.erased)
  local a, b = old.count, new.count
  local pieces, kept, limited = {}, 0, 0
  local newest, in_last = NEVER, 0
  local minute, in_minute, seen = nil, 0, {}
  local whole = erased == old.erased and old.count <= MAX_EVENTS
  if whole then
    a = before(stored, a_starts, a, (floor(new.newest / MINUTE_MS) + 1) * MINUTE_MS)
    kept = old.count - a
    if kept > 0 then
      pieces[1] = sub(stored, a_starts[a + 1])
      newest, in_last = old.newest, old.in_last
    end
  end
  local a_at, b_at = time_at(stored, a_starts, a), time_at(given, b_starts, b)
  while kept < MAX_EVENTS and (a > 0 or b > 0) do
    if max(a_at, b_at) <= erased then break end
    if whole and b == 0 and floor(a_at / MINUTE_MS) ~= minute then
      local first = max(a - (MAX_EVENTS - kept), 0) + 1
      pieces[#pieces + 1] = sub(stored, a_starts[first], a_starts[a + 1] - 1)
      kept = kept + a - first + 1
      break
    end
    local a_entry = a_at >= b_at and sub(stored, a_starts[a], a_starts[a + 1] - 1)
    local b_entry = b_at >= a_at and sub(given, b_starts[b], b_starts[b + 1] - 1)
    local entry, at
    if a_entry and not (b_entry and greater(b_entry, a_entry)) then
      entry, at, a = a_entry, a_at, a - 1
      a_at = time_at(stored, a_starts, a)
    else
      entry, at, b = b_entry, b_at, b - 1
      b_at = time_at(given, b_starts, b)
    end
    if floor(at / MINUTE_MS) ~= minute then
      minute, in_minute, seen = floor(at / MINUTE_MS), 0, {}
    end
    local id = sub(entry, 9, 16)
    if not seen[id] then
      seen[id] = true
      in_minute = in_minute + 1
      if in_minute <= MAX_PER_MINUTE then
        kept = kept + 1
        pieces[#pieces + 1] = entry
        if newest == NEVER then newest = at end
        if minute == floor(newest / MINUTE_MS) then in_last = in_minute end
      else
        limited = limited + 1
      end
    end
  end
  local count = #pieces
  for n = 1, floor(count / 2) do
    pieces[n], pieces[count + 1 - n] = pieces[count + 1 - n], pieces[n]
  end
  return {
    erased = erased, newest = newest, in_last = in_last, count = kept,
    body = table.concat(pieces), limited = limited,
  }
end

local EMPTY = pack('>Bi8i8i8I2I2', FORMAT, 0, NEVER, NEVER, 0, 0)

local answers = {}
for n = 1, #ARGV - SHARED do
  local key = KEYS_EACH * (n - 1) + 1
  local given, stored = ARGV[SHARED + n], redis.call('GET', KEYS[key]) or EMPTY
  local join, old, new
  -- What does not decode is left for the caller to find.
  if #stored >= HEADER and byte(stored) == FORMAT then
    old, new = header(stored), header(given)
    join = appended(stored, old, given, new) or joined(stored, old, given, new)
  end
  if not join then
    answers[n] = {stored, 0, 0}
  else
    local is_old = not join.grown and join.erased == old.erased
      and join.body == sub(stored, HEADER + 1)
    if is_old and old.rev >= new.rev then
      answers[n] = {stored, 0, join.limited}
    else
      local rev = max(max(old.rev, new.rev) + 1, NOW_MS)
      if new.rev > old.rev and join.erased == new.erased
          and join.body == sub(given, HEADER + 1) then
        rev = new.rev
      end
      local history = pack(
        '>Bi8i8i8I2I2', FORMAT, rev, join.erased, join.newest, join.count, join.in_last
      ) .. join.body
      if KEYS_EACH == 2 then
        redis.call('SADD', KEYS[key + 1], string.match(KEYS[key], '{(.*)}$'))
      end
      local ttl = join.erased == NEVER and TTL or MARK_TTL
      redis.call('SET', KEYS[key], history, 'PX', ttl)
      answers[n] = {history, 1, join.limited}
    end
  end
end
return answers
