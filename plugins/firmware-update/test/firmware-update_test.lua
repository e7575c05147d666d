local ask = { version = "2.1.0", url = "https://files.example/fw-2.1.0.bin", sha256 = "9f2c41aa" }

-- A device with two slots. odd changes how it behaves:
--   broken    the image is not what its sum says
--   lost      it does not come back from the restart
--   restarts  it restarts in its trial
--   healthy   what healthCheck says
--   mute      confirmations are taken, and their answers get lost
--   deaf      confirmations are neither taken nor answered
local function device(t, odd)
  odd = odd or {}
  local d = t:device {
    reported = { boot = { count = 1 }, firmware = { version = "2.0.0", slot = "a", slots = 2, state = "good" } },
  }
  local boots = 1
  local function boot(firmware)
    boots = boots + 1
    d:report { boot = { count = boots }, firmware = firmware }
  end
  d:on_desired("firmware", function(fw)
    if fw == nil then return end
    local function say(after, report)
      d:after(after, function()
        if d.desired.firmware and d.desired.firmware.job == fw.job then report.job = fw.job d:report { firmware = report } end
      end)
    end
    say("1s", { state = "downloading", percent = 0 })
    say("30s", { state = "downloading", percent = 50 })
    say("1m", { state = "verifying", percent = 100 })
    if odd.broken then return say("70s", { state = "failed", message = "another sum" }) end
    say("2m", { state = "applying" })
    d:after("3m", function()
      if not (d.desired.firmware and d.desired.firmware.job == fw.job) then return end
      if odd.lost then
        d:report { firmware = { job = fw.job, state = "trying" } }
        return d:offline()
      end
      d:drop("30s")
      d:after("31s", function() boot { job = fw.job, state = "trying", version = fw.version, slot = "b" } end)
      if odd.restarts then d:after("2m", boot) end
    end)
  end)
  d:on_method("healthCheck", function() return { healthy = odd.healthy ~= false, checks = { sensor = "bad" } }, 200 end)
  d:on_method("firmwareConfirm", function(p)
    if not odd.deaf then d:after("1s", function() d:report { firmware = { job = p.job, state = "good" } } end) end
    return 200
  end, { never = odd.mute or odd.deaf })
  d:on_method("firmwareRevert", function(p)
    d:after("1s", function() d:drop("20s") end)
    d:after("25s", function() d:report { firmware = { job = p.job, state = "failed", version = "2.0.0", slot = "a" } } end)
    return 200
  end, { never = odd.mute })
  return d
end

test("keeps what is well", function(t)
  local d = device(t)
  t:uncertain("succeeded", "uncertain", "failed")
  local r = t:run(ask)
  t:equal(r.state, "succeeded")
  t:equal(r.result, { version = "2.1.0", slot = "b" })
  t:equal(r.phases, { "downloading", "verifying", "applying", "trying", "confirming" })
  t:equal(r.follow, "reported.firmware.percent")
  t:equal(d.calls, { "healthCheck", "firmwareConfirm" })
  t:equal(d.desired.firmware.version, "2.1.0")
end)

test("applies to devices with two slots", function(t)
  local d, single = device(t), t:device { reported = { firmware = { version = "1" } } }
  t:equal(t:applies(d), true)
  t:equal(t:applies(single), false)
end)

test("has it already", function(t)
  local d = t:device { reported = { firmware = { version = "2.1.0", slots = 2, state = "good" } } }
  t:matches(t:check(ask), "already")
  t:equal(t:run(ask).state, "skipped")
  t:equal(d.desired, {})
end)

test("one that has another is taken", function(t)
  device(t)
  t:equal(t:check(ask), nil)
end)

test("an image with another sum", function(t)
  local d = device(t, { broken = true })
  local r = t:run(ask)
  t:equal(r.state, "failed")
  t:equal(r.error.code, "rejected")
  t:equal(r.error.message, "another sum")
  t:equal(d.desired.firmware, nil)
  t:equal(d.calls, {})
end)

test("a device that is away takes it later", function(t)
  local d = device(t)
  d:offline()
  d:after("2h", function() d:online() end)
  t:equal(t:run(ask).state, "succeeded")
end)

test("a device that stays away: the wish is taken back", function(t)
  local d = device(t)
  d:offline()
  local r = t:run(ask)
  t:equal(r.error.code, "timeout")
  t:equal(d.desired.firmware, nil)
  d:online()
  t:advance("1h")
  t:equal(d.reported.firmware.version, "2.0.0")
end)

test("an older wish comes back", function(t)
  local d = t:device {
    desired = { firmware = { job = "by hand", version = "2.0.0" } },
    reported = { firmware = { version = "2.0.0", slots = 2, state = "good" } },
    connected = false,
  }
  t:equal(t:run(ask).error.code, "timeout")
  t:equal(d.desired.firmware, { job = "by hand", version = "2.0.0" })
end)

