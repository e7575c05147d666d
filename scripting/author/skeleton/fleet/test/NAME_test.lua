-- Tests run on fake devices and in virtual time: a day takes milliseconds.
--   muster pattern test --crash-everywhere --cover

local function device(state) return { reported = { firmware = { state = state } } } end

test("ends at once when all are good", function(t)
  t:fleet { device("good"), device("good") }
  local r = t:run {}
  t:equal(r.result, { rounds = 1 })
  t:equal(r.progress, 1)
end)

test("looks again until the last one is good", function(t)
  local list = t:fleet { device("good"), device("trying") }
  list[2]:after("12m", function() list[2]:report { firmware = { state = "good" } } end)
  local r = t:run { every = "5m" }
  t:equal(r.result, { rounds = 4 })
  t:took_more_than("10m")
end)

test("gives up after so many rounds", function(t)
  t:fleet(3, device("trying"))
  local r = t:run { rounds = 2 }
  t:equal(r.state, "failed")
  t:equal(r.error.code, "not-all")
end)
