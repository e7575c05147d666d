-- A device that resets itself, and ends with this status.
local function device(t, status, answer)
  local d = t:device { tags = { lifecycle = "rented" }, reported = { factoryReset = { id = "an earlier one", status = "done" } } }
  d:on_method("factoryReset", function(ask)
    d:after("1s", function() d:report { factoryReset = { id = ask.id, status = "running" } } end)
    d:after("2s", function() d:drop("1m") end)
    d:after("70s", function() d:report { factoryReset = { id = ask.id, status = status, message = "the flash is worn" } } end)
    return 202
  end, answer)
  return d
end

test("is wiped once a person has agreed", function(t)
  local d = device(t, "done")
  t:approve("anna")
  t:uncertain("succeeded", "uncertain", function(r)
    if r.state == "uncertain" then t:equal(d.tags.lifecycle, "reset-uncertain") end
  end)
  local r = t:run { reason = "came back from rent" }
  t:equal(r.state, "succeeded")
  t:equal(r.result, { approved_by = "anna" })
  t:equal(r.phases, { "waiting for approval", "asking", "wiping" })
  t:equal(d.tags.lifecycle, "in-stock")
  t:equal(d:called("factoryReset")[1].keepNetwork, true)
  t:equal(d.events[1].type, "device.reset")
  t:equal(d.events[1].data, { by = "anna", reason = "came back from rent" })
end)

test("nothing happens before the answer", function(t)
  local d = device(t, "done")
  local r = t:start { reason = "came back from rent" }
  t:equal(r.waits, "ctx.approve")
  t:advance("3h")
  t:equal(d.calls, {})
  t:equal(d.tags.lifecycle, "rented")
end)

test("a person declines", function(t)
  local d = device(t, "done")
  t:deny { reason = "it is still in use" }
  local r = t:run { reason = "came back from rent" }
  t:equal(r.state, "failed")
  t:equal(r.error.code, "rejected")
  t:matches(r.error.message, "still in use")
  t:equal(d.calls, {})
  t:equal(d.tags.lifecycle, "rented")
end)

test("nobody decides", function(t)
  local d = device(t, "done")
  local r = t:run { reason = "came back from rent", decide = "2h" }
  t:equal(r.error.code, "timeout")
  t:equal(d.calls, {})
end)

test("without a question", function(t)
  local d = device(t, "done")
  local r = t:run { reason = "came back from rent", approve = false, keep_network = false, lifecycle = "for-sale" }
  t:equal(r.state, "succeeded")
  t:equal(d:called("factoryReset")[1].keepNetwork, false)
  t:equal(d.tags.lifecycle, "for-sale")
end)

test("a lost answer is settled by the report", function(t)
  local d = device(t, "done", { never = true })
  local r = t:run { reason = "came back from rent", approve = false }
  t:equal(r.state, "succeeded")
  t:equal(d.calls, { "factoryReset" })
  t:equal(d.tags.lifecycle, "in-stock")
end)

test("a lost answer and no report is for a person", function(t)
  local d = t:device {}
  d:on_method("factoryReset", 202, { never = true })
  local r = t:run { reason = "came back from rent", approve = false }
  t:equal(r.state, "uncertain")
  t:equal(d.calls, { "factoryReset" })
  t:equal(d.tags.lifecycle, "reset-uncertain")
end)

test("took the command and never came back", function(t)
  local d = t:device { tags = { lifecycle = "rented" } }
  d:on_method("factoryReset", function() d:offline() return 202 end)
  local r = t:run { reason = "came back from rent", approve = false }
  t:equal(r.error.code, "timeout")
  t:equal(d.tags.lifecycle, "reset-uncertain")
end)

test("says that it could not", function(t)
  local d = device(t, "failed")
  local r = t:run { reason = "came back from rent", approve = false }
  t:equal(r.error.code, "failed")
  t:equal(r.error.message, "the flash is worn")
  t:equal(d.tags.lifecycle, "rented")
end)

test("refuses", function(t)
  local d = t:device {}
  d:on_method("factoryReset", 403)
  local r = t:run { reason = "came back from rent", approve = false }
  t:equal(r.error.status, 403)
  t:equal(d.tags.lifecycle, nil)
end)

test("is canceled before the device was there", function(t)
  local d = device(t, "done")
  d:offline()
  local r = t:start { reason = "came back from rent", approve = false }
  t:equal(d.tags.lifecycle, "resetting")
  t:cancel(r, "the wrong one")
  t:equal(r.state, "canceled")
  t:equal(d.tags.lifecycle, "rented")
  d:online()
  t:advance("1h")
  t:equal(d.calls, {})
end)
