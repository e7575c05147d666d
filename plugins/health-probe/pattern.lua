-- Health probe: look at a device several times before calling it well.
--
-- One look is luck: a device that restarts every other minute is well in between.
-- What was found becomes a tag, so that queries, conditions and other rollouts
-- can use it.
return pattern {
  name = "health-probe",
  version = "1.0.0",
  api = 1,
  title = "Health probe",
  summary = "Asks a device for its health several times, and notes the verdict as tags.probe.",
  author = "Muster",

  needs = { "method:healthCheck", "twin:tags:probe" },

  params = {
    samples = {
      type = "integer", minimum = 1, maximum = 20, default = 3,
      title = "Samples", description = "How many looks are taken.",
    },
    every = {
      type = "string", format = "duration", default = "10s",
      title = "Every", description = "Time between two looks.",
    },
    tolerate = {
      type = "integer", minimum = 0, maximum = 19, default = 0,
      title = "Tolerated", description = "How many looks may be bad, or without an answer.",
    },
    online = {
      type = "string", format = "duration", default = "10m",
      title = "Wait for the device", description = "How long to wait for a device that is not connected.",
    },
  },

  timeout = "2d",
  conflicts = "share", -- it only looks
  rollout = { parallel = 500, timeout = "2d" },

  run = function(dev, p, ctx)
    local bad, last = 0, nil
    for sample = 1, p.samples do
      if sample > 1 then ctx:sleep(p.every) end
      ctx:phase("probing")
      ctx:progress((sample - 1) / p.samples, string.format("look %d of %d", sample, p.samples))

      local answered, answer = pcall(dev.call, dev, "healthCheck", { look = sample },
        { timeout = "20s", online = p.online, retry = 1, idempotent = true })
      -- A cancelled run must end: do not take that for a bad look.
      if not answered and answer.code == "canceled" then error(answer) end
      if not answered then
        bad, last = bad + 1, { error = answer.code, message = answer.message }
      elseif not answer.healthy then
        bad, last = bad + 1, { checks = answer.checks }
      end
      if bad > p.tolerate then break end -- more looks would not change the verdict
    end

    local healthy = bad <= p.tolerate
    dev:tag { probe = { healthy = healthy, bad = bad, at = ctx:now() } }
    if not healthy then
      error { code = "unhealthy", message = string.format("%d looks were bad, %d are tolerated", bad, p.tolerate), cause = last }
    end
    return { healthy = true, bad = bad }
  end,
}
