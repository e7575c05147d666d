-- A device that answers each wish for pump with a status, after some seconds.
local function device(t, status, more)
  local d = t:device(more or { desired = { pump = { rpm = 600, mode = "eco" } }, reported = { pump = { rpm = 600, mode = "eco" } } })
  d:on_desired("pump", function(wish, version)
    if wish == nil then return d:report { pump = json.null, configuration = { pump = json.null } } end
    d:after("3s", function()
      local said = status(wish)
      local report = { configuration = { pump = { version = version, status = said, message = said == "rejected" and "too fast" or json.null } } }
      if said == "applied" then
        report.pump = {}
        for name in pairs(d.reported.pump or {}) do report.pump[name] = json.null end -- what is not there any more
        for name, value in pairs(wish) do report.pump[name] = value end
      end
      d:report(report)
    end)
  end)
  return d
end

local function applied() return "applied" end

local function careful(wish) return wish.rpm <= 1000 and "applied" or "rejected" end

test("applies", function(t)
  local d = device(t, applied)
  local r = t:run { section = "pump", settings = { rpm = 900 } }
  t:equal(r.state, "succeeded")
  t:equal(r.result.settings, { rpm = 900, mode = "eco" })
  t:equal(d.desired.pump, { rpm = 900, mode = "eco" })
  t:equal(r.phases, { "writing", "waiting for the answer" })
end)

test("a rejected setting is taken back", function(t)
  local d = device(t, careful)
  local r = t:run { section = "pump", settings = { rpm = 5000, boost = true } }
  t:equal(r.state, "failed")
  t:equal(r.error.code, "rejected")
  t:equal(r.error.message, "too fast")
  t:equal(d.desired.pump, { rpm = 600, mode = "eco" })
end)

test("a rejection without a word", function(t)
  local d = t:device {}
  d:on_desired("pump", function(wish, version)
    if wish then d:report { configuration = { pump = { version = version, status = "ignored" } } } end
  end)
  local r = t:run { section = "pump", settings = { rpm = 900 } }
  t:equal(r.error.message, "the device answered ignored")
  t:equal(d.desired.pump, nil)
end)

test("a claim without the values is no proof", function(t)
  local d = t:device { desired = { pump = { rpm = 600 } }, reported = { pump = { rpm = 600 } } }
  d:on_desired("pump", function(_, version)
    d:report { configuration = { pump = { version = version, status = "applied" } } }
  end)
  local r = t:run { section = "pump", settings = { rpm = 900 } }
  t:equal(r.error.code, "mismatch")
  t:equal(r.error.cause.rpm, 600)
  t:equal(d.desired.pump.rpm, 600)
end)

test("no answer: the wish is taken back", function(t)
  local d = device(t, applied)
  d:offline()
  local r = t:run { section = "pump", settings = { rpm = 900 }, within = "10m" }
  t:equal(r.error.code, "timeout")
  t:equal(d.desired.pump, { rpm = 600, mode = "eco" })
end)

test("a device that comes later", function(t)
  local d = device(t, applied)
  d:offline()
  d:after("30m", function() d:online() end)
  t:equal(t:run { section = "pump", settings = { rpm = 900 } }.state, "succeeded")
end)

test("a canceled one is taken back", function(t)
  local d = device(t, applied)
  d:offline()
  local r = t:start { section = "pump", settings = { rpm = 900 } }
  t:equal(d.desired.pump.rpm, 900)
  t:cancel(r, "not now")
  t:equal(r.state, "canceled")
  t:equal(d.desired.pump, { rpm = 600, mode = "eco" })
end)

test("somebody else's newer setting is left", function(t)
  local d = device(t, applied)
  d:offline()
  local r = t:start { section = "pump", settings = { rpm = 900 } }
  d:desire { pump = { rpm = 950 } }
  t:cancel(r, "not now")
  t:equal(d.desired.pump.rpm, 950)
  t:matches(t:logs()[1], "left as it is")
end)

test("null removes, and comes back", function(t)
  local d = device(t, applied)
  local r = t:run { section = "pump", settings = { mode = json.null } }
  t:equal(r.state, "succeeded")
  t:equal(d.desired.pump, { rpm = 600 })
  t:equal(t:undo(r).state, "undone")
  t:equal(d.desired.pump, { rpm = 600, mode = "eco" })
end)

test("has them already", function(t)
  local d = device(t, applied)
  local r = t:run { section = "pump", settings = { rpm = 600 } }
  t:equal(r.state, "skipped")
  t:equal(d.desired.pump, { rpm = 600, mode = "eco" })
end)

test("lists and nested settings", function(t)
  local d = device(t, applied, {
    desired = { pump = { steps = { 1, 2, 3 }, limits = { low = 1, high = 9 } } },
    reported = { pump = { steps = { 1, 2, 3 }, limits = { low = 1, high = 9 } } },
  })
  local r = t:run { section = "pump", settings = { steps = { 1, 2 }, limits = { high = 8, peak = 12 } } }
  t:equal(r.state, "succeeded")
  t:equal(d.desired.pump, { steps = { 1, 2 }, limits = { low = 1, high = 8, peak = 12 } })
  t:undo(r)
  t:equal(d.desired.pump, { steps = { 1, 2, 3 }, limits = { low = 1, high = 9 } })
end)

test("a section that was not there goes again", function(t)
  local d = device(t, applied, {})
  local r = t:run { section = "pump", settings = { limits = { high = 8 } } }
  t:equal(r.state, "succeeded")
  t:undo(r)
  t:equal(d.desired.pump, nil)
end)

test("an undo finds nothing to take back", function(t)
  local d = device(t, applied)
  d:offline()
  local r = t:start { section = "pump", settings = { rpm = 900 } }
  t:cancel(r, "not now", { undo = true })
  t:advance("1m")
  t:equal(r.state, "undone")
  t:equal(d.desired.pump, { rpm = 600, mode = "eco" })
end)
