-- Configure: give a device settings, and see that it has taken them.
--
-- Desired properties are a wish. Whether it came true the device says, by an
-- acknowledgement with the version that it answers. A run that fails leaves no
-- wish behind: what it wrote it takes back, unless somebody wrote over it.
local patch = require "lib.patch"

-- settle waits until the device has answered a version of a section.
local function settle(dev, section, version, within)
  local path = "reported.configuration." .. section
  local state = dev:wait(path .. ".version >= version", { version = version, timeout = within })
  return state.configuration[section], state[section]
end

return pattern {
  name = "configure",
  version = "1.0.0",
  api = 1,
  title = "Configure",
  summary = "Sets a section of the desired properties, waits for the acknowledgement, and takes it back when it is rejected.",
  author = "Muster",

  needs = { "twin:read", "twin:desired" },

  params = {
    section = {
      type = "string", pattern = "^[a-z][A-Za-z0-9]{0,31}$",
      -- What devices report for themselves is not a setting.
      ["not"] = { enum = { "boot", "configuration", "factoryReset", "firmware", "key", "logs", "ping", "sim", "status" } },
      title = "Section", description = "The desired property that holds the settings.",
    },
    settings = {
      type = "object", minProperties = 1, maxProperties = 100,
      title = "Settings", description = "Merged into the section; null removes one.",
    },
    within = {
      type = "string", format = "duration", default = "1h",
      title = "Answer within", description = "How long to wait for the device's answer, its being away included.",
    },
  },
  required = { "section", "settings" },

  timeout = "7d",
  conflicts = "queue",
  rollout = {
    waves = { { size = "1" }, { size = "10%", diverse = true }, { size = "100%" } },
    parallel = 1000,
    timeout = "7d",
    pause = { { share = "5%", least = 20 } },
  },

  run = function(dev, p, ctx)
    local section = p.section
    local old = dev:get("desired." .. section)
    if patch.contains(old, p.settings) and patch.contains(dev:get("reported." .. section), p.settings) then
      return ctx:skip("it has these settings already")
    end
    ctx:keep("old", old == nil and json.null or old) -- what undo needs; nil can't be kept

    ctx:phase("writing")
    local version = dev:desire { [section] = p.settings }
    ctx:defer(function()
      if patch.contains(dev:get("desired." .. section), p.settings) then
        dev:desire { [section] = patch.back(old, p.settings) }
      else
        ctx:log("somebody has changed " .. section .. " meanwhile: it is left as it is")
      end
    end)

    ctx:phase("waiting for the answer")
    local answer, values = settle(dev, section, version, p.within)
    if answer.status ~= "applied" then
      error { code = "rejected", message = answer.message or ("the device answered " .. tostring(answer.status)) }
    end
    -- An answer is a claim; the values that the device reports are the proof.
    if not patch.contains(values, p.settings) then
      error { code = "mismatch", message = "the device says applied, and reports other values", cause = values }
    end
    return { version = version, settings = values }
  end,

  undo = function(dev, p, ctx)
    local old = ctx:kept("old")
    if old == nil then return end -- run had not come to write anything
    if old == json.null then old = nil end
    if not patch.contains(dev:get("desired." .. p.section), p.settings) then
      ctx:log("the settings are not there any more: nothing is to be taken back")
      return
    end
    ctx:phase("taking back")
    local version = dev:desire { [p.section] = patch.back(old, p.settings) }
    -- Nobody can answer a section that is gone.
    if old ~= nil then settle(dev, p.section, version, p.within) end
  end,
}
