-- What scripts that read a history share. KEYS: 1 history list, newest first.

-- How many entries are looked at together.
local CHUNK = 32

-- The number of an entry; nil for what another program wrote.
local function number(entry)
  local seq = entry and tonumber(string.match(entry, '"seq":(%d+)}$') or nil)
  return seq and seq < 9007199254740991 and seq or nil
end

-- The number at a place of the list; nil beyond its end and for what another program wrote.
local function number_at(place)
  return number(redis.call('LINDEX', KEYS[1], place))
end

-- The entries from one place to another, newest first; the oldest of them that have no more than so many bytes together,
-- but one at least.
local function slice(first, last, bytes)
  local kept, taken = {}, 0
  while last >= first and taken <= bytes do
    local chunk = redis.call('LRANGE', KEYS[1], math.max(last - CHUNK + 1, first), last)
    for place = #chunk, 1, -1 do
      taken = taken + #chunk[place]
      if taken > bytes and #kept > 0 then break end
      table.insert(kept, chunk[place])
    end
    last = last - CHUNK
  end
  local newest_first = {}
  for place = #kept, 1, -1 do table.insert(newest_first, kept[place]) end
  return newest_first
end
