test("is shut out", function(t)
  local d = t:device {}
  local r = t:run { reason = "odd traffic" }
  t:equal(r.state, "succeeded")
  t:equal(r.result, { reason = "odd traffic" })
  t:equal(d.status, "disabled")
  t:equal(d.connected, false)
  t:ok(d.tags.quarantine, "it has the tag")
  t:equal(r.phases, { "shutting out", "waiting for the connection to end" })
end)

test("can be taken back", function(t)
  local d = t:device {}
  local r = t:run { reason = "odd traffic" }
  t:equal(t:undo(r).state, "undone")
  t:equal(d.status, "enabled")
  t:equal(d.tags.quarantine, nil)
end)

test("one that is in quarantine is left out", function(t)
  local d = t:device { tags = { quarantine = { reason = "before" } } }
  t:matches(t:check({ reason = "odd traffic" }), "already")
  local r = t:run { reason = "odd traffic" }
  t:equal(r.state, "skipped")
  t:equal(d.tags.quarantine.reason, "before")
end)

test("one that is not is taken", function(t)
  t:device {}
  t:equal(t:check { reason = "odd traffic" }, nil)
end)

test("one that was away is shut out, too", function(t)
  local d = t:device { connected = false }
  t:equal(t:run { reason = "odd traffic" }.state, "succeeded")
  t:equal(d.status, "disabled")
end)
