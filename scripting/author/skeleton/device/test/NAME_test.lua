-- Tests run on fake devices and in virtual time: a day takes milliseconds.
--   muster pattern test --crash-everywhere --cover

-- A device that answers, and reports some time later.
local function answering(t, delay)
  local d = t:device { reported = { model = "demo" } }
  d:on_method("ping", function(p)
    d:after(delay, function() d:report { ping = { id = p.id, at = t:now() } } end)
    return { ok = true }
  end)
  return d
end

test("asks once and waits for the answer", function(t)
  local d = answering(t, "90s")
  local r = t:run {}
  t:equal(r.state, "succeeded")
  t:equal(r.phases, { "asking", "waiting" })
  t:equal(d.calls, { "ping" })
  t:took_less_than("2m")
end)

test("waits for a device that is away", function(t)
  local d = answering(t, "1s")
  d:offline()
  d:after("5h", function() d:online() end)
  t:run {}
  t:equal(d.calls, { "ping" })
  t:took_more_than("5h")
end)

test("fails when no answer comes", function(t)
  answering(t, "20m")
  local r = t:run { within = "5m" }
  t:equal(r.state, "failed")
  t:equal(r.error.code, "timeout")
end)

test("fails when the device refuses", function(t)
  local d = t:device {}
  d:on_method("ping", function() return { message = "busy" }, 503 end)
  local r = t:run {}
  t:equal(r.error.code, "status")
  t:equal(r.error.status, 503)
end)

test("has nothing to do when it was answered before", function(t)
  t:device { reported = { ping = { id = "r-1" } } } -- the first run of a test is r-1
  local r = t:run {}
  t:equal(r.state, "skipped")
end)
