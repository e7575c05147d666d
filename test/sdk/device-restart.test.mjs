// Device checklist: the server process stops and starts, items 24 and 37.
import { execFileSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { suite } from './lib/suite.mjs';
import { Hub, scratch } from './lib/hub.mjs';
import { rest } from './lib/rest.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, eventually, newDevice, newModule, openClient, path, patience, serviceClient, sleep, transports, twinPath, updateReported, within } from './lib/fixture.mjs';
import common from 'azure-iot-common';

const filters = ['$iothub/twin/res/#', '$iothub/twin/PATCH/properties/desired/#', '$iothub/methods/POST/#'];

// buildDated builds the hub with a revision date of our choice: go takes it
// from git, and git is told to look at a repository with one commit of then.
function buildDated(date) {
  const root = fileURLToPath(new URL('../..', import.meta.url));
  const [repository, binary] = [scratch('dated'), scratch('muster-dated')];
  const run = (command, args, env) => execFileSync(command, args, { cwd: root, env: { ...process.env, ...env }, stdio: ['ignore', 'ignore', 'inherit'] });
  run('git', ['init', '--quiet', repository]);
  run('git', ['-C', repository, '-c', 'user.name=test', '-c', 'user.email=test@example.com', 'commit', '--quiet', '--allow-empty', '--message', 'dated', '--date', date], { GIT_COMMITTER_DATE: date });
  run('go', ['build', '-buildvcs=true', '-o', binary, '.'], { GIT_DIR: join(repository, '.git'), GIT_WORK_TREE: root });
  return binary;
}

suite('device: the server restarts', {}, ({ test, context }) => {
  for (const signal of ['SIGTERM', 'SIGKILL']) {
    test(`device 37: after ${signal} and a restart, a reconnect without SUBSCRIBE still receives desired patches, methods and twin answers`, async ({ service, hub, defer }) => {
      const one = await newDevice(service);
      const module = await newModule(service, one);
      for (const identity of [one, module]) {
        const first = await Wire.session(identity);
        await first.subscribe(...filters);
        assert.equal((await first.report({ before: signal })).status, 204);
        defer(() => first.cut());
      }
      const gone = await newDevice(service);
      const unsubscribed = await Wire.session(gone);
      await unsubscribed.subscribe(...filters);
      unsubscribed.send({ cmd: 'unsubscribe', messageId: 9, unsubscriptions: ['$iothub/methods/POST/#'] });
      await unsubscribed.packet('unsuback');
      await hub.restart(signal);
      for (const [identity, target] of [[one, twinPath(one.deviceId)], [module, twinPath(one.deviceId, 'm1')]]) {
        const second = await Wire.session(identity);
        defer(() => second.cut());
        assert.equal(second.sessionPresent, true);
        assert.deepEqual((await second.twin()).json.reported, { before: signal, $version: 2 });
        await service.patch(target, { properties: { desired: { after: signal } } });
        assert.deepEqual(JSON.parse((await second.publishOn('$iothub/twin/PATCH/')).payload), { after: signal, $version: 2 });
        const called = service.post(`${target}/methods`, { methodName: 'm', payload: 1, responseTimeoutInSeconds: 5 });
        const request = await second.publishOn('$iothub/methods/POST/');
        second.send({ cmd: 'publish', topic: `$iothub/methods/res/200/?$rid=${request.topic.split('?$rid=')[1]}`, payload: '2', qos: 0 });
        assert.deepEqual((await called).json, { status: 200, payload: 2 });
      }
      const third = await Wire.session(gone);
      defer(() => third.cut());
      assert.equal((await service.post(`${twinPath(gone.deviceId)}/methods`, { methodName: 'm' })).status, 404);
      assert.equal((await third.twin()).json.reported.$version, 1);
    });

    test(`device 37: after ${signal} Microsoft's SDK comes back by itself and keeps its handlers`, async ({ service, hub, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transports.MqttWs, (c) => c.setRetryPolicy(new common.ExponentialBackOffWithJitter()));
      defer(() => client.close());
      client.onDeviceMethod('ping', (request, response) => response.send(200, 'pong', () => {}));
      const twin = await client.getTwin();
      const seen = [];
      twin.on('properties.desired', (delta) => seen.push(delta));
      await updateReported(twin, { before: 1 });
      await hub.restart(signal);
      await eventually('the SDK has come back', async () => (await service.get(path(one.deviceId))).json.connectionState === 'Connected', 30_000, 200);
      const { result } = await within(patience, 'method after the restart', serviceClient(hub).invokeDeviceMethod(one.deviceId, { methodName: 'ping', responseTimeoutInSeconds: 8, connectTimeoutInSeconds: 8 }));
      assert.deepEqual(result, { status: 200, payload: 'pong' });
      await service.patch(twinPath(one.deviceId), { properties: { desired: { after: signal } } });
      await eventually('the desired change', () => seen.some((delta) => delta.after === signal));
      await within(patience, 'report', updateReported(twin, { after: 1 }));
    });
  }

  test('device 24: a device that connects while the hub stops and starts sees closed sockets, code 3 or success, never 5', async ({ service, hub }) => {
    const one = await newDevice(service);
    const codes = new Map();
    let connecting = true;
    const loop = async () => {
      while (connecting) {
        let code;
        try {
          const { wire, connack } = await within(patience, 'an answer', Wire.connect(one, { clean: true }));
          code = connack ? connack.returnCode : 'closed';
          wire.destroy();
        } catch (error) {
          code = error.code ?? (/closed the connection/.test(error.message) ? 'closed' : error.message);
        }
        codes.set(code, (codes.get(code) ?? 0) + 1);
        if (code === 'ECONNREFUSED') await sleep(5);
      }
    };
    const loops = [loop(), loop(), loop(), loop()];
    for (let round = 0; round < 3; round++) {
      await sleep(300);
      await hub.restart();
    }
    await sleep(300);
    connecting = false;
    await Promise.all(loops);
    const unexpected = [...codes.keys()].filter((code) => ![0, 3, 'closed', 'ECONNREFUSED', 'ECONNRESET', 'EPIPE'].includes(code));
    assert.deepEqual(unexpected, [], JSON.stringify([...codes]));
    assert.ok(codes.get(0) > 0);
  });

  test('device 24: a hub that is not ready answers 3 to known and unknown devices, and 503 to services', async ({ service, hub, t }) => {
    const one = await newDevice(service);
    await hub.stop();
    // A binary of 2099 finds the clock impossible, as a board without a battery
    // does after a power cut: the hub is not ready.
    const binary = buildDated('2099-01-01T00:00:00Z');
    const early = await Hub.start({ binary, waitReady: false });
    try {
      const ready = await rest({ path: '/readyz' });
      assert.equal(ready.status, 503, ready.text);
      t.diagnostic(ready.text);
      for (const via of ['tls', 'ws']) {
        for (const identity of [one, { identity: 'nobody', token: () => one.token() }]) {
          const { wire, connack } = await Wire.connect(identity, { via });
          assert.equal(connack?.returnCode, 3);
          await wire.closes();
        }
      }
      for (const reply of [await service.patch(twinPath(one.deviceId), { tags: { a: 1 } }), await service.get(path(one.deviceId))]) {
        assert.equal(reply.status, 503, reply.text);
        assert.ok(reply.json?.Message, reply.text);
      }
    } finally {
      await early.stop();
      await hub.start();
    }
    context.hub = hub;
    const wire = await Wire.session(one);
    await wire.disconnect();
  });
});
