-- As the hub writes it: who shut the device out, and how it stood before.
local tags = { quarantine = { reason = "odd traffic", by = "r-0", time = "2026-03-01T08:00:00Z", status = "enabled" } }

test("comes back, and is well", function(t)
  local d = t:device { tags = tags }
  d:on_method("healthCheck", function() return { healthy = true }, 200 end)
  local r = t:run {}
  t:equal(r.state, "succeeded")
  t:equal(r.phases, { "releasing", "waiting for it", "probing" })
  t:equal(d.status, "enabled")
end)

test("is not asked for its health", function(t)
  local d = t:device { tags = tags }
  local r = t:run { probe = false }
  t:equal(r.state, "succeeded")
  t:equal(d.calls, {})
end)

test("comes back sick, and goes into quarantine again", function(t)
  local d = t:device { tags = tags }
  d:on_method("healthCheck", function() return { healthy = false, checks = { sensor = "bad" } }, 200 end)
  local r = t:run {}
  t:equal(r.state, "failed")
  t:equal(r.error.code, "unhealthy")
  t:equal(r.error.cause.sensor, "bad")
  t:equal(d.status, "disabled")
  t:equal(d.tags.quarantine.reason, "the release failed")
end)

test("does not come back", function(t)
  local d = t:device { tags = tags, connected = false }
  local r = t:run { within = "10m" }
  t:equal(r.error.code, "timeout")
  t:equal(d.status, "disabled")
end)

test("a canceled release shuts out again", function(t)
  local d = t:device { tags = tags, connected = false }
  local r = t:start {}
  t:equal(d.status, "enabled")
  t:cancel(r, "not yet")
  t:equal(r.state, "canceled")
  t:equal(d.status, "disabled")
end)

test("can be taken back", function(t)
  local d = t:device { tags = tags }
  local r = t:run { probe = false }
  t:equal(t:undo(r).state, "undone")
  t:equal(d.status, "disabled")
end)

test("one that is not in quarantine is left out", function(t)
  t:device {}
  t:matches(t:check {}, "not in quarantine")
  t:equal(t:run {}.state, "skipped")
end)

test("one that is in quarantine is taken", function(t)
  t:device { tags = tags }
  t:equal(t:check {}, nil)
end)
