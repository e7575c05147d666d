local function fleet(t, n)
  return t:fleet(n, function() return { reported = { firmware = { version = "2.0.0" } } } end)
end

local function update(d) d:report { firmware = { version = "2.1.0" } } end

test("ends when all have it", function(t)
  local list = fleet(t, 4)
  update(list[1])
  list[2]:after("7m", function() update(list[2]) update(list[3]) end)
  list[4]:after("16m", function() update(list[4]) end)
  local r = t:run { value = "2.1.0" }
  t:equal(r.state, "succeeded")
  t:equal(r.result, { rounds = 5, done = 4, total = 4 })
  t:equal(r.progress, 1)
  local done = {}
  for _, e in ipairs(t:events()) do done[#done + 1] = e.data.done end
  t:equal(done, { 1, 3, 4 })
end)

test("a part may be enough", function(t)
  local list = fleet(t, 4)
  update(list[1])
  local r = t:run { value = "2.1.0", share = 25 }
  t:equal(r.result, { rounds = 1, done = 1, total = 4 })
end)

test("ends when it has looked often enough", function(t)
  fleet(t, 2)
  local r = t:run { value = "2.1.0", rounds = 3, every = "1m" }
  t:equal(r.state, "failed")
  t:equal(r.error.code, "timeout")
  t:took_less_than("3m")
end)

test("a fleet without devices", function(t)
  local r = t:run { value = "2.1.0", rounds = 1 }
  t:equal(r.error.code, "timeout")
end)

test("can be canceled", function(t)
  fleet(t, 2)
  local r = t:start { value = "2.1.0" }
  t:advance("12m")
  t:equal(r.text, "0 of 2 have 2.1.0")
  t:cancel(r, "enough")
  t:equal(r.state, "canceled")
end)
