local function device(t, answer)
  local d = t:device {}
  d:on_method("installKey", function(ask)
    d:after("1s", function() d:drop("5s") end)
    d:after("7s", function() d:report { key = { id = ask.id, slot = ask.slot } } end)
    return 200
  end, answer)
  return d
end

test("the idle key first, then the other one", function(t)
  local d = device(t)
  t:uncertain("succeeded", "uncertain")
  local r = t:run {}
  t:equal(r.state, "succeeded")
  t:equal(r.result, { slot = "secondary", voided = true })
  t:equal(r.phases, { "making a key", "installing", "connecting anew", "voiding the old key" })
  local ask = d:called("installKey")[1]
  t:equal(ask.slot, "secondary")
  t:ok(#ask.key > 0, "the device gets the key itself")
  t:equal(d.events[1].type, "device.keyRotated")
end)

test("the next time it is the other way round", function(t)
  local d = device(t)
  t:run {}
  local r = t:run {}
  t:equal(r.result.slot, "primary")
  t:equal(d:called("installKey")[2].slot, "primary")
end)

test("the old key may stay good", function(t)
  device(t)
  local r = t:run { void_old = false }
  t:equal(r.result, { slot = "secondary", voided = false })
end)

test("does not come back with the new key: the old one stays good", function(t)
  local d = t:device {}
  d:on_method("installKey", 200)
  local r = t:run { within = "5m" }
  t:equal(r.error.code, "timeout")
  t:equal(d.calls, { "installKey" })
  local rotated = 0
  for _, op in ipairs(r.steps) do
    if op == "dev.rotate_key" then rotated = rotated + 1 end
  end
  t:equal(rotated, 1, "only the idle key was made new")
end)

test("a lost answer is settled by the device that comes back", function(t)
  local d = device(t, { never = true })
  t:equal(t:run {}.state, "succeeded")
  t:equal(d.calls, { "installKey" })
end)

test("a lost answer and no device: nobody knows", function(t)
  local d = t:device {}
  d:on_method("installKey", 200, { never = true })
  local r = t:run {}
  t:equal(r.state, "uncertain")
  t:equal(d.calls, { "installKey" })
end)

test("refuses", function(t)
  t:device {}:on_method("installKey", 400)
  t:equal(t:run {}.error.status, 400)
end)

test("stays away", function(t)
  t:device { connected = false }
  t:equal(t:run { online = "1h" }.error.code, "offline")
end)
