// Service checklist: direct methods, items 78 to 83.
import { suite } from './lib/suite.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, nested, newDevice, newModule, openClient, patience, serviceClient, sleep, transports, twinPath, uniqueId, within } from './lib/fixture.mjs';

const prefix = '$iothub/methods/POST/';

async function answering(wire, status, payload) {
  const request = await wire.publishOn(prefix);
  const rid = request.topic.split('?$rid=')[1];
  wire.send({ cmd: 'publish', topic: `$iothub/methods/res/${status}/?$rid=${rid}`, payload: payload ?? '', qos: 0 });
  return request;
}

async function listening(service, defer) {
  const one = await newDevice(service);
  const wire = await Wire.session(one);
  defer(() => wire.cut());
  await wire.subscribe(`${prefix}#`);
  return { one, wire, invoke: (body) => service.post(`${twinPath(one.deviceId)}/methods`, { responseTimeoutInSeconds: 10, ...body }) };
}

suite('service: direct methods', { concurrency: 6 }, ({ test }) => {
  test('service 78: a device status of 400 and its payload come back as HTTP 200', async ({ service, hub, defer }) => {
    const { one, wire, invoke } = await listening(service, defer);
    for (const [status, payload] of [[400, { reason: 'no' }], [500, null], [0, 'zero'], [200, [1]], [404, 'x']]) {
      const called = invoke({ methodName: 'm' });
      await answering(wire, status, JSON.stringify(payload));
      const reply = await called;
      assert.equal(reply.status, 200, reply.text);
      assert.deepEqual(reply.json, { status, payload });
      assert.match(reply.headers['content-type'], /application\/json/);
    }
    const called = serviceClient(hub).invokeDeviceMethod(one.deviceId, { methodName: 'm' });
    await answering(wire, 400, '{"a":1}');
    assert.deepEqual((await called).result, { status: 400, payload: { a: 1 } });
  });

  test('service 79: each kind of payload reaches the device as sent', async ({ service, defer }) => {
    const { one, wire, invoke } = await listening(service, defer);
    for (const text of ['null', '""', '[]', '[1,{"a":null}]', '0', '1.0', '-3', '"text"', '"grün ☂"', '{}', '{"a":{"b":[true,false]}}', 'true']) {
      const called = service.post(`${twinPath(one.deviceId)}/methods`, `{"methodName":"m","responseTimeoutInSeconds":10,"payload":${text}}`);
      const request = await answering(wire, 200, text);
      assert.equal(request.payload.toString().replaceAll(' ', ''), text.replaceAll(' ', ''), text);
      assert.deepEqual((await called).json, { status: 200, payload: JSON.parse(text) });
    }
    const called = invoke({ methodName: 'm' });
    const request = await answering(wire, 200);
    assert.equal(request.payload.length, 0);
    assert.deepEqual((await called).json, { status: 200, payload: null });
  });

  test('service 79: an absent payload reaches Microsoft\'s device SDK as null', async ({ service, hub, defer }) => {
    const one = await newDevice(service);
    const client = await openClient(one, transports.MqttWs);
    defer(() => client.close());
    const seen = [];
    client.onDeviceMethod('m', (request, response) => { seen.push(request.payload); response.send(200, null, () => {}); });
    await sleep(500);
    for (const payload of [undefined, null, '', 0, [1], { a: 1 }]) {
      await within(patience, 'invoke', serviceClient(hub).invokeDeviceMethod(one.deviceId, { methodName: 'm', payload, responseTimeoutInSeconds: 5 }));
    }
    assert.deepEqual(seen, [null, null, '', 0, [1], { a: 1 }]);
  });

  test('service 80: responseTimeout 4 or 301 gets 400; connectTimeout above response gets 400 with 400004', async ({ service, defer }) => {
    const { wire, invoke } = await listening(service, defer);
    for (const timeouts of [{ responseTimeoutInSeconds: 4 }, { responseTimeoutInSeconds: 301 }, { responseTimeoutInSeconds: -1 }, { connectTimeoutInSeconds: 301 }, { connectTimeoutInSeconds: -1 }, { responseTimeoutInSeconds: 10, connectTimeoutInSeconds: 11 }]) {
      const started = performance.now();
      const reply = await invoke({ methodName: 'm', ...timeouts });
      assert.equal(reply.status, 400, `${JSON.stringify(timeouts)}: ${reply.text}`);
      assert.equal(nested(reply).errorCode, 400004, reply.text);
      assert.equal(reply.headers['iothub-errorcode'], 'ArgumentInvalid');
      assert.ok(performance.now() - started < 1000);
    }
    await wire.ping();
    assert.deepEqual(wire.inbox, []);
    for (const timeouts of [{ responseTimeoutInSeconds: 5 }, { responseTimeoutInSeconds: 300, connectTimeoutInSeconds: 300 }]) {
      const called = invoke({ methodName: 'm', ...timeouts });
      await answering(wire, 200);
      assert.equal((await called).status, 200);
    }
  });

  test('service 81: with connectTimeout 10 a device that connects after 5 s still gets the call', async ({ service, hub, defer }) => {
    const one = await newDevice(service);
    const called = serviceClient(hub).invokeDeviceMethod(one.deviceId, { methodName: 'm', payload: 7, connectTimeoutInSeconds: 10, responseTimeoutInSeconds: 10 });
    await sleep(5000);
    const client = await openClient(one, transports.Mqtt);
    defer(() => client.close());
    client.onDeviceMethod('m', (request, response) => response.send(200, request.payload, () => {}));
    const { result } = await within(patience, 'answer', called);
    assert.deepEqual(result, { status: 200, payload: 7 });
  });

  test('service 81: a device that does not come in time gets 404103 after the connect timeout', async ({ service }) => {
    const one = await newDevice(service);
    const started = performance.now();
    const reply = await service.post(`${twinPath(one.deviceId)}/methods`, { methodName: 'm', connectTimeoutInSeconds: 3, responseTimeoutInSeconds: 5 });
    const took = performance.now() - started;
    assert.equal(nested(reply).errorCode, 404103, reply.text);
    assert.ok(took > 2900 && took < 4000, `${Math.round(took)} ms`);
  });

  test('service 82: an unknown device gets 404001, an unknown module 404010', async ({ service }) => {
    const one = await newDevice(service);
    await newModule(service, one);
    const cases = [[twinPath(uniqueId('nobody')), 404001, 'DeviceNotFound'], [twinPath(one.deviceId, 'none'), 404010, 'ModuleNotFound'], [twinPath(uniqueId('nobody'), 'm1'), 404001, 'DeviceNotFound']];
    for (const [target, code, name] of cases) {
      const reply = await service.post(`${target}/methods`, { methodName: 'm' });
      assert.equal(reply.status, 404, reply.text);
      assert.equal(reply.headers['iothub-errorcode'], name);
      assert.equal(nested(reply).errorCode, code);
    }
  });

  test('service 83: a payload of 128 KB + 1 is refused with 400 or 413, of 128 KB it passes', async ({ service, defer }) => {
    const { wire, invoke } = await listening(service, defer);
    const limit = 128 * 1024;
    const refused = await invoke({ methodName: 'm', payload: 'x'.repeat(limit - 1) });
    assert.ok([400, 413].includes(refused.status), refused.text.slice(0, 200));
    assert.ok(nested(refused).errorCode);
    await wire.ping();
    assert.deepEqual(wire.inbox, []);
    const called = invoke({ methodName: 'm', payload: 'x'.repeat(limit - 2) });
    await answering(wire, 200);
    assert.equal((await called).status, 200);
  });
});
