-- Release: let a device out of quarantine, and look after it for a while.
--
-- If it does not come back, or comes back sick, it goes into quarantine again:
-- a run that fails leaves the fleet as safe as it was.
return pattern {
  name = "release",
  version = "1.0.0",
  api = 1,
  title = "Release from quarantine",
  summary = "Enables a device again, waits for it to connect, and asks for its health.",
  author = "Muster",

  needs = { "identity:disable", "method:healthCheck", "twin:read" },

  params = {
    within = {
      type = "string", format = "duration", default = "1h",
      title = "Back within", description = "How long the device may take to connect.",
    },
    probe = {
      type = "boolean", default = true,
      title = "Ask for its health", description = "Calls healthCheck once it is back.",
    },
  },

  timeout = "2d",
  conflicts = "queue",
  rollout = {
    waves = { { size = "1" }, { size = "10%" }, { size = "100%" } },
    parallel = 50,
    timeout = "2d",
    pause = { { share = "20%", least = 5 } },
  },

  check = function(dev, p)
    if dev:get("tags.quarantine") == nil then return "it is not in quarantine" end
  end,

  run = function(dev, p, ctx)
    if dev:get("tags.quarantine") == nil then
      return ctx:skip("it is not in quarantine")
    end

    ctx:phase("releasing")
    dev:release()
    -- From here on a failure, or a cancel, shuts the device out again. Functions
    -- that were handed to defer do not run when all went well.
    ctx:defer(function() dev:quarantine("the release failed") end)

    ctx:phase("waiting for it")
    dev:wait_online { timeout = p.within }

    if p.probe then
      ctx:phase("probing")
      local health = dev:call("healthCheck", {}, { timeout = "30s", online = "10m", retry = 2, idempotent = true })
      if not health.healthy then
        error { code = "unhealthy", message = "it came back sick, and is in quarantine again", cause = health.checks }
      end
    end
    return { released = true }
  end,

  undo = function(dev, p, ctx)
    dev:quarantine("its release was taken back")
  end,
}
