-- What happens between download and confirmation.
local trial = {}

-- restore is the patch that brings the desired firmware back to what it was.
function trial.restore(wish)
  if wish == nil then return json.null end
  local patch = { job = json.null, version = json.null, url = json.null, sha256 = json.null }
  for key, value in pairs(wish) do patch[key] = value end
  return patch
end

-- follow waits from state to state, each a phase, until the device tries the new
-- slot or has given up. It returns what the device reports of its firmware.
function trial.follow(dev, ctx, within)
  local state, fw = "", nil
  repeat
    fw = dev:wait("reported.firmware.job == run and reported.firmware.state != state",
                  { run = ctx.id, state = state, timeout = within }).firmware
    state = fw.state
    ctx:phase(state)
  until state == "trying" or state == "failed" or state == "good"
  return fw
end

-- sick says what speaks against the new firmware; nil: nothing does.
function trial.sick(dev, ctx, boots, probe)
  -- A hub that has just started sees nobody for a moment, and so does one whose
  -- network was away: that is no sign against the device. Give it time.
  local there, away = pcall(dev.wait_online, dev, { timeout = "5m" })
  if not there then
    if away.code == "canceled" then error(away) end
    return { code = "offline", message = "it is not connected at the end of the trial" }
  end
  local now = dev:get("reported.boot.count")
  if boots ~= nil and now ~= nil and now > boots then
    return { code = "restarts", message = string.format("it restarted %d times in the trial", now - boots) }
  end
  if not probe then return nil end
  -- An answer that got lost is no illness. To look again is a step of its own, and
  -- not a repetition: each step's call is made once.
  local answered, health
  for look = 1, 3 do
    if look > 1 then ctx:sleep("10s") end
    answered, health = pcall(dev.call, dev, "healthCheck", { id = ctx.id, look = look }, { timeout = "30s", online = "5m" })
    if answered or health.code ~= "timeout" and health.code ~= "uncertain" then break end
  end
  if not answered then
    if health.code == "canceled" then error(health) end
    return { code = health.code, message = "it does not tell its health (" .. health.code .. ")" }
  end
  if not health.healthy then return { code = "unhealthy", message = "it says that it is not well", checks = health.checks } end
  return nil
end

-- revert sends the device back to the old slot if it is on probation, or always
-- when force says so, and waits until it has come back. It asks at most once: a
-- device on probation that was not reached falls back by itself.
function trial.revert(dev, job, within, force)
  if not force and not (dev:get("reported.firmware.job") == job and dev:get("reported.firmware.state") == "trying") then
    return
  end
  local asked, lost = pcall(dev.call, dev, "firmwareRevert", { job = job }, { timeout = "30s", online = "30m" })
  if not asked and lost.code ~= "timeout" and lost.code ~= "uncertain" then error(lost) end
  local back, late = pcall(dev.wait, dev, "connected and reported.firmware.job == run and reported.firmware.state == 'failed'",
                           { run = job, timeout = within })
  if not back then error(asked and late or lost) end
end

return trial
