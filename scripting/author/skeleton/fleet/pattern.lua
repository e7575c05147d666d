-- {{title}}: one program for the fleet as a whole. It may wait for days and
-- survives restarts of the hub: each call of fleet and ctx is a step, which is
-- stored before anything is done.
return pattern {
  name = "{{name}}",
  version = "0.1.0",
  api = 1,
  title = "{{title}}",
  summary = "Counts devices by a property until all of them have the wanted value.",
  scope = "fleet",

  -- What the hub lets this program do. Whoever installs it sees this list.
  needs = { "query" },

  params = {
    property = { type = "string", default = "reported.firmware.state", title = "Group devices by" },
    wanted   = { type = "string", default = "good", title = "Finished when all are" },
    every    = { type = "string", format = "duration", default = "5m", title = "Look every" },
    rounds   = { type = "integer", minimum = 1, maximum = 300, default = 100, title = "At most so often" },
  },
  timeout = "7d",

  run = function(fleet, p, ctx)
    for round = 1, p.rounds do
      local groups, total = fleet:group_by(p.property)
      local done = groups[p.wanted] or 0
      ctx:progress(total > 0 and done / total or 1, string.format("%d of %d %s", done, total, p.wanted))
      if done >= total then return { rounds = round } end
      ctx:sleep(p.every)
    end
    error { code = "not-all", message = "not all devices became " .. p.wanted }
  end,
}
