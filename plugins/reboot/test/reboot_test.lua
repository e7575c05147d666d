-- A device that has booted four times, and boots again when it is asked to.
local function device(t, answer)
  local d = t:device { reported = { boot = { count = 4, reason = "power on" } } }
  d:on_method("reboot", function()
    d:drop("20s")
    d:after("21s", function() d:report { boot = { count = 5, reason = "reboot" } } end)
    return 200
  end, answer)
  return d
end

test("comes back with a new boot", function(t)
  local d = device(t)
  t:uncertain("succeeded", "uncertain") -- what may become of it when the hub dies between command and answer
  local r = t:run { delay = 5 }
  t:equal(r.state, "succeeded")
  t:equal(r.result, { boots = 5, reason = "reboot" })
  t:equal(r.phases, { "asking", "rebooting" })
  t:equal(#d:called("reboot"), 1)
  t:equal(d:called("reboot")[1].delay, 5)
  t:took_less_than("1m")
end)

test("a device that never counted its boots", function(t)
  local d = t:device {}
  d:on_method("reboot", function()
    d:drop("5s")
    d:after("6s", function() d:report { boot = { count = 1, reason = "reboot" } } end)
    return 200
  end)
  t:equal(t:run {}.state, "succeeded")
end)

test("waits for a device that is away", function(t)
  local d = device(t)
  d:offline()
  d:after("40m", function() d:online() end)
  t:equal(t:run {}.state, "succeeded")
  t:took_more_than("40m")
end)

test("a device that stays away is not asked", function(t)
  local d = device(t)
  d:offline()
  local r = t:run { online = "2h" }
  t:equal(r.state, "failed")
  t:equal(r.error.code, "offline")
  t:equal(d.calls, {})
end)

test("a device that refuses", function(t)
  local d = t:device {}
  d:on_method("reboot", 403)
  local r = t:run {}
  t:equal(r.state, "failed")
  t:equal(r.error.code, "status")
  t:equal(r.error.status, 403)
end)

test("an answer that got lost is settled by the next boot", function(t)
  local d = device(t, { never = true })
  local r = t:run {}
  t:equal(r.state, "succeeded")
  t:equal(d.calls, { "reboot" })
  t:matches(t:logs()[1], "no answer")
end)

test("an answer that got lost, and no boot: nobody knows", function(t)
  local d = t:device { reported = { boot = { count = 4 } } }
  d:on_method("reboot", 200, { never = true })
  local r = t:run { within = "3m" }
  t:equal(r.state, "uncertain")
  t:equal(r.error.code, "uncertain")
  t:equal(d.calls, { "reboot" }, "it is not asked again")
end)

test("took the command and did not come back", function(t)
  local d = t:device { reported = { boot = { count = 4 } } }
  d:on_method("reboot", function() d:offline() return 200 end)
  local r = t:run { within = "3m" }
  t:equal(r.state, "failed")
  t:equal(r.error.code, "timeout")
end)

test("can be canceled while the device is away", function(t)
  local d = device(t)
  d:offline()
  local r = t:start {}
  t:equal(r.waits, "dev.call")
  t:cancel(r, "not today")
  t:equal(r.state, "canceled")
  d:online()
  t:advance("1h")
  t:equal(d.calls, {})
end)
