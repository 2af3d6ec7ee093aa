-- Deletes entities, each with everything that is kept of it, if its revision is the expected one.
-- No document stored counts as any revision: what is left of such an entity goes.
-- KEYS of an entity: document, then the others. ARGV of an entity: expected revision (8 bytes,
-- big-endian), number of the others.
-- Answers 1 where deleted, 0 where another revision is stored.

local answers = {}
local key = 1
for n = 1, #ARGV / 2 do
  local others = tonumber(ARGV[2 * n])
  local stored = redis.call('GETRANGE', KEYS[key], 0, 7)
  local holds = stored == '' or stored == ARGV[2 * n - 1]
  if holds then
    for k = key, key + others do
      redis.call('UNLINK', KEYS[k])
    end
  end
  answers[n] = holds and 1 or 0
  key = key + 1 + others
end
return answers
