local ask = { reason = "end of life" }

test("is retired once a person has agreed", function(t)
  local d = t:device { tags = { lifecycle = "in-use" } }
  t:approve("anna")
  local r = t:run(ask)
  t:equal(r.state, "succeeded")
  t:equal(r.result, { approved_by = "anna" })
  t:equal(r.phases, { "waiting for approval", "shutting out", "voiding keys" })
  t:equal(d.status, "disabled")
  t:equal(d.connected, false)
  t:equal(d.tags.lifecycle, "retired")
  t:equal(d.tags.retired.reason, "end of life")
  t:equal(d.events[1].type, "device.retired")
end)

test("a person declines", function(t)
  local d = t:device { tags = { lifecycle = "in-use" } }
  t:deny("it runs well")
  local r = t:run(ask)
  t:equal(r.error.code, "rejected")
  t:equal(d.status, "enabled")
  t:equal(d.tags.lifecycle, "in-use")
end)

test("without a question", function(t)
  local d = t:device {}
  t:equal(t:run { reason = "end of life", approve = false }.state, "succeeded")
  t:equal(d.tags.lifecycle, "retired")
end)

test("keys that can't be voided: it stays in service", function(t)
  local d = t:device { tags = { lifecycle = "in-use" } }
  t:deny_need("identity:rotate")
  local r = t:run { reason = "end of life", approve = false }
  t:equal(r.error.code, "denied")
  t:equal(d.status, "enabled")
  t:equal(d.tags.lifecycle, "in-use")
end)

test("comes back into stock", function(t)
  local d = t:device {}
  local r = t:run { reason = "end of life", approve = false }
  t:equal(t:undo(r).state, "undone")
  t:equal(d.status, "enabled")
  t:equal(d.tags, { lifecycle = "in-stock" })
end)

test("an undo of what did not happen", function(t)
  local d = t:device { tags = { lifecycle = "in-use" } }
  t:deny("it runs well")
  local r = t:run(ask)
  t:equal(t:undo(r).state, "undone")
  t:equal(d.tags.lifecycle, "in-use")
end)

test("one that is retired is left out", function(t)
  t:device { tags = { lifecycle = "retired" } }
  t:matches(t:check(ask), "already")
  t:equal(t:run(ask).state, "skipped")
end)

test("one that is not is taken", function(t)
  t:device {}
  t:equal(t:check(ask), nil)
end)