test("is sick, and goes back", function(t)
  local d = device(t, { healthy = false })
  t:uncertain("failed", "uncertain")
  local r = t:run(ask)
  t:equal(r.state, "failed")
  t:equal(r.error.code, "rolled-back")
  t:equal(r.error.cause.code, "unhealthy")
  t:equal(d.calls, { "healthCheck", "firmwareRevert" })
  t:equal(d.reported.firmware.version, "2.0.0")
  t:equal(d.desired.firmware, nil)
  t:equal(r.phases[#r.phases], "rolling back")
end)

test("restarts in its trial, and goes back", function(t)
  local d = device(t, { restarts = true })
  local r = t:run(ask)
  t:equal(r.error.cause.code, "restarts")
  t:equal(d.reported.firmware.version, "2.0.0")
end)

test("is away at the end of its trial", function(t)
  local d = device(t)
  d:after("5m", function() d:drop("10m") end)
  local r = t:run(ask)
  t:equal(r.error.code, "rolled-back")
  t:equal(r.error.cause.code, "offline")
  t:equal(d.reported.firmware.version, "2.0.0")
end)

test("does not tell its health", function(t)
  local d = device(t)
  d:on_method("healthCheck", 500)
  local r = t:run(ask)
  t:equal(r.error.cause.code, "status")
end)

test("is not asked for its health", function(t)
  local d = device(t, { healthy = false })
  local r = t:run { version = "2.1.0", url = ask.url, sha256 = ask.sha256, probe = false }
  t:equal(r.state, "succeeded")
  t:equal(d.calls, { "firmwareConfirm" })
end)

test("does not come back from the restart", function(t)
  device(t, { lost = true })
  local r = t:run(ask)
  t:equal(r.state, "failed")
  t:equal(r.error.code, "timeout")
end)

test("a lost answer to the confirmation is settled by the report", function(t)
  local d = device(t, { mute = true })
  local r = t:run { version = "2.1.0", url = ask.url, sha256 = ask.sha256, retries = 0 }
  t:equal(r.state, "succeeded")
  t:equal(#d:called("firmwareConfirm"), 1)
end)

test("a lost confirmation and no report: it is left as it is", function(t)
  local d = device(t, { deaf = true })
  local r = t:run { version = "2.1.0", url = ask.url, sha256 = ask.sha256, retries = 0 }
  t:equal(r.state, "uncertain")
  t:equal(#d:called("firmwareConfirm"), 1)
  t:equal(#d:called("firmwareRevert"), 0)
end)

test("refuses the confirmation, and goes back", function(t)
  local d = device(t)
  d:on_method("firmwareConfirm", 409)
  local r = t:run(ask)
  t:equal(r.error.code, "status")
  t:equal(d.reported.firmware.version, "2.0.0")
end)

test("refuses to go back", function(t)
  local d = device(t, { healthy = false })
  d:on_method("firmwareRevert", 409)
  local r = t:run(ask)
  t:equal(r.error.code, "stuck")
  t:equal(r.error.cause.code, "unhealthy")
end)

test("takes the way back, and does not come", function(t)
  local d = device(t, { healthy = false })
  d:on_method("firmwareRevert", function() d:offline() return 200 end)
  t:equal(t:run(ask).error.code, "stuck")
end)

test("nobody knows whether it goes back", function(t)
  local d = device(t, { healthy = false })
  d:on_method("firmwareRevert", 200, { never = true })
  local r = t:run(ask)
  t:equal(r.state, "uncertain")
  t:equal(#d:called("firmwareRevert"), 1)
end)

test("is canceled while it downloads: it stops", function(t)
  local d = device(t)
  local r = t:start(ask)
  t:advance("40s")
  t:equal(r.phase, "downloading")
  t:cancel(r, "the wrong version")
  t:equal(r.state, "canceled")
  t:advance("1h")
  t:equal(d.reported.firmware.version, "2.0.0")
end)

test("is canceled in its trial: it goes back", function(t)
  local d = device(t)
  local r = t:start(ask)
  t:advance("5m")
  t:equal(r.phase, "trying")
  t:cancel(r, "complaints")
  t:advance("5m")
  t:equal(r.state, "canceled")
  t:equal(d.reported.firmware.version, "2.0.0")
end)

test("is canceled while it is away at the end of its trial", function(t)
  local d = device(t)
  d:after("5m", function() d:drop("20m") end)
  local r = t:start(ask)
  t:advance("10m")
  t:cancel(r, "complaints")
  t:equal(t:finish(r).state, "canceled")
  t:equal(d.reported.firmware.version, "2.0.0")
end)

test("is away for a moment at the end of its trial", function(t)
  local d = device(t)
  d:after("8m", function() d:drop("2m") end)
  t:equal(t:run(ask).state, "succeeded")
end)

test("is canceled while it is asked for its health", function(t)
  local d = device(t)
  d:on_method("healthCheck", 200, { never = true })
  local r = t:start(ask)
  t:advance("9m")
  t:cancel(r, "complaints")
  t:advance("5m")
  t:equal(r.state, "canceled")
  t:equal(d.reported.firmware.version, "2.0.0")
end)

test("goes back after a success", function(t)
  local d = device(t)
  local r = t:run(ask)
  t:equal(t:undo(r).state, "undone")
  t:equal(d.reported.firmware.version, "2.0.0")
  t:equal(d.desired.firmware, nil)
end)

test("has nothing to go back from", function(t)
  local d = device(t, { broken = true })
  local r = t:run(ask)
  t:equal(t:undo(r).state, "undone")
  t:equal(d.calls, {})
end)
