// The disk fills up, from the hub's own writes and from elsewhere, while
// devices and services work: what they are told, and what is left afterwards.
// The data directory lies on a small file system of the suite's own, in the
// suite's own mount namespace.
import { execFileSync } from 'node:child_process';
import { closeSync, cpSync, fstatSync, lstatSync, mkdirSync, openSync, statfsSync, unlinkSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from './lib/suite.mjs';
import { scratch } from './lib/hub.mjs';
import { rest } from './lib/rest.mjs';
import { metric } from './lib/abuse.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, assertError, eventually, newDevice, path, sleep, twinPath, within } from './lib/fixture.mjs';

const MiB = 1024 * 1024;
const disk = scratch('disk');
const data = join(disk, 'data');
mkdirSync(disk);
execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1g', 'tmpfs', disk]);
process.on('exit', () => { try { execFileSync('umount', ['-l', disk]); } catch { /* it went with its namespace */ } });
// The CA that this process trusts is that of the directory it was given.
cpSync(process.env.MUSTER_TEST_DATA, data, { recursive: true, preserveTimestamps: true, filter: (one) => !lstatSync(one).isSocket() });

const free = () => { const s = statfsSync(disk); return s.bavail * s.bsize; };

// Filler takes space that the hub does not get.
class Filler {
  constructor() { this.file = openSync(join(disk, 'filler'), 'w'); }

  // until writes until only so many bytes are left.
  until(left) {
    const block = Buffer.alloc(MiB, 1);
    for (;;) {
      const more = Math.min(free() - Math.ceil(left), MiB); // half of a reserve may be no whole number
      if (more <= 0) return fstatSync(this.file).size;
      try { writeSync(this.file, block, 0, more); } catch (error) { if (error.code === 'ENOSPC') return fstatSync(this.file).size; throw error; }
    }
  }

  remove() { closeSync(this.file); unlinkSync(join(disk, 'filler')); }
}


// load keeps a device reporting and sending until told to stop, and knows what
// was acknowledged.
function load(device) {
  const state = { reported: 0, sent: 0, stopping: false, refused: null, cut: 0 };
  state.done = (async () => {
    while (!state.stopping) {
      let wire;
      try {
        wire = await Wire.session(device);
        await wire.subscribe('$iothub/twin/res/#');
        while (!state.stopping && !state.refused) {
          const reply = await wire.report({ n: state.reported + 1 });
          if (reply.status !== 204) { state.refused = reply; break; }
          state.reported += 1;
          await wire.publish(`devices/${device.deviceId}/messages/events/`, JSON.stringify({ n: state.sent + 1, more: 'x'.repeat(50_000) }));
          state.sent += 1;
        }
        await wire.cut();
        if (state.refused) return;
      } catch {
        state.cut += 1;
        wire?.destroy();
        await sleep(50);
      }
    }
  })();
  return state;
}

suite('abuse: the disk fills up', { timeout: 180_000, data, extra: ['--memory', '256MiB'] }, ({ test }) => {
  test('abuse: telemetry that floods stays within its share of the disk', async ({ service, t }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    const most = 1024 * MiB / 10;
    const body = Buffer.alloc(250 * 1024, 'x');
    let highest = 0;
    for (let i = 1; i <= 520; i++) { // 130 MB
      wire.send({ cmd: 'publish', topic: `devices/${one.deviceId}/messages/events/`, payload: body, qos: 1, messageId: i });
      if (i % 20 === 0) {
        await wire.packet((packet) => packet.cmd === 'puback' && packet.messageId === i, 20_000);
        highest = Math.max(highest, await metric('muster_store_message_bytes'));
      }
    }
    t.diagnostic(`130 MB of telemetry: the log had up to ${(highest / MiB).toFixed(0)} MiB, a tenth of the disk is ${(most / MiB).toFixed(0)} MiB`);
    assert.ok(highest > 50 * MiB && highest < most + 40 * MiB, `${highest} bytes`);
    await wire.disconnect();
  });

  test('abuse: writes are refused before space ends, reads and deletes go on, nothing acknowledged is lost, and it all comes back', async ({ service, hub, t, defer }) => {
    const devices = [];
    for (let i = 0; i < 4; i++) devices.push(await newDevice(service));
    const doomed = [await newDevice(service), await newDevice(service)];
    const called = await newDevice(service);
    const before = await Wire.session(called);
    await before.subscribe('$iothub/methods/POST/#');
    await before.cut();
    const loads = devices.map(load);
    defer(() => loads.forEach((one) => { one.stopping = true; }));
    const patched = { acked: 0, refused: null };
    const patching = (async () => {
      while (!patched.refused) {
        const reply = await service.patch(twinPath(devices[0].deviceId), { properties: { desired: { n: patched.acked + 1 } } });
        if (reply.status === 200) patched.acked += 1;
        else if (reply.status !== 429) patched.refused = reply;
      }
    })();
    const reserve = await metric('muster_store_reserve_bytes');
    const filler = new Filler();
    for (let left = reserve + 64 * MiB; !patched.refused; left -= 4 * MiB) {
      assert.ok(left > reserve - 64 * MiB, 'writes are taken far below the reserve');
      filler.until(left);
      await sleep(300);
    }
    await patching;
    const refusedAt = free();
    assertError(patched.refused, 503, 'ServiceUnavailable');
    assert.match(patched.refused.text, /reserved; only deletes and reads run/);
    assert.ok(patched.refused.headers['retry-after'], 'no Retry-After');
    await eventually('every device is told', () => loads.every((one) => one.refused || one.cut > 0), 20_000);
    for (const one of loads) one.stopping = true;
    await Promise.all(loads.map((one) => one.done));
    t.diagnostic(`refused with ${(refusedAt / MiB).toFixed(0)} MiB free, ${(reserve / MiB).toFixed(0)} MiB reserved; acknowledged before: ${patched.acked} desired, ${loads.map((one) => one.reported)} reported, ${loads.map((one) => one.sent)} messages`);

    const whatGoesOn = async (deletes) => {
      const ready = await rest({ path: '/readyz' });
      assert.equal(ready.status, 503);
      assert.match(ready.text, /reserve/);
      const wire = await Wire.session(devices[1]);
      await wire.subscribe('$iothub/twin/res/#');
      assert.equal((await wire.twin()).json.reported.n, loads[1].reported);
      const reply = await wire.report({ n: -1 });
      assert.equal(reply.status, 503, reply.topic);
      wire.send({ cmd: 'publish', topic: `devices/${devices[1].deviceId}/messages/events/`, payload: 'refused', qos: 1, messageId: 1 });
      await wire.closes();
      assert.deepEqual(wire.inbox.filter((packet) => packet.cmd === 'puback'), [], 'telemetry was acknowledged');
      const resumed = await Wire.session(called); // its subscription is stored
      const calling = service.post(`${twinPath(called.deviceId)}/methods`, { methodName: 'm', payload: 1, responseTimeoutInSeconds: 5 });
      const request = await resumed.publishOn('$iothub/methods/POST/');
      resumed.send({ cmd: 'publish', topic: `$iothub/methods/res/200/?$rid=${request.topic.split('?$rid=')[1]}`, payload: '2', qos: 0 });
      assert.deepEqual((await calling).json, { status: 200, payload: 2 });
      await resumed.cut();
      for (const [method, target, body] of [
        ['PUT', path('never-made'), { deviceId: 'never-made' }],
        ['PATCH', twinPath(devices[2].deviceId), { tags: { a: 1 } }],
        ['POST', `/api/v1/devices/${devices[2].deviceId}/messages/devicebound`, { body: 'eA==' }],
        ['POST', `/api/v1/devices/${devices[2].deviceId}/method-calls`, { methodName: 'm', waitForDeviceInSeconds: 60 }],
        ['PUT', '/api/v1/webhooks/none', { url: 'https://example.com' }],
      ]) {
        const answer = await service.call(method, target, { body });
        assert.equal(answer.status, 503, `${method} ${target}: ${answer.status} ${answer.text}`);
      }
      assert.equal((await service.get(path(devices[2].deviceId))).status, 200);
      assert.equal((await service.get('/devices?top=10')).status, 200);
      assert.equal((await service.get('/api/v1/events?cursor=start&limit=10')).status, 200);
      const gone = await service.delete(path(doomed[0].deviceId), { ifMatch: '*' });
      assert.equal(gone.status, deletes ? 204 : 503, gone.text);
      if (deletes) doomed.shift();
    };
    // Well below: what the hub frees by compacting must not lift it over the reserve meanwhile.
    const below = async () => { filler.until(reserve - 32 * MiB); await sleep(1500); };
    await below();
    await whatGoesOn(true);

    const nothingIsLost = async () => {
      for (const [i, device] of devices.entries()) {
        const twin = (await service.get(twinPath(device.deviceId))).json.properties;
        assert.ok([loads[i].reported, loads[i].reported + 1].includes(twin.reported.n), `device ${i} reports ${twin.reported.n}, ${loads[i].reported} was acknowledged`);
        if (i === 0) assert.ok([patched.acked, patched.acked + 1].includes(twin.desired.n), `desired is ${twin.desired.n}, ${patched.acked} was acknowledged`);
        let newest = 0;
        for (let cursor = 'start'; ;) {
          const page = (await service.get(`/api/v1/events?kind=telemetry&limit=1000&device=${device.deviceId}&cursor=${cursor}`)).json;
          for (const event of page.events) if (event.kind === 'telemetry') newest = Math.max(newest, event.message.body.n);
          if (page.cursor === cursor) break;
          cursor = page.cursor;
        }
        assert.ok(newest >= loads[i].sent, `device ${i}: the newest message is ${newest}, ${loads[i].sent} was acknowledged`);
      }
    };
    await nothingIsLost();
    await hub.stop('SIGKILL');
    await hub.start({ waitReady: false });
    await nothingIsLost();
    await below();
    await whatGoesOn(true);

    filler.until(reserve / 2 - 8 * MiB);
    await sleep(1500);
    doomed.push(devices[3]);
    await whatGoesOn(false);

    filler.until(0); // somebody else takes the rest
    await sleep(3000);
    assert.equal(hub.process.exitCode, null, 'the hub ended when the disk was full');
    await nothingIsLost();

    filler.remove();
    await eventually('it is ready again', async () => { const ready = await rest({ path: '/readyz' }); if (ready.status !== 200) t.diagnostic(ready.text); return ready.status === 200; }, 10_000, 2000);
    const wire = await Wire.session(devices[1]);
    await wire.subscribe('$iothub/twin/res/#');
    assert.equal((await wire.report({ n: loads[1].reported + 1 })).status, 204);
    loads[1].reported += 1;
    await wire.publish(`devices/${devices[1].deviceId}/messages/events/`, JSON.stringify({ n: loads[1].sent + 1 }));
    loads[1].sent += 1;
    await wire.disconnect();
    assert.equal((await service.patch(twinPath(devices[0].deviceId), { properties: { desired: { n: patched.acked + 1 } } })).status, 200);
    patched.acked += 1;
    await within(30_000, 'a clean stop', hub.stop());
    const found = JSON.parse(await hub.cli('verify', '-o', 'json').catch((error) => { throw new Error(`verify: ${error.stdout}${error.stderr}`); }));
    t.diagnostic(`verify: ${JSON.stringify(found)}`);
    await hub.start();
    await nothingIsLost();
  });
});
