// Device checklist: what takes time, items 30, 31 and 35. All at once, so that
// the suite takes as long as its longest test.
import { suite } from './lib/suite.mjs';
import { inSeconds, token } from './lib/sas.mjs';
import { Wire, resource } from './lib/wire.mjs';
import { host } from './lib/hub.mjs';
import { assert, newDevice, openClient, patience, sleep, transports, within } from './lib/fixture.mjs';

// token_expiry_grace of docs/reference/limits: how long a session may outlive
// its token.
const graceSeconds = 10;

suite('device: patience', { concurrency: 32 }, ({ test }) => {
  for (const via of ['tls', 'ws']) {
    test(`device 30: without CONNECT the socket is closed at 30 s over ${via}`, async () => {
      const wire = await Wire.dial({ via });
      const started = performance.now();
      const seconds = (await wire.closes(40_000) - started) / 1000;
      assert.ok(seconds > 20 && seconds < 35, `closed after ${seconds.toFixed(1)} s`);
      assert.deepEqual(wire.inbox, []);
    });
  }

  test('device 30: a CONNECT that arrives byte by byte does not extend the 30 s', async () => {
    const wire = await Wire.dial();
    const started = performance.now();
    const bytes = Buffer.from('101800044d51545404c200b4000c', 'hex');
    let sent = 0;
    const timer = setInterval(() => wire.write(bytes.subarray(sent % 14, sent++ % 14 + 1)), 2500);
    try {
      const seconds = (await wire.closes(40_000) - started) / 1000;
      assert.ok(seconds < 35, `closed after ${seconds.toFixed(1)} s`);
    } finally {
      clearInterval(timer);
    }
  });

  for (const via of ['tls', 'ws']) {
    test(`device 31: the session over ${via} ends within the grace after its token's expiry, not before`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const se = inSeconds(6);
      const wire = await Wire.session(one, { via, password: one.token({ se }) });
      defer(() => wire.cut());
      await sleep(3000);
      await wire.ping();
      await wire.closes((graceSeconds + 12) * 1000);
      const late = Date.now() / 1000 - se;
      assert.ok(late > -0.5 && late < graceSeconds + 3, `closed ${late.toFixed(1)} s after the expiry`);
    });
  }

  test('device 31: a policy token ends its session, too', async ({ service, hub, defer }) => {
    const one = await newDevice(service);
    const se = inSeconds(5);
    const wire = await Wire.session(one, { password: token(host, hub.keys.device, { skn: 'device', se }) });
    defer(() => wire.cut());
    await wire.ping();
    await wire.closes((graceSeconds + 12) * 1000);
    assert.ok(Date.now() / 1000 - se > -0.5);
  });

  test('device 31: a token that lives on keeps its session', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one, { password: token(resource(one.identity), one.primaryKey, { se: inSeconds(300) }) });
    defer(() => wire.cut());
    await sleep(20_000);
    await wire.ping();
  });

  for (const [keepalive, via] of [[2, 'tls'], [2, 'ws'], [4, 'tls'], [8, 'ws']]) {
    test(`device 35: silence for 1.5 x a keepalive of ${keepalive} s closes over ${via}`, async ({ service }) => {
      const one = await newDevice(service);
      const wire = await Wire.session(one, { via, keepalive });
      const started = performance.now();
      const seconds = (await wire.closes(keepalive * 1500 + 4000) - started) / 1000;
      // The client sees the CONNACK a little after the hub's clock has started.
      assert.ok(seconds > keepalive * 1.5 - 0.7 && seconds < keepalive * 1.5 + 2, `closed after ${seconds.toFixed(2)} s`);
    });
  }

  for (const via of ['tls', 'ws']) {
    test(`device 35: PINGREQ, and any other packet, keeps a session with keepalive 2 open over ${via}`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const wire = await Wire.session(one, { via, keepalive: 2 });
      defer(() => wire.cut());
      for (let i = 0; i < 5; i++) {
        await sleep(1500);
        await wire.ping();
      }
      for (let i = 0; i < 5; i++) {
        await sleep(1500);
        await wire.publish(`devices/${one.deviceId}/messages/events/`, 'x');
      }
      // Other direction: what the hub sends is no sign of life of the device.
      await wire.closes(5000);
    });
  }

  for (const keepalive of [0, 1177, 65535]) {
    test(`device 35: keepalive ${keepalive} is accepted and closes nothing in 40 s`, async ({ service, defer }) => {
      const wire = await Wire.session(await newDevice(service), { keepalive });
      defer(() => wire.cut());
      await sleep(40_000);
      await wire.ping();
    });
  }

  test('device 31: Microsoft\'s SDK renews its token before the expiry and stays', async ({ service, defer }) => {
    const one = await newDevice(service);
    const client = await openClient(one, transports.MqttWs, (c) => c.setOptions({ tokenRenewal: { tokenValidTimeInSeconds: 10, tokenRenewalMarginInSeconds: 5 } }));
    defer(() => client.close());
    let disconnected = 0;
    client.on('disconnect', () => disconnected++);
    await sleep(41_000);
    assert.equal(disconnected, 0);
    const twin = await within(patience, 'getTwin', client.getTwin());
    assert.equal(twin.properties.desired.$version, 1);
  });
});
