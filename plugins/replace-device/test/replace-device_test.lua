local ask = { id = "pump-2", reason = "broken display" }

test("is replaced after a review", function(t)
  local d = t:device { id = "pump-1", tags = { site = "lyon" }, desired = { pump = { rpm = 600 } } }
  t:approve { by = "anna", of = "desired.pump" }
  local r = t:run(ask)
  t:equal(r.state, "succeeded")
  t:equal(r.result, { id = "pump-2", approved_by = "anna" })
  t:equal(r.phases, { "in review", "replacing" })
  t:equal(d.status, "disabled")
  t:equal(d.tags.replacedBy, "pump-2")
  t:equal(d.tags.lifecycle, "replaced")
  t:equal(d.events[1].data.by, "pump-2")
end)

test("whoever reviews declines", function(t)
  local d = t:device { tags = { lifecycle = "in-use" } }
  t:deny("order a new one first")
  local r = t:run(ask)
  t:equal(r.error.code, "rejected")
  t:equal(d.status, "enabled")
  t:equal(d.tags, { lifecycle = "in-use" })
end)

test("nobody reviews", function(t)
  t:device {}
  t:equal(t:run { id = "pump-2", reason = "broken display", decide = "1d" }.error.code, "timeout")
end)

test("the new id is taken", function(t)
  local d = t:device { tags = { lifecycle = "in-use" } }
  t:device { id = "pump-2" }
  t:approve()
  local r = t:run(ask)
  t:equal(r.error.code, "conflict")
  t:equal(d.status, "enabled")
  t:equal(d.tags.lifecycle, "in-use")
end)

test("the new id is the old one", function(t)
  t:device { id = "pump-2" }
  t:equal(t:run(ask).error.code, "invalid")
end)

test("one that was replaced is left out", function(t)
  t:device { tags = { replacedBy = "pump-9" } }
  t:matches(t:check(ask), "pump-9")
  t:equal(t:run(ask).state, "skipped")
end)

test("one that was not is taken", function(t)
  t:device {}
  t:equal(t:check(ask), nil)
end)

test("a device with nothing to carry", function(t)
  t:device { id = "bare" }
  t:approve { of = "goes over: nothing" }
  t:equal(t:run(ask).state, "succeeded")
end)
