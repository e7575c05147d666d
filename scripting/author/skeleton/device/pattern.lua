-- {{title}}: one program for one device. It may wait for days and survives
-- restarts of the hub: each call of dev and ctx is a step, which is stored
-- before anything is sent.
return pattern {
  name = "{{name}}",
  version = "0.1.0",
  api = 1,
  title = "{{title}}",
  summary = "Asks the device for a sign, and waits until it has given one.",

  -- What the hub lets this program do. Whoever installs it sees this list.
  needs = { "twin:read", "method:ping" },

  params = {
    within = { type = "string", format = "duration", default = "10m", title = "Answer within" },
  },
  timeout = "2d",

  run = function(dev, p, ctx)
    if dev:get("reported.ping.id") == ctx.id then
      return ctx:skip("it has answered already")
    end

    ctx:phase("asking")
    -- Taking it twice does no harm, so the hub may repeat it when nobody knows
    -- whether it arrived.
    dev:call("ping", { id = ctx.id }, { timeout = "30s", online = "1d", retry = 3, idempotent = true })

    ctx:phase("waiting")
    local seen = dev:wait("reported.ping.id == id", { id = ctx.id, timeout = p.within })
    ctx:log("answered by", dev.id)
    return { at = seen.ping.at }
  end,
}
