test("comes back with a new boot", function(t)
  local d = t:device { reported = { boot = { count = 4 } } }
  d:on_method("reboot", function()
    d:drop("20s")
    d:after("20s", function() d:report { boot = { count = 5, reason = "reboot" } } end)
    return 200
  end)
  local r = t:run {}
  t:equal(r.state, "succeeded")
  t:equal(r.result, { boots = 5, reason = "reboot", answered = true })
  t:equal(d.calls, { "reboot" })
end)
