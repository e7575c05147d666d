-- A device that answers one look after the other as the list says.
local function device(t, looks)
  local d = t:device {}
  d:on_method("healthCheck", function(ask)
    local look = looks[ask.look]
    if look == "refuse" then return 500 end
    return { healthy = look, checks = { sensor = look and "good" or "bad" } }, 200
  end)
  return d
end

test("is well", function(t)
  local d = device(t, { true, true, true })
  local r = t:run {}
  t:equal(r.state, "succeeded")
  t:equal(r.result, { healthy = true, bad = 0 })
  t:equal(d.tags.probe.healthy, true)
  t:ok(d.tags.probe.at, "the tag says when")
  t:equal(#d.calls, 3)
  t:took_more_than("19s")
end)

test("one bad look is one too many", function(t)
  local d = device(t, { true, false, true })
  local r = t:run {}
  t:equal(r.state, "failed")
  t:equal(r.error.code, "unhealthy")
  t:equal(r.error.cause.checks.sensor, "bad")
  t:equal(d.tags.probe.healthy, false)
  t:equal(#d.calls, 2, "the third look would change nothing")
end)

test("bad looks may be tolerated, errors among them", function(t)
  local d = device(t, { "refuse", true, false, true })
  local r = t:run { samples = 4, tolerate = 2 }
  t:equal(r.state, "succeeded")
  t:equal(r.result.bad, 2)
  t:equal(d.tags.probe.bad, 2)
end)

test("a device that does not answer", function(t)
  local d = t:device { connected = false }
  local r = t:run { samples = 1, online = "1m" }
  t:equal(r.error.code, "unhealthy")
  t:equal(r.error.cause.error, "offline")
  t:equal(d.calls, {})
end)

test("a canceled probe is no bad look", function(t)
  local d = device(t, { true, true, true })
  local r = t:start { every = "1h" }
  t:cancel(r, "enough")
  t:equal(r.state, "canceled")
  t:equal(d.tags.probe, nil)
end)

test("a canceled call is no bad look", function(t)
  local d = t:device { connected = false }
  local r = t:start {}
  t:cancel(r, "enough")
  t:equal(r.state, "canceled")
  t:equal(d.tags.probe, nil)
end)
