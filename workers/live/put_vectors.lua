-- Writes (or, given '', deletes) vectors unless the stored one was made from a later revision.
-- KEYS of an entity: vector. ARGV of an entity: revision (8 bytes, big-endian), record or '',
-- milliseconds to keep it (0: for good).
-- A record holds its revision at offset 12. Answers 1 where done, 0 where the stored one is later.

local answers = {}
for n = 1, #KEYS do
  local rev, record = ARGV[3 * n - 2], ARGV[3 * n - 1]
  local stored = redis.call('GETRANGE', KEYS[n], 12, 19)
  local later = false
  if stored ~= '' then
    local stored_high, stored_low = struct.unpack('>I4I4', stored)
    local high, low = struct.unpack('>I4I4', rev)
    later = stored_high > high or (stored_high == high and stored_low > low)
  end
  if not later then
    if record == '' then
      redis.call('DEL', KEYS[n])
    elseif ARGV[3 * n] == '0' then
      redis.call('SET', KEYS[n], record)
    else
      redis.call('SET', KEYS[n], record, 'PX', ARGV[3 * n])
    end
  end
  answers[n] = later and 0 or 1
end
return answers
