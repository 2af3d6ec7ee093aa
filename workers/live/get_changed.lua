-- Reads records, but for those that the reader has: of them only the header is looked at.
-- KEYS of an item: vector. ARGV of an item: the first bytes of the record that the reader has, or ''.
-- Answers the record, nil where there is none, 1 where it is the reader's.

local answers = {}
for n = 1, #KEYS do
  local has = ARGV[n]
  if has ~= '' and redis.call('GETRANGE', KEYS[n], 0, #has - 1) == has then
    answers[n] = 1
  else
    answers[n] = redis.call('GET', KEYS[n])
  end
end
return answers
