// Device checklist: connection life, items 32 to 34, 36, 38, 40 to 43, 45, 47
// and 48, and telemetry, items 52, 55 and 58.
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import device from 'azure-iot-device';
import { suite } from './lib/suite.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, eventually, modulePath, newDevice, newKey, newModule, openClient, path, patience, serviceClient, sleep, transports, twinPath, within } from './lib/fixture.mjs';

const events = (id) => `devices/${id}/messages/events/`;
const allFilters = (id) => ['$iothub/twin/res/#', '$iothub/twin/PATCH/properties/desired/#', '$iothub/methods/POST/#', { topic: `devices/${id}/messages/devicebound/#`, qos: 1 }];

async function stateOf(service, id) {
  return (await service.get(path(id))).json.connectionState;
}

// echo answers each direct method with 200 and its own payload.
async function echoOnce(wire) {
  const request = await wire.publishOn('$iothub/methods/POST/');
  const rid = request.topic.split('?$rid=')[1];
  wire.send({ cmd: 'publish', topic: `$iothub/methods/res/200/?$rid=${rid}`, payload: request.payload, qos: 0 });
  return request;
}

suite('device: connection life', { concurrency: 6 }, ({ test }) => {
  const closers = {
    'new keys by PUT': ({ service, one }) => service.put(path(one.deviceId), { deviceId: one.deviceId, authentication: { type: 'sas', symmetricKey: { primaryKey: newKey(), secondaryKey: newKey() } } }, { ifMatch: '*' }),
    'regenerated keys': ({ service, one }) => service.post('/devices/keys/regenerate', { policyKey: 'both', devices: [{ id: one.deviceId }] }, { version: '2024-03-31' }),
    disable: ({ service, one }) => service.put(path(one.deviceId), { ...one.record, status: 'disabled' }, { ifMatch: '*' }),
    'disable in bulk': ({ service, one }) => service.post('/devices', [{ id: one.deviceId, importMode: 'update', status: 'disabled', authentication: one.record.authentication }]),
    delete: ({ service, one }) => service.delete(path(one.deviceId), { ifMatch: '*' }),
    'delete in bulk': ({ service, one }) => service.post('/devices', [{ id: one.deviceId, importMode: 'delete' }]),
  };
  for (const [name, close] of Object.entries(closers)) {
    for (const via of ['tls', 'ws']) {
      test(`device 32: ${name} of a device closes its live connection over ${via} within a second and refuses the next`, async ({ service, defer }) => {
        const one = await newDevice(service);
        const bystander = await Wire.session(await newDevice(service));
        const wire = await Wire.session(one, { via });
        defer(() => wire.cut());
        defer(() => bystander.cut());
        await wire.subscribe(...allFilters(one.deviceId));
        const reply = await close({ service, one });
        const asked = performance.now();
        assert.ok([200, 204].includes(reply.status), reply.text);
        const closedAt = await wire.closes(2000);
        assert.ok(closedAt - asked < 1000, `closed after ${Math.round(closedAt - asked)} ms`);
        const next = await Wire.connect(one, { via });
        assert.equal(next.connack?.returnCode, 5);
        await next.wire.closes();
        await bystander.ping();
      });
    }
  }

  test('device 32: a module loses its connection with its keys, with itself and with its device', async ({ service, defer }) => {
    const steps = {
      'new keys': (m) => service.put(modulePath(m.deviceId, m.moduleId), { deviceId: m.deviceId, moduleId: m.moduleId, authentication: { type: 'sas', symmetricKey: { primaryKey: newKey(), secondaryKey: newKey() } } }, { ifMatch: '*' }),
      'module deleted': (m) => service.delete(modulePath(m.deviceId, m.moduleId), { ifMatch: '*' }),
      'device disabled': async (m) => service.put(path(m.deviceId), { ...(await service.get(path(m.deviceId))).json, status: 'disabled' }, { ifMatch: '*' }),
      'device deleted': (m) => service.delete(path(m.deviceId), { ifMatch: '*' }),
    };
    for (const [name, step] of Object.entries(steps)) {
      const module = await newModule(service, await newDevice(service));
      const wire = await Wire.session(module);
      defer(() => wire.cut());
      const reply = await step(module);
      assert.ok([200, 204].includes(reply.status), `${name}: ${reply.text}`);
      const asked = performance.now();
      const closedAt = await wire.closes(2000);
      assert.ok(closedAt - asked < 1000, `${name}: closed after ${Math.round(closedAt - asked)} ms`);
      const next = await Wire.connect(module);
      assert.equal(next.connack?.returnCode, 5, name);
      await next.wire.closes();
    }
  });

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 32: the unmodified SDK over ${name} is told by a disconnect event when its device is disabled`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transports[name]);
      defer(() => client.close());
      const disconnected = once(client, 'disconnect');
      const reply = await service.put(path(one.deviceId), { ...one.record, status: 'disabled' }, { ifMatch: '*' });
      assert.equal(reply.status, 200);
      await within(patience, 'disconnect event', disconnected);
    });
  }

  test('device 33: the second connection gets CONNACK 0, the first socket closes, the device stays connected', async ({ service, defer }) => {
    const one = await newDevice(service);
    const first = await Wire.session(one);
    defer(() => first.cut());
    await eventually('connected', async () => (await stateOf(service, one.deviceId)) === 'Connected');
    const states = [];
    let watching = true;
    const watch = (async () => {
      while (watching) states.push(await stateOf(service, one.deviceId));
    })();
    for (const via of ['ws', 'tls', 'ws']) {
      const next = await Wire.session(one, { via });
      defer(() => next.cut());
      if (via === 'ws' && !first.ended) await first.closes(2000);
      await next.ping();
    }
    await sleep(200);
    watching = false;
    await watch;
    assert.equal(first.ended, true);
    assert.ok(states.length > 3);
    assert.deepEqual([...new Set(states)], ['Connected']);
  });

  test('device 33: the newest of twenty connections in a row is the one that stays', async ({ service, defer }) => {
    const one = await newDevice(service);
    const all = await Promise.all(Array.from({ length: 20 }, () => Wire.connect(one, { clean: true })));
    for (const { wire } of all) defer(() => wire.cut());
    const open = await eventually('one open connection', () => {
      const alive = all.filter(({ wire }) => !wire.ended);
      return alive.length === 1 && alive;
    });
    assert.equal(open[0].connack.returnCode, 0);
    await open[0].wire.ping();
    assert.equal(await stateOf(service, one.deviceId), 'Connected');
  });

  test('device 34: a late close of the first socket does not flip the connection state', async ({ service, defer }) => {
    const one = await newDevice(service);
    // The first client does not answer the server's close: its half stays open.
    const first = await Wire.session(one, { tls: { allowHalfOpen: true } });
    first.socket.pause();
    const second = await Wire.session(one);
    defer(() => second.cut());
    await second.subscribe('$iothub/methods/POST/#');
    await sleep(300);
    first.destroy();
    for (let i = 0; i < 20; i++) {
      assert.equal(await stateOf(service, one.deviceId), 'Connected');
      await sleep(25);
    }
    const answered = echoOnce(second);
    const reply = await service.post(`${twinPath(one.deviceId)}/methods`, { methodName: 'still', payload: 1, responseTimeoutInSeconds: 5 });
    assert.equal(reply.status, 200, reply.text);
    await answered;
    await second.disconnect();
    await eventually('disconnected', async () => (await stateOf(service, one.deviceId)) === 'Disconnected');
  });

  for (const via of ['tls', 'ws']) {
    for (const leave of ['disconnect', 'cut']) {
      test(`device 36: after ${leave} over ${via} a reconnect without SUBSCRIBE still receives desired patches, methods and twin answers`, async ({ service, defer }) => {
        const one = await newDevice(service);
        const first = await Wire.session(one, { via });
        await first.subscribe(...allFilters(one.deviceId));
        await first[leave]();
        const second = await Wire.session(one, { via });
        defer(() => second.cut());
        assert.equal((await second.twin()).json.desired.$version, 1);
        const patched = await service.patch(twinPath(one.deviceId), { properties: { desired: { level: 3 } } });
        assert.equal(patched.status, 200, patched.text);
        const desired = await second.publishOn('$iothub/twin/PATCH/properties/desired/');
        assert.deepEqual(JSON.parse(desired.payload), { level: 3, $version: 2 });
        const called = echoOnce(second);
        const reply = await service.post(`${twinPath(one.deviceId)}/methods`, { methodName: 'ping', payload: { a: 1 }, responseTimeoutInSeconds: 5 });
        assert.deepEqual(reply.json, { status: 200, payload: { a: 1 } });
        await called;
      });
    }
  }

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 36: the unmodified SDK over ${name} keeps methods, twin and desired properties over its own token renewals`, async ({ service, hub, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transports[name], (c) => c.setOptions({ tokenRenewal: { tokenValidTimeInSeconds: 6, tokenRenewalMarginInSeconds: 4 } }));
      defer(() => client.close());
      client.onDeviceMethod('ping', (request, response) => response.send(200, { got: request.payload }, () => {}));
      const twin = await client.getTwin();
      const seen = [];
      twin.on('properties.desired', (delta) => seen.push(delta));
      await eventually('the first desired event', () => seen.length > 0);
      // The renewal reconnects every two seconds: wait for more than one.
      await sleep(5500);
      const admin = serviceClient(hub);
      const { result } = await within(patience, 'invokeDeviceMethod', admin.invokeDeviceMethod(one.deviceId, { methodName: 'ping', payload: 'x', responseTimeoutInSeconds: 5, connectTimeoutInSeconds: 5 }));
      assert.deepEqual(result, { status: 200, payload: { got: 'x' } });
      await service.patch(twinPath(one.deviceId), { properties: { desired: { after: 'renewal' } } });
      await eventually('the desired change after the renewal', () => seen.some((delta) => delta.after === 'renewal'));
    });
  }

  test('device 38: session-present is 0 on a first connect, 1 on a resumed session, 0 after a clean one', async ({ service }) => {
    const one = await newDevice(service);
    const first = await Wire.session(one);
    assert.equal(first.sessionPresent, false);
    await first.subscribe('$iothub/methods/POST/#');
    await first.disconnect();
    const second = await Wire.session(one);
    assert.equal(second.sessionPresent, true);
    await second.cut();
    const clean = await Wire.session(one, { clean: true });
    assert.equal(clean.sessionPresent, false);
    await clean.disconnect();
    const last = await Wire.session(one);
    assert.equal(last.sessionPresent, false);
    await last.disconnect();
  });

  test('CleanSession 1 forgets the stored subscriptions', async ({ service }) => {
    const one = await newDevice(service);
    const first = await Wire.session(one);
    await first.subscribe('$iothub/methods/POST/#');
    await first.disconnect();
    const clean = await Wire.session(one, { clean: true });
    const reply = await service.post(`${twinPath(one.deviceId)}/methods`, { methodName: 'x', responseTimeoutInSeconds: 5 });
    assert.equal(reply.status, 404);
    await clean.disconnect();
  });

  test('device 40: a publish at QoS 2 closes the connection', async ({ service }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    wire.send({ cmd: 'publish', topic: events(one.deviceId), payload: 'x', qos: 2, messageId: 1 });
    await wire.closes();
    assert.equal(wire.inbox.length, 0);
  });

  test('device 40: a subscription at QoS 2 is granted 1', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    assert.deepEqual(await wire.subscribe({ topic: `devices/${one.deviceId}/messages/devicebound/#`, qos: 2 }), [1]);
  });

  test('device 41: SUBSCRIBE with five filters returns five codes in order', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    const granted = await wire.subscribe(
      { topic: `devices/${one.deviceId}/messages/devicebound/#`, qos: 1 },
      { topic: '$iothub/twin/res/#', qos: 0 },
      { topic: '$iothub/twin/PATCH/properties/desired/#', qos: 2 },
      { topic: '$iothub/methods/POST/#', qos: 0 },
      { topic: 'devices/+/messages/devicebound/#', qos: 1 },
    );
    assert.deepEqual(granted, [1, 0, 1, 0, 1]);
  });

  const wrongTopics = (one, other) => [
    'nowhere', '/', `devices/${other}/messages/events/`, `devices/${one}/messages/eventsx`, `devices/${one}/messages/event`,
    `devices/${one}/modules/m1/messages/events/`, `Devices/${one}/messages/events/`, `devices/${one}/messages/devicebound/`,
    `devices/${one.toUpperCase()}/messages/events/`, '$iothub/twin/', '$iothub/twin/PATCH/properties/desired/?$rid=1', '$iothub/streams/x', '$iothub/methods/POST/x/?$rid=1', '$dps/registrations/PUT/iotdps-register/?$rid=1', '$SYS/x',
  ];
  test('device 42: a publish to an unknown topic or to another device\'s closes the connection', async ({ service }) => {
    const one = await newDevice(service);
    const other = await newDevice(service);
    for (const qos of [0, 1]) {
      for (const topic of wrongTopics(one.deviceId, other.deviceId)) {
        const wire = await Wire.session(one);
        wire.send({ cmd: 'publish', topic, payload: 'x', qos, messageId: 1 });
        await wire.closes().catch((error) => { throw new Error(`${topic} at QoS ${qos}: ${error.message}`); });
        assert.deepEqual(wire.inbox.map((packet) => packet.cmd), [], topic);
      }
    }
  });

  test('device 43: a subscription to # or to another device\'s filter closes the connection', async ({ service }) => {
    const one = await newDevice(service);
    const other = await newDevice(service);
    for (const filter of ['#', '+/#', '$iothub/#', '$iothub/twin/#', `devices/${other.deviceId}/messages/devicebound/#`, `devices/${one.deviceId}/#`, `devices/${one.deviceId}/messages/events/#`, `devices/${one.deviceId}/modules/+/inputs/#`, 'devices/+/#', '$SYS/#', 'devices/+/messages/events/#']) {
      const wire = await Wire.session(one);
      wire.send({ cmd: 'subscribe', messageId: 1, subscriptions: [{ topic: filter, qos: 0 }] });
      await wire.closes().catch((error) => { throw new Error(`${filter}: ${error.message}`); });
      assert.deepEqual(wire.inbox.map((packet) => packet.cmd), [], filter);
    }
  });

  test('device 45: the three module filters are accepted', async ({ service, defer }) => {
    const one = await newDevice(service);
    const module = await newModule(service, one);
    const wire = await Wire.session(module);
    defer(() => wire.cut());
    const base = `devices/${one.deviceId}/modules/m1`;
    assert.deepEqual(await wire.subscribe({ topic: `${base}/#`, qos: 1 }, { topic: `${base}/inputs/#`, qos: 1 }, { topic: `${base}/messages/devicebound/#`, qos: 1 }), [1, 1, 1]);
    for (const filter of [`${base}/#`, `${base}/inputs/#`, `${base}/messages/devicebound/#`]) assert.deepEqual(await wire.subscribe(filter), [0], filter);
    await wire.ping();
  });

  test('device 47: PUBACK with an unknown packet id, or id 0, is ignored', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    wire.write(Buffer.from([0x40, 2, 0, 0]));
    wire.write(Buffer.from([0x40, 2, 0x12, 0x34]));
    await wire.ping();
    await wire.publish(events(one.deviceId), 'still here');
  });

  test('device 48: UNSUBSCRIBE of a filter that is not held gets UNSUBACK', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    for (const [i, filter] of ['$iothub/methods/POST/#', `devices/${one.deviceId}/messages/devicebound/#`, 'some/filter/#'].entries()) {
      wire.send({ cmd: 'unsubscribe', messageId: 70 + i, unsubscriptions: [filter] });
      assert.equal((await wire.packet('unsuback')).messageId, 70 + i);
    }
    // And one that is held ends the delivery.
    await wire.subscribe('$iothub/methods/POST/#');
    wire.send({ cmd: 'unsubscribe', messageId: 80, unsubscriptions: ['$iothub/methods/POST/#'] });
    await wire.packet('unsuback');
    const reply = await service.post(`${twinPath(one.deviceId)}/methods`, { methodName: 'x', responseTimeoutInSeconds: 5 });
    assert.equal(reply.status, 404);
  });

  test('device 52: the events topic is accepted without trailing slash, with it, and with a bag and trailing slash', async ({ service, defer }) => {
    const one = await newDevice(service);
    const module = await newModule(service, one);
    for (const [identity, base] of [[one, `devices/${one.deviceId}/messages/events`], [module, `devices/${one.deviceId}/modules/m1/messages/events`]]) {
      const wire = await Wire.session(identity);
      defer(() => wire.cut());
      for (const topic of [base, `${base}/`, `${base}/a=1&%24.mid=m1`, `${base}/a=1&%24.on=out1/`]) {
        await wire.publish(topic, 'x', { qos: 0 });
        await wire.publish(topic, 'x', { qos: 1 });
      }
      await wire.publish(`${base}/`, '');
      await wire.publish(`${base}/`, randomBytes(100));
      await wire.ping();
    }
  });

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 52: the unmodified SDK over ${name} sends a message with every kind of property`, async ({ service, defer }) => {
      const client = await openClient(await newDevice(service), transports[name]);
      defer(() => client.close());
      const message = new device.Message(JSON.stringify({ temperature: 21 }));
      Object.assign(message, { messageId: 'm-1', correlationId: 'c 1', contentType: 'application/json', contentEncoding: 'utf-8', userId: 'ü' });
      message.properties.add('a b', 'c/d+e&f=g');
      message.properties.add('schlüssel', 'wert');
      await within(patience, 'sendEvent', client.sendEvent(message));
      await within(patience, 'two more', Promise.all(['1', '2'].map((body) => client.sendEvent(new device.Message(body)))));
    });
  }

  test('device 55: a malformed percent escape in the properties does not end the connection', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    for (const bag of ['a=%', 'a=%zz', '%=1', 'a=%2', 'a=%ff%fe', '&&&', '=', 'a=1&a=2', 'a', 'a b=c/d+e&%24.mid=m 1', '%24.zz=%zz&$.mid=1']) await wire.publish(events(one.deviceId) + bag, 'x');
    await wire.ping();
  });

  for (const via of ['tls', 'ws']) {
    test(`device 58: a body of 256 KiB is accepted over ${via}; one byte more is refused without harm to others`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const bystander = await Wire.session(await newDevice(service));
      defer(() => bystander.cut());
      const wire = await Wire.session(one, { via });
      defer(() => wire.cut());
      await wire.publish(events(one.deviceId), randomBytes(256 * 1024));
      wire.send({ cmd: 'publish', topic: events(one.deviceId), payload: randomBytes(256 * 1024 + 1), qos: 1, messageId: 99 });
      await wire.closes();
      assert.deepEqual(wire.inbox.filter((packet) => packet.cmd === 'puback'), []);
      await bystander.ping();
      const again = await Wire.session(one, { via });
      await again.ping();
      await again.cut();
    });
  }

});
