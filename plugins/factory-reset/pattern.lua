-- Factory reset: wipe a device, after a person has agreed.
--
-- A command that can't be taken back. So: somebody is asked for each device, a
-- job of many needs the typed name of the pattern and a word for more than ten,
-- waves are small, and one failure stops the job.
return pattern {
  name = "factory-reset",
  version = "1.0.0",
  api = 1,
  title = "Factory reset",
  summary = "Wipes a device once a person has agreed, and waits until it reports that it is done.",
  author = "Muster",

  needs = { "method:factoryReset", "twin:read", "twin:tags:lifecycle" },

  params = {
    reason = {
      type = "string", minLength = 3, maxLength = 200,
      title = "Reason", description = "Shown to whoever is asked to agree.",
    },
    keep_network = {
      type = "boolean", default = true,
      title = "Keep network settings", description = "Without them the device may not come back by itself.",
    },
    approve = {
      type = "boolean", default = true,
      title = "Ask a person", description = "For each device, before anything happens to it.",
    },
    decide = {
      type = "string", format = "duration", default = "24h",
      title = "Decide within", description = "A device for which nobody has decided by then is left alone.",
    },
    online = {
      type = "string", format = "duration", default = "72h",
      title = "Wait for the device", description = "How long to wait for a device that is not connected.",
    },
    within = {
      type = "string", format = "duration", default = "30m",
      title = "Done within", description = "How long the reset may take.",
    },
    lifecycle = {
      type = "string", pattern = "^[a-z][a-z-]{0,30}$", default = "in-stock",
      title = "Lifecycle after it", description = "Becomes tags.lifecycle.",
    },
  },
  required = { "reason" },

  timeout = "7d",
  conflicts = "reject", -- never behind or beside something else that works on the device
  danger = true,
  most = 10,
  rollout = {
    waves = { { size = "1" }, { size = "5" }, { size = "100%" } },
    parallel = 5,
    timeout = "7d",
    pause = { { share = "1" } },
  },

  run = function(dev, p, ctx)
    local who
    if p.approve then
      ctx:phase("waiting for approval")
      who = ctx:approve("Wipe " .. dev.id .. "? Reason given: " .. p.reason, { timeout = p.decide })
    end

    local before = dev:get("tags.lifecycle")
    local doubtful = false
    dev:tag { lifecycle = "resetting" }
    ctx:defer(function()
      -- Whether it was wiped is the first thing that its next owner asks: what
      -- nobody knows must not look as if nothing had happened.
      dev:tag { lifecycle = doubtful and "reset-uncertain" or before or json.null }
    end)

    ctx:phase("asking")
    local asked, lost = pcall(dev.call, dev, "factoryReset", { id = ctx.id, keepNetwork = p.keep_network },
                              { timeout = "60s", online = p.online })
    if not asked then
      if lost.code ~= "timeout" and lost.code ~= "uncertain" then error(lost) end
      doubtful = true
      ctx:log("no answer (" .. lost.code .. "): its report tells whether it was wiped")
    end

    -- The device reports the id that it was given: that it is this reset, and not
    -- an earlier one, which is done.
    ctx:phase("wiping")
    local told, state = pcall(dev.wait, dev,
      "connected and reported.factoryReset.id == run and reported.factoryReset.status in ['done', 'failed']",
      { run = ctx.id, timeout = p.within })
    if not told then
      doubtful = true -- it may have been wiped, and not have come back
      error(asked and state or lost)
    end
    doubtful = false
    local reset = state.factoryReset
    if reset.status == "failed" then
      error { code = "failed", message = reset.message or "the device could not reset itself" }
    end

    dev:tag { lifecycle = p.lifecycle }
    ctx:event("device.reset", { by = who, reason = p.reason })
    return { approved_by = who }
  end,
}
