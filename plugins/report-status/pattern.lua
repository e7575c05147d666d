-- Report status: ask a device how it is, and take its report as the answer.
--
-- Asking changes nothing on the device, so this pattern may ask again by itself:
-- see retry and idempotent below.
return pattern {
  name = "report-status",
  version = "1.0.0",
  api = 1,
  title = "Report status",
  summary = "Asks a device for its status, which it also reports in its twin.",
  author = "Muster",

  needs = { "method:reportStatus", "twin:read" },

  params = {
    online = {
      type = "string", format = "duration", default = "1h",
      title = "Wait for the device", description = "How long to wait for a device that is not connected.",
    },
    within = {
      type = "string", format = "duration", default = "2m",
      title = "Report within", description = "How long its report may take, from its answer on.",
    },
    retries = {
      type = "integer", minimum = 0, maximum = 5, default = 2,
      title = "Ask again", description = "How often a device that did not answer is asked again.",
    },
    expect = {
      type = "string", enum = { "any", "good" }, default = "any",
      title = "Expected health", description = "With good, a device that reports another health has failed.",
    },
  },

  timeout = "2d",
  conflicts = "share", -- it only looks: it may run beside an update
  rollout = { parallel = 1000, timeout = "2d" },

  run = function(dev, p, ctx)
    ctx:phase("asking")
    -- idempotent says: the device may get this twice without harm. Only then does
    -- retry also cover a call of which nobody knows whether it was taken.
    local answered, answer = pcall(dev.call, dev, "reportStatus", { id = ctx.id },
      { timeout = "30s", online = p.online, retry = p.retries, idempotent = p.retries > 0 })
    local lost = not answered and answer or nil
    if lost and lost.code ~= "timeout" and lost.code ~= "uncertain" then error(lost) end

    -- The report in the twin is what queries see, so the run ends with it. It also
    -- settles a call whose answer got lost: the id is this run's.
    ctx:phase("reporting")
    local reported, state = pcall(dev.wait, dev, "reported.status.id == run", { run = ctx.id, timeout = p.within })
    if not reported then error(lost or state) end

    local status = state.status
    if p.expect == "good" and status.health ~= "good" then
      error { code = "unhealthy", message = "the device reports its health as " .. tostring(status.health), cause = status }
    end
    return { health = status.health, version = status.version, uptime = status.uptime }
  end,
}
