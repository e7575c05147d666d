// Device checklist: what becomes of telemetry, items 46, 49 to 51, 53, 54, 56,
// 57 and 59. What is stored is read back as the service reads it.
import { suite } from './lib/suite.mjs';
import { Wire, userName } from './lib/wire.mjs';
import { assert, eventually, newDevice, newModule, timestamp, openClient, transports } from './lib/fixture.mjs';
import common from 'azure-iot-common';

const events = (id, bag = '') => `devices/${id}/messages/events/${bag}`;

// stored gives what the hub keeps of a device, once there are that many.
async function stored(service, id, count) {
  return eventually(`${count} messages of ${id}`, async () => {
    const reply = await service.get(`/api/v1/events?cursor=start&kind=telemetry&limit=1000&device=${encodeURIComponent(id)}`);
    assert.equal(reply.status, 200, reply.text);
    const list = reply.json.events.map((event) => event.message);
    assert.ok(list.length <= count, `${list.length} messages of ${id}, want ${count}`);
    return list.length === count && list;
  });
}

const bytes = (message) => (message.encoding === 'base64' ? Buffer.from(message.body, 'base64') : Buffer.from(typeof message.body === 'string' ? message.body : JSON.stringify(message.body)));

suite('device: stored telemetry', { concurrency: 1 }, ({ test }) => {
  for (const via of ['tls', 'ws']) {
    test(`device 46: a retained message gains mqtt-retain, and nothing that the hub publishes is retained, over ${via}`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const wire = await Wire.session(one, { via });
      defer(() => wire.cut());
      await wire.subscribe('$iothub/twin/res/#', '$iothub/methods/POST/#', '$iothub/twin/PATCH/properties/desired/#');
      await wire.publish(events(one.deviceId), 'kept', { retain: true });
      await wire.publish(events(one.deviceId), 'plain');
      const [kept, plain] = await stored(service, one.deviceId, 2);
      assert.equal(kept.properties['mqtt-retain'], 'true');
      assert.equal(plain.properties?.['mqtt-retain'], undefined);
      const twin = await wire.packet((packet) => packet.cmd === 'publish', 1) .catch(() => undefined);
      assert.equal(twin, undefined, 'the retained message came back');
      wire.send({ cmd: 'publish', topic: '$iothub/twin/GET/?$rid=1', payload: ' ', qos: 0, retain: true });
      const answer = await wire.publishOn('$iothub/twin/res/200/?$rid=1');
      assert.equal(answer.retain, false);
      await service.patch(`/twins/${one.deviceId}`, { properties: { desired: { a: 1 } } });
      assert.equal((await wire.publishOn('$iothub/twin/PATCH/properties/desired/')).retain, false);
    });

    test(`device 49: a will on the own topic is stored after a cut and not after DISCONNECT, over ${via}`, async ({ service }) => {
      const one = await newDevice(service);
      const will = { topic: events(one.deviceId, 'why=gone'), payload: Buffer.from('lost'), qos: 1, retain: false };
      const polite = await Wire.session(one, { via, will });
      await polite.disconnect();
      const gone = await Wire.session(one, { via, will });
      await gone.publish(events(one.deviceId), 'first');
      await gone.cut();
      const [first, last] = await stored(service, one.deviceId, 2);
      assert.equal(first.body, 'first');
      assert.equal(last.body, 'lost');
      assert.equal(last.properties['iothub-MessageType'], 'Will');
      assert.equal(last.properties.why, 'gone');
    });
  }

  test('device 49: a will on a foreign topic refuses CONNECT', async ({ service }) => {
    const [one, other] = [await newDevice(service), await newDevice(service)];
    for (const topic of [events(other.deviceId), 'anything', '$iothub/twin/GET/?$rid=1']) {
      const { wire, connack } = await Wire.connect(one, { will: { topic, payload: Buffer.from('x'), qos: 0, retain: false } });
      assert.ok(connack === undefined || connack.returnCode !== 0, `the will on ${topic} was taken`);
      await wire.closes();
    }
    assert.equal((await stored(service, other.deviceId, 0)).length, 0);
  });

  test('device 50: a message is stored when its PUBACK comes, also when the hub is killed at once; QoS 0 is accepted', async ({ service, hub }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    await wire.publish(events(one.deviceId), 'without', { qos: 0 });
    const ids = [];
    for (let n = 0; n < 200; n += 1) {
      ids.push(wire.nextId++);
      wire.send({ cmd: 'publish', topic: events(one.deviceId, `n=${n}`), payload: `${n}`, qos: 1, messageId: ids.at(-1), retain: false, dup: false });
    }
    const acknowledged = [];
    for (let n = 0; n < 100; n += 1) acknowledged.push((await wire.packet('puback')).messageId);
    await hub.restart('SIGKILL');
    for (let more = wire.inbox.filter((packet) => packet.cmd === 'puback'); more.length > 0; more = []) acknowledged.push(...more.map((packet) => packet.messageId));
    const reply = await service.get(`/api/v1/events?cursor=start&kind=telemetry&limit=1000&device=${one.deviceId}`);
    const kept = new Set(reply.json.events.map((event) => event.message.properties?.n));
    for (const id of acknowledged) assert.ok(kept.has(`${ids.indexOf(id)}`), `message ${ids.indexOf(id)} was acknowledged and is not there`);
  });

  test('device 51: empty and binary payloads are stored unchanged', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    const all = Buffer.from(Array.from({ length: 256 }, (_, byte) => byte));
    const sent = [Buffer.alloc(0), all, Buffer.from('grüße ☃'), Buffer.from('{"a": 1}'), Buffer.from([0]), Buffer.from('null')];
    for (const payload of sent) await wire.publish(events(one.deviceId), payload);
    const came = await stored(service, one.deviceId, sent.length);
    came.forEach((message, n) => {
      if (message.encoding === 'json') assert.deepEqual(message.body, JSON.parse(sent[n].toString()));
      else assert.deepEqual(bytes(message), sent[n], `message ${n}: ${JSON.stringify(message)}`);
    });
  });

  test('device 53: the bag a b=c/d+e&%24.mid=m 1 yields the property and the message id', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.publish(events(one.deviceId, 'a b=c/d+e&%24.mid=m 1'), 'x');
    const [message] = await stored(service, one.deviceId, 1);
    assert.deepEqual(message.properties, { 'a b': 'c/d+e' });
    assert.equal(message.systemProperties['message-id'], 'm 1');
  });

  test('device 54: %24.ct and $.ct give the same content type; %2B and + give plus', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    for (const bag of ['%24.ct=application%2Fjson&k=a%2Bb', '$.ct=application/json&k=a+b']) await wire.publish(events(one.deviceId, bag), '{}');
    for (const message of await stored(service, one.deviceId, 2)) {
      assert.equal(message.systemProperties['content-type'], 'application/json');
      assert.equal(message.properties.k, 'a+b');
    }
  });

  test('device 56: device, module, generation, method and time are stamped, and dt-dataschema with a model id', async ({ service, defer }) => {
    const one = await newDevice(service);
    const module = await newModule(service, one);
    const model = 'dtmi:com:example:Thermostat;1';
    const before = Date.now();
    for (const [identity, query] of [[one, `api-version=2021-04-12&model-id=${encodeURIComponent(model)}`], [module, 'api-version=2021-04-12']]) {
      const wire = await Wire.session(identity, { username: userName(identity.identity, query) });
      defer(() => wire.cut());
      const topic = identity.moduleId ? `devices/${one.deviceId}/modules/${identity.moduleId}/messages/events/` : events(one.deviceId);
      await wire.publish(topic, identity.identity);
    }
    const [device, inner] = await stored(service, one.deviceId, 2);
    const system = device.systemProperties;
    assert.equal(system['iothub-connection-device-id'], one.deviceId);
    assert.equal(system['iothub-connection-auth-generation-id'], one.record.generationId);
    assert.deepEqual(JSON.parse(system['iothub-connection-auth-method']), { scope: 'device', type: 'sas', issuer: 'iothub' });
    assert.match(system['iothub-enqueuedtime'], timestamp);
    assert.ok(Math.abs(Date.parse(system['iothub-enqueuedtime']) - before) < 30_000);
    assert.equal(system['dt-dataschema'], model);
    assert.equal(inner.systemProperties['iothub-connection-module-id'], 'm1');
    assert.equal(inner.systemProperties['iothub-connection-auth-generation-id'], module.record.generationId);
    assert.equal(inner.systemProperties['dt-dataschema'], undefined);
  });

  test('device 57: $.sub=comp appears as dt-subject', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.publish(events(one.deviceId, '%24.sub=comp'), '{}');
    const [message] = await stored(service, one.deviceId, 1);
    assert.equal(message.systemProperties['dt-subject'], 'comp');
  });

  test('device 59: a repeat with DUP after a reconnect is acknowledged and stored', async ({ service, defer }) => {
    const one = await newDevice(service);
    const first = await Wire.session(one);
    const messageId = await first.publish(events(one.deviceId), 'again');
    await first.cut();
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    wire.send({ cmd: 'publish', topic: events(one.deviceId), payload: 'again', qos: 1, messageId, dup: true, retain: false });
    assert.equal((await wire.packet('puback')).messageId, messageId);
    const list = await stored(service, one.deviceId, 2);
    assert.deepEqual(list.map((message) => message.body), ['again', 'again']);
  });

  for (const [name, transport] of Object.entries(transports)) {
    test(`device 51, 56: what the unmodified SDK sends over ${name} is stored with its properties`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transport);
      defer(() => client.close());
      const message = new common.Message(JSON.stringify({ t: 21.5 }));
      Object.assign(message, { messageId: 'id 1', correlationId: 'c/1', contentType: 'application/json', contentEncoding: 'utf-8' });
      message.properties.add('alert', 'a&b=c');
      await client.sendEvent(message);
      const [kept] = await stored(service, one.deviceId, 1);
      assert.deepEqual(kept.body, { t: 21.5 });
      assert.deepEqual(kept.properties, { alert: 'a&b=c' });
      const { 'message-id': id, 'correlation-id': correlation, 'content-type': type, 'content-encoding': encoding } = kept.systemProperties;
      assert.deepEqual([id, correlation, type, encoding], ['id 1', 'c/1', 'application/json', 'utf-8']);
    });
  }
});
