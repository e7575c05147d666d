-- Quarantine: shut a device out, in a way that can be taken back.
--
-- The identity stays: it is disabled, with the reason beside it and the tag
-- quarantine, so its twin, its history and its keys are there when it is
-- released. `muster run undo RUN`, or the pattern release, takes it back.
return pattern {
  name = "quarantine",
  version = "1.0.0",
  api = 1,
  title = "Quarantine",
  summary = "Disables a device's identity with a reason, so that it can no longer connect.",
  author = "Muster",

  needs = { "identity:disable", "twin:read" },

  params = {
    reason = {
      type = "string", minLength = 3, maxLength = 128,
      title = "Reason", description = "Why; it stands beside the disabled identity.",
    },
    within = {
      type = "string", format = "duration", default = "1m",
      title = "Out within", description = "How long the device's connection may take to end.",
    },
  },
  required = { "reason" },

  timeout = "1d",
  conflicts = "replace", -- shutting out goes before anything else that is under way
  most = 100,            -- a larger job needs the word of whoever starts it
  rollout = { parallel = 100, abort = { { share = "5" } } },

  check = function(dev, p)
    if dev:get("tags.quarantine") ~= nil then return "it is in quarantine already" end
  end,

  run = function(dev, p, ctx)
    -- The preview asked check() a while ago; this is the moment that counts.
    if dev:get("tags.quarantine") ~= nil then
      return ctx:skip("it is in quarantine already")
    end

    ctx:phase("shutting out")
    dev:quarantine(p.reason)

    -- Disabled is one thing, gone another: wait until the session has ended.
    ctx:phase("waiting for the connection to end")
    dev:wait("not connected", { timeout = p.within })
    return { reason = p.reason }
  end,

  undo = function(dev, p, ctx)
    dev:release()
  end,
}
