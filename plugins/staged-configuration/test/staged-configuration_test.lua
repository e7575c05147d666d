local settings = { section = "pump", settings = { rpm = 900 } }

-- A device that applies what it is told, and is as well as healthy says.
local function device(t, healthy, status)
  local d = t:device { desired = { pump = { rpm = 600 } }, reported = { pump = { rpm = 600 } } }
  d:on_desired("pump", function(wish, version)
    if wish == nil then return end
    d:after("3s", function()
      d:report { pump = wish, configuration = { pump = { version = version, status = status or "applied" } } }
    end)
  end)
  d:on_method("healthCheck", function() return { healthy = healthy, checks = { motor = healthy and "good" or "hot" } }, 200 end)
  return d
end

test("applies, and stays well", function(t)
  local d = device(t, true)
  local r = t:run(settings)
  t:equal(r.state, "succeeded")
  t:equal(r.phases, { "writing", "waiting for the answer", "watching" })
  t:equal(d.desired.pump.rpm, 900)
  t:took_more_than("2m")
end)

test("falls ill, and gets its old settings back", function(t)
  local d = device(t, false)
  local r = t:run(settings)
  t:equal(r.error.code, "unhealthy")
  t:equal(r.error.cause.motor, "hot")
  t:equal(d.desired.pump.rpm, 600)
end)

test("rejects", function(t)
  local d = device(t, true, "rejected")
  local r = t:run(settings)
  t:equal(r.error.code, "rejected")
  t:matches(r.error.message, "rejected")
  t:equal(d.desired.pump.rpm, 600)
end)

test("does not answer", function(t)
  local d = t:device { connected = false }
  local r = t:run { section = "pump", settings = { rpm = 900 }, within = "5m" }
  t:equal(r.error.code, "timeout")
  t:equal(d.desired.pump, nil)
end)

test("somebody else's newer setting is left", function(t)
  local d = device(t, false)
  local r = t:start(settings)
  t:advance("10s")
  d:desire { pump = { rpm = 950 } }
  t:equal(t:finish(r).error.code, "unhealthy")
  t:equal(d.desired.pump.rpm, 950)
end)

test("has them already", function(t)
  device(t, true)
  t:equal(t:run { section = "pump", settings = { rpm = 600 } }.state, "skipped")
end)

test("is taken back", function(t)
  local d = device(t, true)
  local r = t:run(settings)
  t:equal(t:undo(r).state, "undone")
  t:equal(d.desired.pump.rpm, 600)
end)

test("a section that was not there goes again", function(t)
  local d = t:device {}
  d:on_desired("pump", function(wish, version)
    if wish then d:report { configuration = { pump = { version = version, status = "applied" } } } end
  end)
  d:on_method("healthCheck", function() return { healthy = true }, 200 end)
  local r = t:run(settings)
  t:equal(r.state, "succeeded")
  t:equal(t:undo(r).state, "undone")
  t:equal(d.desired.pump, nil)
end)

test("a canceled one may be undone on top", function(t)
  local d = device(t, true)
  local r = t:start(settings)
  t:advance("10s")
  t:cancel(r, "not now", { undo = true })
  t:advance("1m")
  t:equal(r.state, "undone")
  t:equal(d.desired.pump.rpm, 600)
end)

test("the gate", function(t)
  local wave = { number = 1, size = 2, succeeded = 2, failed = 0, uncertain = 0, total = 2 }
  local d = t:device { reported = { health = "good" } }
  t:equal(t:gate(wave, settings), "go")
  wave.failed = 1
  t:equal(t:gate(wave, settings), "undo")
  wave.number = 2
  t:equal(t:gate(wave, settings), "go")
  wave.uncertain = 1
  t:equal(t:gate(wave, settings), "pause")
  d:report { status = { health = "bad" } }
  local decision, why = t:gate(wave, settings)
  t:equal(decision, "undo")
  t:matches(why, "1 of the devices")
end)
