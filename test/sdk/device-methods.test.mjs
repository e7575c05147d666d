// Device checklist: direct methods and modules, items 83 to 93.
import { randomBytes } from 'node:crypto';
import { suite } from './lib/suite.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, eventually, nested, newDevice, newModule, openClient, patience, serviceClient, sleep, transports, twinPath, updateReported, within } from './lib/fixture.mjs';

const prefix = '$iothub/methods/POST/';
const filter = `${prefix}#`;

async function listening(service, defer, options) {
  const one = await newDevice(service);
  const wire = await Wire.session(one, options);
  defer(() => wire.cut());
  await wire.subscribe(filter);
  return { one, wire };
}

const ridOf = (packet) => packet.topic.slice(packet.topic.indexOf('?$rid=') + 6);
const invoke = (service, one, body) => service.post(`${twinPath(one.deviceId, one.moduleId)}/methods`, { responseTimeoutInSeconds: 10, ...body });
const answer = (wire, request, status, payload = '', options = {}) => wire.publish(`$iothub/methods/res/${status}/?$rid=${ridOf(request)}`, payload, { qos: 0, ...options });

suite('device: direct methods and modules', { concurrency: 8 }, ({ test }) => {
  test('device 83: the method topic ends with the rid', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    for (const methodName of ['reboot', 'a_b-c.d', 'X']) {
      const called = invoke(service, one, { methodName });
      const request = await wire.publishOn(prefix);
      assert.match(request.topic, new RegExp(`^\\$iothub/methods/POST/${methodName.replace('.', '\\.')}/\\?\\$rid=[0-9A-Za-z-]+$`));
      assert.equal(request.qos, 0);
      assert.equal(request.retain, false);
      await answer(wire, request, 200);
      assert.equal((await called).status, 200);
    }
  });

  test('device 84: an absent payload gives an empty body, payload null gives null', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const bodies = [];
    for (const body of [{ methodName: 'm' }, { methodName: 'm', payload: null }]) {
      const called = invoke(service, one, body);
      const request = await wire.publishOn(prefix);
      bodies.push(request.payload.toString());
      await answer(wire, request, 200);
      await called;
    }
    assert.deepEqual(bodies, ['', 'null']);
  });

  test('device 85: a response with JSON or empty body returns status and payload to the caller', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const cases = [[200, '{"a":[1,2,{"b":null}]}', { a: [1, 2, { b: null }] }], [200, '', null], [404, '"text"', 'text'], [500, '[1]', [1]], [-7, 'null', null], [1, '3.5', 3.5], [201, 'true', true]];
    for (const [status, body, payload] of cases) {
      const called = invoke(service, one, { methodName: 'm', payload: 1 });
      await answer(wire, await wire.publishOn(prefix), status, body);
      const reply = await called;
      assert.equal(reply.status, 200, reply.text);
      assert.deepEqual(reply.json, { status, payload });
    }
  });

  test('device 85: a response that is not JSON is an error to the caller, not a hang', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const called = invoke(service, one, { methodName: 'm' });
    await answer(wire, await wire.publishOn(prefix), 200, '{broken');
    const reply = await within(patience, 'answer to the caller', called);
    assert.ok(reply.status >= 400, reply.text);
    assert.ok(reply.json, reply.text);
    await wire.ping();
  });

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 85: the unmodified SDKs over ${name}: invokeDeviceMethod and onDeviceMethod`, async ({ service, hub, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transports[name]);
      defer(() => client.close());
      const seen = [];
      client.onDeviceMethod('reboot', (request, response) => {
        seen.push({ name: request.methodName, payload: request.payload });
        response.send(202, { in: 5 }, () => {});
      });
      const admin = serviceClient(hub);
      const { result } = await eventually('the method subscription', () => admin.invokeDeviceMethod(one.deviceId, { methodName: 'reboot', payload: { delay: 1 }, responseTimeoutInSeconds: 5 }).catch(() => null));
      assert.deepEqual(result, { status: 202, payload: { in: 5 } });
      assert.deepEqual(seen, [{ name: 'reboot', payload: { delay: 1 } }]);
    });
  }

  test('device 86: offline, and online without subscription, get 404 with 404103 at once', async ({ service, defer }) => {
    const offline = await newDevice(service);
    const deaf = await newDevice(service);
    const wire = await Wire.session(deaf);
    defer(() => wire.cut());
    await wire.subscribe('$iothub/twin/res/#');
    for (const one of [offline, deaf]) {
      for (const body of [{}, { connectTimeoutInSeconds: 0 }]) {
        const started = performance.now();
        const reply = await invoke(service, one, { methodName: 'm', ...body });
        assert.ok(performance.now() - started < 1000);
        assert.equal(reply.status, 404);
        assert.equal(reply.headers['iothub-errorcode'], 'DeviceNotOnline');
        assert.equal(nested(reply).errorCode, 404103);
      }
    }
  });

  test('device 87: connectTimeout 20 and a device that connects after 5 s: succeeds', async ({ service, defer }) => {
    const one = await newDevice(service);
    const started = performance.now();
    const called = invoke(service, one, { methodName: 'late', payload: 'p', connectTimeoutInSeconds: 20, responseTimeoutInSeconds: 20 });
    await sleep(5000);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe(filter);
    const request = await wire.publishOn(prefix);
    assert.equal(request.payload.toString(), '"p"');
    await answer(wire, request, 200, '"done"');
    const reply = await within(patience, 'answer to the caller', called);
    assert.deepEqual(reply.json, { status: 200, payload: 'done' }, reply.text);
    assert.ok(performance.now() - started < 8000);
  });

  test('device 88: no answer: 504 after the response timeout; a later answer is ignored and acknowledged', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const started = performance.now();
    const called = invoke(service, one, { methodName: 'slow', responseTimeoutInSeconds: 5 });
    const request = await wire.publishOn(prefix);
    const reply = await called;
    const took = performance.now() - started;
    assert.equal(reply.status, 504, reply.text);
    assert.equal(nested(reply).errorCode, 504101);
    assert.ok(took > 4900 && took < 8000, `answered after ${Math.round(took)} ms`);
    // At QoS 1 the PUBACK shows that it was taken and dropped.
    await answer(wire, request, 200, '"late"', { qos: 1 });
    await answer(wire, { topic: `${prefix}slow/?$rid=neverused` }, 200, '1', { qos: 1 });
    await wire.ping();
    const again = invoke(service, one, { methodName: 'next' });
    await answer(wire, await wire.publishOn(prefix), 200, '"fresh"');
    assert.deepEqual((await again).json, { status: 200, payload: 'fresh' });
  });

  test('device 88: a connection lost while waiting ends the call with an error before the timeout', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const called = invoke(service, one, { methodName: 'gone', responseTimeoutInSeconds: 30 });
    await wire.publishOn(prefix);
    await wire.cut();
    const reply = await within(patience, 'answer to the caller', called);
    assert.ok([404, 504].includes(reply.status), reply.text);
    assert.ok([404103, 404104, 504101].includes(nested(reply).errorCode), reply.text);
  });

  test('device 89: the name comp*cmd is transmitted raw', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const called = invoke(service, one, { methodName: 'comp*cmd' });
    const request = await wire.publishOn(prefix);
    assert.ok(request.topic.startsWith('$iothub/methods/POST/comp*cmd/?$rid='), request.topic);
    await answer(wire, request, 200);
    assert.equal((await called).status, 200);
  });

  test('device 90: a payload of 128 KB passes both ways, more is refused before sending', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const limit = 128 * 1024;
    const payload = 'x'.repeat(limit - 2);
    const called = invoke(service, one, { methodName: 'big', payload });
    const request = await wire.publishOn(prefix);
    assert.equal(request.payload.length, limit);
    assert.equal(JSON.parse(request.payload), payload);
    await answer(wire, request, 200, request.payload);
    const reply = await called;
    assert.equal(reply.status, 200, reply.text.slice(0, 300));
    assert.equal(reply.json.payload.length, limit - 2);
    const refused = await invoke(service, one, { methodName: 'bigger', payload: `${payload}y` });
    assert.ok([400, 413].includes(refused.status), refused.text.slice(0, 300));
    await wire.ping();
    assert.deepEqual(wire.inbox.map((packet) => packet.topic), []);
  });

  test('device 91: a method invoked right after the CONNACK of a resumed session reaches the device', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    await wire.disconnect();
    for (let round = 0; round < 10; round++) {
      const again = await Wire.session(one);
      assert.equal(again.sessionPresent, true);
      const called = invoke(service, one, { methodName: `round${round}`, payload: round });
      const request = await again.publishOn(`${prefix}round${round}/`);
      await answer(again, request, 200, String(round));
      assert.deepEqual((await called).json, { status: 200, payload: round });
      await again.disconnect();
    }
  });

  test('device 85: twenty methods in flight are answered in any order', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const calls = Array.from({ length: 20 }, (_, i) => invoke(service, one, { methodName: 'many', payload: i }));
    const requests = [];
    for (let i = 0; i < 20; i++) requests.push(await wire.publishOn(prefix));
    assert.equal(new Set(requests.map(ridOf)).size, 20);
    for (const request of requests.reverse()) await answer(wire, request, 200, request.payload);
    assert.deepEqual((await Promise.all(calls)).map((reply) => reply.json.payload), Array.from({ length: 20 }, (_, i) => i));
  });

  test('device 92: a module connects as D/M; its twin, methods and telemetry are apart from its device\'s', async ({ service, defer }) => {
    const one = await newDevice(service);
    const module = await newModule(service, one);
    const [device, inner] = [await Wire.session(one), await Wire.session(module)];
    defer(() => device.cut());
    defer(() => inner.cut());
    for (const wire of [device, inner]) await wire.subscribe('$iothub/twin/res/#', '$iothub/twin/PATCH/properties/desired/#', filter);
    assert.equal((await device.report({ who: 'device' })).status, 204);
    assert.equal((await inner.report({ who: 'module', more: 1 })).status, 204);
    assert.equal((await inner.report({ more: 2 })).status, 204);
    assert.deepEqual((await device.twin()).json.reported, { who: 'device', $version: 2 });
    assert.deepEqual((await inner.twin()).json.reported, { who: 'module', more: 2, $version: 3 });
    await service.patch(twinPath(one.deviceId), { properties: { desired: { for: 'device' } } });
    await service.patch(twinPath(one.deviceId, 'm1'), { properties: { desired: { for: 'module' } } });
    assert.equal(JSON.parse((await device.publishOn('$iothub/twin/PATCH/')).payload).for, 'device');
    assert.equal(JSON.parse((await inner.publishOn('$iothub/twin/PATCH/')).payload).for, 'module');
    for (const [target, wire, other] of [[one, device, inner], [module, inner, device]]) {
      const called = invoke(service, target, { methodName: 'who', payload: target.identity });
      const request = await wire.publishOn(prefix);
      assert.equal(request.payload.toString(), JSON.stringify(target.identity));
      await answer(wire, request, 200, request.payload);
      assert.deepEqual((await called).json.payload, target.identity);
      await other.ping();
      assert.deepEqual(other.inbox.map((packet) => packet.topic), []);
    }
    await device.publish(`devices/${one.deviceId}/messages/events/`, 'x');
    await inner.publish(`devices/${one.deviceId}/modules/m1/messages/events/`, 'x');
    // Each may publish on its own topic alone.
    inner.send({ cmd: 'publish', topic: `devices/${one.deviceId}/messages/events/`, payload: 'x', qos: 1, messageId: 9 });
    await inner.closes();
    await device.ping();
  });

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 92: the unmodified ModuleClient over ${name} has a twin and methods of its own`, async ({ service, hub, defer }) => {
      const one = await newDevice(service);
      const module = await newModule(service, one);
      const client = await openClient(module, transports[name]);
      defer(() => client.close());
      client.onMethod('ping', (request, response) => response.send(200, request.payload, () => {}));
      const twin = await within(patience, 'getTwin', client.getTwin());
      await updateReported(twin, { from: 'module' });
      assert.equal((await service.get(twinPath(one.deviceId, 'm1'))).json.properties.reported.from, 'module');
      assert.equal((await service.get(twinPath(one.deviceId))).json.properties.reported.from, undefined);
      const admin = serviceClient(hub);
      const { result } = await within(patience, 'invokeDeviceMethod of a module', admin.invokeDeviceMethod(one.deviceId, 'm1', { methodName: 'ping', payload: 'x', responseTimeoutInSeconds: 5 }));
      assert.deepEqual(result, { status: 200, payload: 'x' });
    });
  }

  test('device 93: device and modules of the same device are connected at once without kicking each other', async ({ service, defer }) => {
    const one = await newDevice(service);
    const identities = [one, await newModule(service, one, 'm1'), await newModule(service, one, 'm2')];
    const wires = [];
    for (const identity of identities) {
      const wire = await Wire.session(identity, { via: wires.length % 2 ? 'ws' : 'tls' });
      defer(() => wire.cut());
      wires.push(wire);
    }
    await sleep(500);
    for (const wire of wires) {
      assert.equal(wire.ended, false);
      await wire.ping();
    }
    // A second connection of the one takes over from the one alone.
    const second = await Wire.session(identities[1]);
    defer(() => second.cut());
    await wires[1].closes();
    await wires[0].ping();
    await wires[2].ping();
  });

  test('device 88: a method answer with a huge or malformed status harms nobody', async ({ service, defer }) => {
    const { one, wire } = await listening(service, defer);
    const bystander = await listening(service, defer);
    const called = invoke(service, one, { methodName: 'm', responseTimeoutInSeconds: 5 });
    const request = await wire.publishOn(prefix);
    const rid = ridOf(request);
    await wire.publish(`$iothub/methods/res/99999999999999999999/?$rid=${rid}`, randomBytes(10), { qos: 0 });
    const reply = await called;
    assert.ok(reply.status >= 400, reply.text);
    await bystander.wire.ping();
  });
});
