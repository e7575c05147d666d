-- Retire: take a device out of service for good, and keep what is known of it.
--
-- After a person has agreed, the identity is shut out, both of its keys are made
-- void, and it is tagged as retired. Its twin and history stay until the identity
-- is deleted.
return pattern {
  name = "retire",
  version = "1.0.0",
  api = 1,
  title = "Retire",
  summary = "Shuts a device out after a person has agreed, voids its keys, and tags it as retired.",
  author = "Muster",

  needs = { "identity:disable", "identity:rotate", "twin:read", "twin:tags:lifecycle", "twin:tags:retired" },

  params = {
    reason = {
      type = "string", minLength = 3, maxLength = 128,
      title = "Reason", description = "Shown to whoever is asked to agree.",
    },
    approve = {
      type = "boolean", default = true,
      title = "Ask a person", description = "For each device, before anything happens to it.",
    },
    decide = {
      type = "string", format = "duration", default = "7d",
      title = "Decide within", description = "A device for which nobody has decided by then stays in service.",
    },
  },
  required = { "reason" },

  timeout = "14d",
  conflicts = "reject",
  danger = true,
  most = 25,
  rollout = {
    waves = { { size = "1" }, { size = "10" }, { size = "100%" } },
    parallel = 10,
    timeout = "14d",
    pause = { { share = "1" } },
  },

  check = function(dev, p)
    if dev:get("tags.lifecycle") == "retired" then return "it is retired already" end
  end,

  run = function(dev, p, ctx)
    local before = dev:get("tags.lifecycle")
    if before == "retired" then return ctx:skip("it is retired already") end

    local who
    if p.approve then
      ctx:phase("waiting for approval")
      who = ctx:approve("Retire " .. dev.id .. "? Reason given: " .. p.reason, { timeout = p.decide })
    end

    dev:tag { lifecycle = "retiring" }
    ctx:defer(function() dev:tag { lifecycle = before or json.null } end)

    ctx:phase("shutting out")
    dev:quarantine(p.reason)
    ctx:defer(function() dev:release() end)
    dev:wait("not connected", { timeout = "5m" })

    -- From here on no key that the device ever had is good any more.
    ctx:phase("voiding keys")
    dev:rotate_key("primary")
    dev:rotate_key("secondary")

    dev:tag { lifecycle = "retired", retired = { at = ctx:now(), reason = p.reason } }
    ctx:event("device.retired", { by = who, reason = p.reason })
    return { approved_by = who }
  end,

  -- Back in service; the device needs to be given its new key by hand.
  undo = function(dev, p, ctx)
    if dev:get("tags.lifecycle") ~= "retired" then return end
    dev:release()
    dev:tag { lifecycle = "in-stock", retired = json.null }
  end,
}
