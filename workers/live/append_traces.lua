-- Appends lines to traces and keeps the last ones of each for a while.
-- KEYS of a line: trace. ARGV of a line: line, how many to keep, seconds to keep them.
-- Answers 1 for each.

local answers = {}
for n = 1, #KEYS do
  redis.call('RPUSH', KEYS[n], ARGV[3 * n - 2])
  redis.call('LTRIM', KEYS[n], -tonumber(ARGV[3 * n - 1]), -1)
  redis.call('EXPIRE', KEYS[n], ARGV[3 * n])
  answers[n] = 1
end
return answers
