-- What merge patches need: is something set already, and how to get back.
local patch = {}

-- Texts, numbers and lists are replaced as a whole; objects are merged member by
-- member.
local function is_object(value)
  return type(value) == "table" and value ~= json.null and #value == 0
end

-- contains reports whether have holds all that want asks for; null asks for
-- nothing to be there.
function patch.contains(have, want)
  if want == json.null then return have == nil or have == json.null end
  if type(want) ~= "table" then return have == want end
  if type(have) ~= "table" or have == json.null then return false end
  if not is_object(want) and #have ~= #want then return false end
  for key, value in pairs(want) do
    if not patch.contains(have[key], value) then return false end
  end
  return true
end

-- back returns the patch that leads back to old once change was merged into it.
function patch.back(old, change)
  if old == nil then return json.null end
  if not is_object(old) or not is_object(change) then return old end
  local undo = {}
  for key, value in pairs(change) do undo[key] = patch.back(old[key], value) end
  return undo
end

return patch
