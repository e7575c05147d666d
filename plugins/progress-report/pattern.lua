-- Progress report: count the fleet by a property, again and again, until enough
-- devices have the value that is wanted.
--
-- A pattern of scope fleet: one run, of no device, that looks at all of them. It
-- tells what it finds as its own progress and as events, which webhooks and
-- `muster monitor` pass on.
return pattern {
  name = "progress-report",
  version = "1.0.0",
  api = 1,
  title = "Progress report",
  summary = "Counts devices by a property, round by round, and ends when enough have the value that is wanted.",
  author = "Muster",
  scope = "fleet",

  needs = { "query" },

  params = {
    property = {
      type = "string", pattern = "^(tags|desired|reported)\\.[A-Za-z0-9_.]{1,200}$", default = "reported.firmware.version",
      title = "Group by", description = "The property whose values are counted.",
    },
    value = {
      type = "string", minLength = 1, maxLength = 128,
      title = "Wanted value", description = "A device with this value is done.",
    },
    share = {
      type = "number", minimum = 1, maximum = 100, default = 100,
      title = "Share", description = "Percent of the devices that have to be done.",
    },
    every = {
      type = "string", format = "duration", default = "5m",
      title = "Every", description = "Time between two rounds.",
    },
    -- A run takes at most 1000 steps, and a round takes three.
    rounds = {
      type = "integer", minimum = 1, maximum = 300, default = 288,
      title = "Rounds", description = "After so many it ends, done or not.",
    },
  },
  required = { "value" },

  timeout = "30d",
  conflicts = "share", -- it only looks

  run = function(fleet, p, ctx)
    local last
    for round = 1, p.rounds do
      local groups, total = fleet:group_by(p.property)
      local done = groups[p.value] or 0
      local share = total > 0 and 100 * done / total or 0
      ctx:phase("counting")
      ctx:progress(share / 100, string.format("%d of %d have %s", done, total, p.value))
      -- A round in which nothing has moved is nothing to tell of.
      if done ~= last then
        ctx:event("fleet.progress", { property = p.property, value = p.value, done = done, total = total, groups = groups })
        last = done
      end
      if total > 0 and share >= p.share then
        return { rounds = round, done = done, total = total }
      end
      if round < p.rounds then ctx:sleep(p.every) end
    end
    error { code = "timeout", message = string.format("after %d rounds %d devices have %s", p.rounds, last, p.value) }
  end,
}
