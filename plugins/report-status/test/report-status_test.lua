local function device(t, status, answer)
  local d = t:device {}
  d:on_method("reportStatus", function(ask)
    status.id = ask.id
    d:after("2s", function() d:report { status = status } end)
    return status, 200
  end, answer)
  return d
end

test("reports", function(t)
  local d = device(t, { health = "good", version = "2.0.0", uptime = 60 })
  local r = t:run {}
  t:equal(r.state, "succeeded")
  t:equal(r.result, { health = "good", version = "2.0.0", uptime = 60 })
  t:equal(r.phases, { "asking", "reporting" })
  t:equal(d.calls, { "reportStatus" })
end)

test("a health that is not expected", function(t)
  device(t, { health = "bad", version = "2.0.0" })
  local r = t:run { expect = "good" }
  t:equal(r.state, "failed")
  t:equal(r.error.code, "unhealthy")
  t:equal(r.error.cause.health, "bad")
end)

test("a health that nobody expects", function(t)
  device(t, { health = "bad", version = "2.0.0" })
  local r = t:run {}
  t:equal(r.state, "succeeded")
  t:equal(r.result.health, "bad")
end)

test("is asked again when the answer got lost", function(t)
  local d = t:device {}
  d:on_method("reportStatus", 200, { never = true })
  d:after("40s", function()
    d:on_method("reportStatus", function(ask)
      d:report { status = { id = ask.id, health = "good" } }
      return 200
    end)
  end)
  t:equal(t:run { retries = 3 }.state, "succeeded")
  t:equal(d.calls, { "reportStatus", "reportStatus", "reportStatus" })
end)

test("does not answer, and does not report", function(t)
  local d = t:device {}
  d:on_method("reportStatus", 200, { never = true })
  local r = t:run { retries = 0 }
  t:equal(r.state, "uncertain")
  t:equal(d.calls, { "reportStatus" })
end)

test("a lost answer is settled by the report", function(t)
  local d = device(t, { health = "good" }, { never = true })
  t:uncertain("succeeded", "uncertain")
  local r = t:run { retries = 0 }
  t:equal(r.state, "succeeded")
  t:equal(d.calls, { "reportStatus" })
end)

test("answers and does not report", function(t)
  local d = t:device { reported = { status = { id = "another run", health = "good" } } }
  d:on_method("reportStatus", 200)
  local r = t:run {}
  t:equal(r.state, "failed")
  t:equal(r.error.code, "timeout")
end)

test("refuses", function(t)
  t:device {}:on_method("reportStatus", 501)
  t:equal(t:run {}.error.status, 501)
end)

test("stays away", function(t)
  t:device { connected = false }
  local r = t:run { online = "10m" }
  t:equal(r.error.code, "offline")
end)
