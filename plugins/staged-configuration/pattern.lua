-- Staged configuration: a few devices first, a look at their health, then all.
--
-- Where configure trusts each device's word, this one watches: the device has to
-- stay well for a while, and between waves the gate looks at all that have the
-- settings by then. When a canary falls ill, everybody gets the old settings back.
local patch = require "lib.patch"

-- settle waits until the device has answered a version of a section.
local function settle(dev, section, version, within)
  local path = "reported.configuration." .. section
  local state = dev:wait(path .. ".version >= version", { version = version, timeout = within })
  return state.configuration[section]
end

return pattern {
  name = "staged-configuration",
  version = "1.0.0",
  api = 1,
  title = "Configuration with canary",
  summary = "Spreads settings in waves, looks at health between them, and takes all back when canaries fall ill.",
  author = "Muster",

  needs = { "method:healthCheck", "twin:read", "twin:desired" },

  params = {
    section = {
      type = "string", pattern = "^[a-z][A-Za-z0-9]{0,31}$",
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
    watch = {
      type = "string", format = "duration", default = "2m",
      title = "Watch for", description = "How long the device must be well with the settings.",
    },
  },
  required = { "section", "settings" },

  timeout = "7d",
  conflicts = "queue",
  rollout = {
    waves = {
      { size = "2", diverse = true, soak = "1m" },
      { size = "10%", diverse = true, soak = "1m" },
      { size = "100%" },
    },
    parallel = 500,
    timeout = "7d",
    pause = { { share = "5%", least = 20 } },
  },

  run = function(dev, p, ctx)
    local section = p.section
    local old = dev:get("desired." .. section)
    if patch.contains(old, p.settings) then
      return ctx:skip("it has these settings already")
    end
    ctx:keep("old", old == nil and json.null or old)

    ctx:phase("writing")
    local version = dev:desire { [section] = p.settings }
    ctx:defer(function()
      if patch.contains(dev:get("desired." .. section), p.settings) then
        dev:desire { [section] = patch.back(old, p.settings) }
      end
    end)

    ctx:phase("waiting for the answer")
    local answer = settle(dev, section, version, p.within)
    if answer.status ~= "applied" then
      error { code = "rejected", message = answer.message or ("the device answered " .. tostring(answer.status)) }
    end

    ctx:phase("watching")
    ctx:sleep(p.watch)
    local health = dev:call("healthCheck", {}, { timeout = "30s", online = "30m", retry = 2, idempotent = true })
    if not health.healthy then
      error { code = "unhealthy", message = "the device fell ill with the settings", cause = health.checks }
    end
    return { version = version }
  end,

  -- Called once before each further wave. run:count counts among the devices that
  -- this job has reached; wave says how its runs ended.
  gate = function(run, wave, ctx)
    local sick = run:count("reported.health == 'bad' or reported.status.health == 'bad'")
    if sick > 0 then return "undo", sick .. " of the devices reached so far report bad health" end
    if wave.failed > 0 and wave.number == 1 then
      return "undo", wave.failed .. " of " .. wave.size .. " canaries failed"
    end
    if wave.uncertain > 0 then return "pause", wave.uncertain .. " runs of the wave are uncertain" end
    return "go"
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
    if old ~= nil then settle(dev, p.section, version, p.within) end
  end,
}
