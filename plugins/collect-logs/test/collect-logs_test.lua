local function device(t, status, answer)
  local d = t:device {}
  d:on_method("uploadLogs", function(ask)
    d:after("20s", function()
      d:report { logs = { id = ask.id, status = status, file = "logs.txt", size = 10 * ask.lines, message = status == "failed" and "no space" or json.null } }
    end)
    return 202
  end, answer)
  return d
end

test("uploads", function(t)
  local d = device(t, "uploaded")
  local r = t:run { lines = 50 }
  t:equal(r.state, "succeeded")
  t:equal(r.result, { file = "logs.txt", size = 500 })
  t:equal(r.phases, { "asking", "uploading" })
  t:equal(d:called("uploadLogs")[1].lines, 50)
end)

test("could not upload", function(t)
  device(t, "failed")
  local r = t:run {}
  t:equal(r.error.code, "upload-failed")
  t:equal(r.error.message, "no space")
end)

test("takes the command and says nothing more", function(t)
  t:device { reported = { logs = { id = "another run", status = "uploaded" } } }:on_method("uploadLogs", 202)
  t:equal(t:run {}.error.code, "timeout")
end)

test("a lost answer is settled by the report", function(t)
  local d = device(t, "uploaded", { never = true })
  t:uncertain("succeeded", "uncertain")
  t:equal(t:run { retries = 0 }.state, "succeeded")
  t:equal(d.calls, { "uploadLogs" })
end)

test("is asked again", function(t)
  local d = t:device {}
  d:on_method("uploadLogs", 202, { never = true })
  d:after("40s", function()
    d:on_method("uploadLogs", function(ask)
      d:after("1s", function() d:report { logs = { id = ask.id, status = "uploaded", file = "logs.txt" } } end)
      return 202
    end)
  end)
  local r = t:run { retries = 3 }
  t:equal(r.state, "succeeded")
  t:equal(d.calls, { "uploadLogs", "uploadLogs", "uploadLogs" })
  for _, ask in ipairs(d:called("uploadLogs")) do t:equal(ask.id, r.id) end
end)

test("refuses", function(t)
  t:device {}:on_method("uploadLogs", 501)
  t:equal(t:run {}.error.code, "status")
end)

test("stays away", function(t)
  t:device { connected = false }
  t:equal(t:run { online = "1h" }.error.code, "offline")
end)
