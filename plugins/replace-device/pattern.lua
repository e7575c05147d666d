-- Replace a device: a new identity takes the place of one whose hardware is gone.
--
-- Tags and desired properties go over, so the new one belongs to whatever the old
-- one belonged to: groups and configurations find devices by these. The old
-- identity stays, disabled, with its history and the tag replacedBy.
return pattern {
  name = "replace-device",
  version = "1.0.0",
  api = 1,
  title = "Replace device",
  summary = "Makes a new identity with the old one's tags and settings, after a review, and disables the old one.",
  author = "Muster",

  needs = { "identity:replace", "twin:read", "twin:tags:lifecycle" },

  params = {
    id = {
      type = "string", pattern = "^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$",
      title = "New device id", description = "Must not exist yet.",
    },
    reason = {
      type = "string", minLength = 3, maxLength = 200,
      title = "Reason", description = "Shown to whoever reviews.",
    },
    decide = {
      type = "string", format = "duration", default = "7d",
      title = "Decide within", description = "How long the review may take.",
    },
  },
  required = { "id", "reason" },

  timeout = "14d",
  conflicts = "reject",
  danger = true,
  most = 1, -- one new id can't be that of two devices

  check = function(dev, p)
    local by = dev:get("tags.replacedBy")
    if by ~= nil then return "it was replaced by " .. by .. " already" end
  end,

  run = function(dev, p, ctx)
    local by = dev:get("tags.replacedBy")
    if by ~= nil then return ctx:skip("it was replaced by " .. by .. " already") end
    if p.id == dev.id then
      error { code = "invalid", message = "the new id is the old one" }
    end

    -- The question says what the answer will do.
    ctx:phase("in review")
    local carried = {}
    for section in pairs(dev:get("tags", {})) do carried[#carried + 1] = "tags." .. section end
    for section in pairs(dev:get("desired", {})) do
      if section:sub(1, 1) ~= "$" then carried[#carried + 1] = "desired." .. section end
    end
    local what = #carried > 0 and table.concat(carried, ", ", 1, math.min(#carried, 20)) or "nothing"
    local who = ctx:approve(string.format("Replace %s by %s? Reason: %s. What goes over: %s. %s is disabled.",
                                          dev.id, p.id, p.reason, what, dev.id), { timeout = p.decide })

    -- One step makes the new identity, disables the old one and ties the two: there
    -- is nothing in between that would have to be taken back. What is written on the
    -- old one before would go over, too; so it is tagged behind it.
    ctx:phase("replacing")
    local new = dev:replace(p.id)
    dev:tag { lifecycle = "replaced" }
    ctx:event("device.replaced", { by = new.id, approved_by = who, reason = p.reason })
    return { id = new.id, approved_by = who }
  end,
}
