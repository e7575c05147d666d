-- Firmware update with two slots: download, verify, write the idle slot, try it,
-- then keep it or go back.
--
-- The device does the work and says how far it is; this program decides. Up to
-- the trial nothing is at stake, as the running slot is not touched. After it the
-- device runs the new firmware on probation: only the confirmation makes that
-- last, and without one the old slot comes back.

local trial = require "lib.trial"

return pattern {
  name = "firmware-update",
  version = "1.0.0",
  api = 1,
  title = "Firmware update",
  summary = "Has a device download, verify and try new firmware, and keeps it or falls back by its health.",
  author = "Muster",

  needs = {
    "twin:read", "twin:desired:firmware",
    "method:firmwareConfirm", "method:firmwareRevert", "method:healthCheck",
  },

  params = {
    version = {
      type = "string", pattern = "^[0-9A-Za-z][0-9A-Za-z.+-]{0,63}$",
      title = "Version", description = "What the device reports once it runs it.",
    },
    url = {
      type = "string", format = "uri", maxLength = 2000,
      title = "URL", description = "Where devices find the image.",
    },
    sha256 = {
      type = "string", pattern = "^[0-9a-zA-Z]{8,64}$",
      title = "SHA-256", description = "Of the image, in hex: a device refuses another.",
    },
    download = {
      type = "string", format = "duration", default = "6h",
      title = "Download within", description = "Time up to the trial, the device's being away included.",
    },
    restart = {
      type = "string", format = "duration", default = "15m",
      title = "Back within", description = "How long the restart into the other slot may take.",
    },
    soak = {
      type = "string", format = "duration", default = "5m",
      title = "Watch for", description = "How long the new firmware must be well before it is kept.",
    },
    probe = {
      type = "boolean", default = true,
      title = "Ask for its health", description = "Calls healthCheck at the end of that time.",
    },
    retries = {
      type = "integer", minimum = 0, maximum = 5, default = 3,
      title = "Confirm again", description = "How often a confirmation without an answer is repeated; devices take it twice without harm.",
    },
  },
  required = { "version", "url", "sha256" },

  applies = "reported.firmware.slots == 2",
  timeout = "14d",
  conflicts = "queue",
  rollout = {
    waves = {
      { size = "1", soak = "10m" },
      { size = "10%", diverse = true, soak = "30m" },
      { size = "100%" },
    },
    parallel = 200,
    timeout = "14d",
    pause = { { share = "5%", least = 20 } },
    abort = { { share = "20%", least = 20, per = "job" } },
  },

  check = function(dev, p)
    if dev:get("reported.firmware.version") == p.version then return "it runs " .. p.version .. " already" end
  end,

  run = function(dev, p, ctx)
    local old = dev:get("reported.firmware", {})
    if old.version == p.version and old.state ~= "trying" then
      return ctx:skip("it runs " .. p.version .. " already")
    end
    ctx:keep("old", { version = old.version, slot = old.slot })
    local wish = dev:get("desired.firmware")
    local kept, doubtful = false, false

    -- A command that can't be repeated is given in one place, and at most once.
    local going_back = false
    local function go_back()
      if going_back then return end
      going_back = true
      trial.revert(dev, ctx.id, p.restart)
    end

    ctx:phase("downloading")
    ctx:follow("reported.firmware.percent") -- the device's own percentage is the run's progress
    dev:desire { firmware = { job = ctx.id, version = p.version, url = p.url, sha256 = p.sha256 } }
    ctx:defer(function()
      if kept then return end
      -- The wish goes first: a device that has not begun must not begin now.
      if dev:get("desired.firmware.job") == ctx.id then
        dev:desire { firmware = trial.restore(wish) }
      end
      -- A confirmation of which nobody knows whether it was taken is not followed
      -- by a command to go back: that is for whoever looks at the device.
      if not doubtful then go_back() end
    end)

    -- Each state that the device reports is a phase of the run, so that
    -- `SELECT phase, COUNT() ...` shows where a fleet is.
    local fw = trial.follow(dev, ctx, p.download)
    if fw.state == "failed" then
      error { code = "rejected", message = fw.message or "the device could not install it" }
    end

    ctx:phase("trying")
    local boots = dev:wait("connected and reported.firmware.version == version and reported.firmware.job == run",
                           { version = p.version, run = ctx.id, timeout = p.restart }).boot
    ctx:sleep(p.soak)

    local sick = trial.sick(dev, ctx, boots and boots.count, p.probe)
    if sick then
      ctx:phase("rolling back")
      local went, stuck = pcall(go_back)
      if not went then
        -- What the device does is not known for sure, or it refuses: somebody has
        -- to look at it. "uncertain" stays what it is.
        if stuck.code == "canceled" or stuck.code == "uncertain" then error(stuck) end
        error { code = "stuck", message = "the trial failed (" .. sick.message .. "), and it does not go back: " .. stuck.message, cause = sick }
      end
      error { code = "rolled-back", message = "the trial of " .. p.version .. " failed: " .. sick.message, cause = sick }
    end

    ctx:phase("confirming")
    local confirmed, lost = pcall(dev.call, dev, "firmwareConfirm", { job = ctx.id },
      { timeout = "30s", online = "30m", retry = p.retries, idempotent = p.retries > 0 })
    if not confirmed and lost.code ~= "timeout" and lost.code ~= "uncertain" then error(lost) end
    local settled, state = pcall(dev.wait, dev,
      "reported.firmware.job == run and reported.firmware.state == 'good'", { run = ctx.id, timeout = p.restart })
    if not settled then
      doubtful = not confirmed
      error(confirmed and state or lost)
    end
    kept = true
    return { version = state.firmware.version, slot = state.firmware.slot }
  end,

  -- The other slot still holds what ran before.
  undo = function(dev, p, ctx)
    local old = ctx:kept("old")
    if old == nil or dev:get("reported.firmware.version") ~= p.version then return end
    ctx:phase("going back to " .. tostring(old.version))
    dev:desire { firmware = json.null }
    trial.revert(dev, dev:get("reported.firmware.job", ctx.id), p.restart, true)
    dev:wait("connected and reported.firmware.version == version", { version = old.version, timeout = p.restart })
  end,
}
