-- Takes over the marked members of sets, unless an earlier taking over is not finished yet.
-- KEYS of a pair: marked, taken over. ARGV: none.
-- Answers 1 where something is taken over now, 0 where nothing was marked.

local answers = {}
for n = 1, #KEYS / 2 do
  local marked, taken = KEYS[2 * n - 1], KEYS[2 * n]
  local found = redis.call('EXISTS', taken)
  if found == 0 and redis.call('EXISTS', marked) == 1 then
    redis.call('RENAME', marked, taken)
    found = 1
  end
  answers[n] = found
end
return answers
