-- Writes documents together with their vectors, each if its condition on the revision holds.
-- A stored document begins with its revision: 8 bytes, big-endian; none stored counts as zero.
-- KEYS of an entity: document, its vectors to write, its vectors to delete.
-- ARGV of an entity: expected revision (8 bytes; '' for: any below the new one; '=' for: any not
--                    above it), new document, number of vectors to write, number to delete, the
--                    vectors to write.
-- Answers 1 where written, 0 where the condition did not hold.

local NONE = string.rep('\0', 8)

-- Two unsigned halves: a Lua number is a double and would round beyond 2^53. Comparing the strings
-- themselves would depend on the server's locale.
local function below(a, b)
  local a_high, a_low = struct.unpack('>I4I4', a)
  local b_high, b_low = struct.unpack('>I4I4', b)
  return a_high < b_high or (a_high == b_high and a_low < b_low)
end

local answers = {}
local key, arg = 1, 1
while key <= #KEYS do
  local expected, document = ARGV[arg], ARGV[arg + 1]
  local writes, deletes = tonumber(ARGV[arg + 2]), tonumber(ARGV[arg + 3])
  local stored = redis.call('GETRANGE', KEYS[key], 0, 7)
  if stored == '' then stored = NONE end
  local holds
  if expected == '' then
    holds = below(stored, string.sub(document, 1, 8))
  elseif expected == '=' then
    holds = not below(string.sub(document, 1, 8), stored)
  else
    holds = stored == expected
  end
  if holds then
    redis.call('SET', KEYS[key], document)
    for n = 1, writes do
      redis.call('SET', KEYS[key + n], ARGV[arg + 3 + n])
    end
    for n = writes + 1, writes + deletes do
      redis.call('DEL', KEYS[key + n])
    end
  end
  answers[#answers + 1] = holds and 1 or 0
  key = key + 1 + writes + deletes
  arg = arg + 4 + writes
end
return answers
