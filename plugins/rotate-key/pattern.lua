-- Rotate key: give a device a new key while it stays reachable with the old one.
--
-- An identity has two keys, so that one can change while the other is in use. The
-- idle one is made new and handed to the device; only when it has connected with
-- that is the old one made void. Whatever goes wrong before, the device still gets
-- in as it did.
return pattern {
  name = "rotate-key",
  version = "1.0.0",
  api = 1,
  title = "Rotate key",
  summary = "Makes a new key, installs it on the device, and voids the old one once the new one works.",
  author = "Muster",

  needs = { "identity:rotate", "method:installKey", "twin:read" },

  params = {
    online = {
      type = "string", format = "duration", default = "72h",
      title = "Wait for the device", description = "How long to wait for a device that is not connected.",
    },
    within = {
      type = "string", format = "duration", default = "15m",
      title = "Back within", description = "How long the device may take to connect with the new key.",
    },
    void_old = {
      type = "boolean", default = true,
      title = "Void the old key", description = "Without it, the old key stays good until the next rotation.",
    },
  },

  timeout = "7d",
  conflicts = "queue",
  rollout = {
    waves = { { size = "1" }, { size = "5%", diverse = true }, { size = "100%" } },
    parallel = 50,
    timeout = "7d",
    pause = { { share = "2%", least = 20 }, { share = "10" } },
  },

  run = function(dev, p, ctx)
    local used = dev:get("reported.key.slot", "primary")
    local spare = used == "primary" and "secondary" or "primary"

    -- The key is a secret: this program can hand it on, and neither read nor log it.
    ctx:phase("making a key")
    local key = dev:rotate_key(spare)

    ctx:phase("installing")
    local asked, lost = pcall(dev.call, dev, "installKey", { id = ctx.id, key = key, slot = spare },
                              { timeout = "30s", online = p.online })
    if not asked and lost.code ~= "timeout" and lost.code ~= "uncertain" then error(lost) end

    -- The proof is not the answer, but the device that came in with the new key.
    ctx:phase("connecting anew")
    local back, late = pcall(dev.wait, dev, "connected and reported.key.id == run", { run = ctx.id, timeout = p.within })
    if not back then error(asked and late or lost) end

    if p.void_old then
      ctx:phase("voiding the old key")
      dev:rotate_key(used)
    end
    ctx:event("device.keyRotated", { slot = spare, voided = p.void_old and used or nil })
    return { slot = spare, voided = p.void_old }
  end,
}
