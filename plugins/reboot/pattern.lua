-- Reboot: ask a device to restart, and see that it came back.
--
-- The shortest complete pattern, and a good one to copy. What to look at:
--   * the evidence is noted before the command is given (boot.count);
--   * a command whose answer got lost is never simply given again: the twin is
--     asked first whether it took effect;
--   * everything that waits has an end.
return pattern {
  name = "reboot",
  version = "1.0.0",
  api = 1,
  title = "Reboot",
  summary = "Asks a device to restart, and waits until it has reported a new boot.",
  author = "Muster",

  -- What the hub lets this program do, and nothing else. Whoever installs it sees
  -- this list.
  needs = { "method:reboot", "twin:read" },

  -- Each parameter is a field of a form, a flag of the command line and a check
  -- of what the API is given.
  params = {
    delay = {
      type = "integer", minimum = 0, maximum = 3600, default = 0,
      title = "Delay in seconds", description = "How long the device waits before it restarts.",
    },
    online = {
      type = "string", format = "duration", default = "1h",
      title = "Wait for the device", description = "How long to wait for a device that is not connected.",
    },
    within = {
      type = "string", format = "duration", default = "10m",
      title = "Back within", description = "How long the restart may take, from when it begins.",
    },
  },

  timeout = "3d",
  conflicts = "queue", -- an update that is under way on the device ends first

  -- How a job over many devices goes unless it says otherwise: one, a tenth, all;
  -- it stops itself when a tenth of a wave did not come back.
  rollout = {
    waves = { { size = "1" }, { size = "10%", diverse = true }, { size = "100%" } },
    parallel = 500,
    timeout = "3d",
    pause = { { share = "10%", least = 10 } },
  },

  run = function(dev, p, ctx)
    local before = dev:get("reported.boot.count", 0)

    ctx:phase("asking")
    local asked, lost = pcall(dev.call, dev, "reboot", { id = ctx.id, delay = p.delay },
                              { timeout = "30s", online = p.online })
    if not asked then
      -- Two errors leave open whether the device took the command: "timeout", no
      -- answer came, and "uncertain", the hub or the connection went away between
      -- command and answer. All others are sure: it did not.
      if lost.code ~= "timeout" and lost.code ~= "uncertain" then error(lost) end
      ctx:log("no answer (" .. lost.code .. "): whether it restarts, its next boot tells")
    end

    ctx:phase("rebooting")
    if p.delay > 0 then ctx:sleep(p.delay .. "s") end
    local back, late = pcall(dev.wait, dev, "connected and reported.boot.count > before",
                             { before = before, timeout = p.within })
    if not back then
      -- Nothing speaks for a restart. If it was never certain that the device was
      -- asked, that is what an operator has to know.
      error(asked and late or lost)
    end
    return { boots = late.boot.count, reason = late.boot.reason }
  end,
}
