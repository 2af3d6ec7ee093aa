-- Takes the marks of users whose histories were published; marks those that changed since again.
-- KEYS of a user: taken over, marked, history. ARGV of a user: the user, the published revision
-- (8 bytes, big-endian; zeros: there was no history). A history holds its revision at offset 1.
-- Answers 1 where the history is still the published one, 0 where it is not.

local NONE = string.rep('\0', 8)

local answers = {}
for n = 1, #KEYS / 3 do
  local user = ARGV[2 * n - 1]
  local rev = redis.call('GETRANGE', KEYS[3 * n], 1, 8)
  if rev == '' then rev = NONE end
  local same = rev == ARGV[2 * n]
  if not same then
    redis.call('SADD', KEYS[3 * n - 1], user)
  end
  redis.call('SREM', KEYS[3 * n - 2], user)
  answers[n] = same and 1 or 0
end
return answers
