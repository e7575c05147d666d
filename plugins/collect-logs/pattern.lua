-- Collect logs: have a device upload its newest log lines.
--
-- A device that takes the command says so at once (202) and reports when the file
-- is there. `muster file list DEVICE` lists what was uploaded.
return pattern {
  name = "collect-logs",
  version = "1.0.0",
  api = 1,
  title = "Collect logs",
  summary = "Has a device upload its newest log lines, and says where they are.",
  author = "Muster",

  needs = { "method:uploadLogs", "twin:read" },

  params = {
    lines = {
      type = "integer", minimum = 1, maximum = 100000, default = 1000,
      title = "Lines", description = "How many of the newest lines.",
    },
    online = {
      type = "string", format = "duration", default = "24h",
      title = "Wait for the device", description = "How long to wait for a device that is not connected.",
    },
    within = {
      type = "string", format = "duration", default = "30m",
      title = "Uploaded within", description = "How long the upload may take.",
    },
    retries = {
      type = "integer", minimum = 0, maximum = 5, default = 2,
      title = "Ask again", description = "How often a device that did not answer is asked again.",
    },
  },

  timeout = "3d",
  conflicts = "share", -- it only looks
  rollout = { parallel = 50, timeout = "3d" }, -- a fleet's logs are much at once

  run = function(dev, p, ctx)
    -- The device knows uploads by their id, so asking twice makes one file.
    ctx:phase("asking")
    local asked, lost = pcall(dev.call, dev, "uploadLogs", { id = ctx.id, lines = p.lines },
      { timeout = "30s", online = p.online, retry = p.retries, idempotent = p.retries > 0 })
    if not asked and lost.code ~= "timeout" and lost.code ~= "uncertain" then error(lost) end

    ctx:phase("uploading")
    local told, state = pcall(dev.wait, dev, "reported.logs.id == run and reported.logs.status in ['uploaded', 'failed']",
                              { run = ctx.id, timeout = p.within })
    if not told then error(asked and state or lost) end
    local logs = state.logs
    if logs.status == "failed" then
      error { code = "upload-failed", message = logs.message or "the device could not upload its logs" }
    end
    return { file = logs.file, size = logs.size }
  end,
}
