-- Stores settled offsets if the view is still the one they were settled in.
-- KEYS: view, checkpoint. ARGV: the view's stamp, then fields and values.
-- Answers 1 where stored, 0 where the view bears another stamp, or none.

if redis.call('HGET', KEYS[1], 'stamp') ~= ARGV[1] then return {0} end
redis.call('HSET', KEYS[2], unpack(ARGV, 2))
return {1}
