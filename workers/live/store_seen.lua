-- Stores what was seen of entities unless something of a greater version was seen already.
-- KEYS of an entity: seen. ARGV of an entity: record, which begins with its version (8 bytes,
-- big-endian). Answers 1 where stored, 0 where the stored version is greater.

local answers = {}
for n = 1, #KEYS do
  local stored = redis.call('GETRANGE', KEYS[n], 0, 7)
  local greater = false
  if stored ~= '' then
    local stored_high, stored_low = struct.unpack('>I4I4', stored)
    local high, low = struct.unpack('>I4I4', ARGV[n])
    greater = stored_high > high or (stored_high == high and stored_low > low)
  end
  if not greater then
    redis.call('SET', KEYS[n], ARGV[n])
  end
  answers[n] = greater and 0 or 1
end
return answers
