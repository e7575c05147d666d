// Service checklist: throttling, item 19. It has a hub of its own: throttled
// callers would spoil other tests.
import https from 'node:https';
import { suite } from './lib/suite.mjs';
import { apiVersion, rest } from './lib/rest.mjs';
import { assert, assertError, newDevice, path, registry } from './lib/fixture.mjs';

suite('service: throttling', {}, ({ test }) => {
  test('service 19: a throttled request gets 429 with ThrottlingException or ThrottlingBacklogTimeout', async ({ service, hub, defer }) => {
    const one = await newDevice(service);
    const agent = new https.Agent({ keepAlive: true, maxSockets: 300 });
    defer(() => agent.destroy());
    const read = () => rest({ path: `${path(one.deviceId)}?api-version=${apiVersion}`, headers: { Authorization: service.token() }, agent });
    let throttled;
    let named;
    let sent = 0;
    const flood = async () => {
      while (!(throttled && named) && sent++ < 10_000) {
        // Three hundred handshakes at once may take longer than the hub allows.
        const reply = await read().catch(() => null);
        if (!reply) continue;
        assert.ok([200, 429].includes(reply.status), reply.text);
        if (reply.status === 429) throttled ??= reply;
      }
    };
    // Microsoft's client meanwhile, until it is throttled, too.
    const sdk = async () => {
      const client = registry(hub);
      while (!named && sent < 10_000) await client.get(one.deviceId).catch((error) => { named = error; });
    };
    await Promise.all([...Array.from({ length: 300 }, flood), ...Array.from({ length: 20 }, sdk)]);
    assert.ok(throttled, `${sent} registry reads were not throttled under --limits azure`);
    assert.ok(['ThrottlingException', 'ThrottlingBacklogTimeout'].includes(throttled.headers['iothub-errorcode']), throttled.text);
    assertError(throttled, 429, throttled.headers['iothub-errorcode']);
    assert.equal(named?.name, 'ThrottlingError', String(named));
  });
});
