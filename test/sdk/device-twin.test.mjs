// Device checklist: twins, items 69 to 82.
import { randomUUID } from 'node:crypto';
import { suite } from './lib/suite.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, eventually, newDevice, openClient, patience, registry, sleep, transports, twinPath, updateReported, within } from './lib/fixture.mjs';

const desiredTopic = '$iothub/twin/PATCH/properties/desired/';

// nest gives `depth` objects inside each other, the innermost with a value.
function nest(depth, value = 1) {
  let inner = { value };
  for (let i = 1; i < depth; i++) inner = { o: inner };
  return { o: inner };
}

async function connected(service, defer, ...filters) {
  const one = await newDevice(service);
  const wire = await Wire.session(one);
  defer(() => wire.cut());
  await wire.subscribe('$iothub/twin/res/#', ...filters);
  return { one, wire };
}

// settled waits until nothing more can come: the hub keeps order, so what it
// had to send for earlier packets precedes this answer.
async function settled(wire) {
  await wire.ping();
  await sleep(150);
}

suite('device: twins', { concurrency: 6 }, ({ test }) => {
  test('device 69: GET with body " " or empty returns res/200 with the same rid text', async ({ service, defer }) => {
    const { wire } = await connected(service, defer);
    const rids = [randomUUID(), randomUUID().toUpperCase(), '3', '18446744073709551616', 'aB3-x_Y.z~1', '0', 'x'.repeat(256)];
    for (const rid of rids) {
      for (const body of [' ', '']) {
        const { topic } = await wire.twin(body, rid);
        assert.equal(topic, `$iothub/twin/res/200/?$rid=${rid}`);
      }
    }
  });

  for (const qos of [0, 1]) {
    test(`device 69: GET at QoS ${qos} with a QoS ${qos} subscription is answered once`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const wire = await Wire.session(one);
      defer(() => wire.cut());
      assert.deepEqual(await wire.subscribe({ topic: '$iothub/twin/res/#', qos }), [qos]);
      await wire.publish('$iothub/twin/GET/?$rid=77', ' ', { qos });
      const reply = await wire.publishOn('$iothub/twin/res/200/?$rid=77');
      assert.equal(reply.retain, false);
      if (reply.qos === 1) wire.send({ cmd: 'puback', messageId: reply.messageId });
      await settled(wire);
      assert.equal(wire.inbox.filter((packet) => packet.cmd === 'publish').length, 0);
    });
  }

  test('device 70: the body has exactly desired and reported, each with $version 1 on a new device', async ({ service, defer }) => {
    const { wire } = await connected(service, defer);
    const { json } = await wire.twin();
    assert.deepEqual(json, { desired: { $version: 1 }, reported: { $version: 1 } });
  });

  test('device 70, 71: a twin with tags, desired and reported values shows no tags, metadata or etag', async ({ service, defer }) => {
    const { one, wire } = await connected(service, defer);
    assert.equal((await service.patch(twinPath(one.deviceId), { tags: { secret: 'tag' }, properties: { desired: { a: { b: [1, { c: 2 }] } } } })).status, 200);
    assert.equal((await wire.report({ up: true })).status, 204);
    const { json, payload } = await wire.twin();
    assert.deepEqual(json, { desired: { a: { b: [1, { c: 2 }] }, $version: 2 }, reported: { up: true, $version: 2 } });
    assert.doesNotMatch(payload, /tags|secret|etag|metadata|lastUpdated|deviceId/i);
  });

  test('device 72: PATCH returns res/204 with rid then version, an empty body and the next version', async ({ service, defer }) => {
    const { wire } = await connected(service, defer);
    for (let version = 2; version < 6; version++) {
      const rid = randomUUID();
      const reply = await wire.report({ n: version }, { rid });
      assert.equal(reply.topic, `$iothub/twin/res/204/?$rid=${rid}&$version=${version}`);
      assert.equal(reply.payload, '');
    }
    assert.equal((await wire.twin()).json.reported.$version, 5);
  });

  test('device 73: null deletes, objects merge, arrays are replaced', async ({ service, defer }) => {
    const { one, wire } = await connected(service, defer);
    const steps = [
      [{ a: 1, b: { c: 1, d: { e: 1 } }, list: [1, 2, 3] }, { a: 1, b: { c: 1, d: { e: 1 } }, list: [1, 2, 3] }],
      [{ a: null, b: { d: { f: 2 } }, list: [4] }, { b: { c: 1, d: { e: 1, f: 2 } }, list: [4] }],
      [{ b: { d: null }, list: [], missing: null }, { b: { c: 1 }, list: [] }],
      [{ b: 5, list: null }, { b: 5 }],
      [{ b: { x: {} } }, { b: { x: {} } }],
      [{}, { b: { x: {} } }],
    ];
    for (const [i, [patch, expected]] of steps.entries()) {
      assert.equal((await wire.report(patch)).status, 204);
      assert.deepEqual((await wire.twin()).json.reported, { ...expected, $version: i + 2 }, JSON.stringify(patch));
    }
    const seen = await service.get(twinPath(one.deviceId));
    assert.deepEqual(seen.json.properties.reported.b, { x: {} });
    assert.equal(seen.json.properties.reported.$version, 7);
  });

  test('device 73: numbers, unicode and escapes survive a round trip as text', async ({ service, defer }) => {
    const { wire } = await connected(service, defer);
    const text = '{"int":1,"float":1.0,"exp":1e2,"neg":-0.5,"uni":"grün ☂ 🚲","esc":"a\\"b\\\\c\\n","empty":"","no":false,"ключ":"v"}';
    assert.equal((await wire.report(text)).status, 204);
    const { payload, json } = await wire.twin();
    assert.match(payload, /"int":1[,}]/);
    assert.match(payload, /"float":1\.0[,}]/);
    assert.deepEqual(json.reported, { ...JSON.parse(text), $version: 2 });
  });

  test('device 74: every error reply has JSON with a truthy errorCode and a message', async ({ service, defer }) => {
    const { wire } = await connected(service, defer);
    for (const body of ['{', '[]', '"x"', 'null', '5', '', '{"a":1}x', '{"a b":1}', '{"$x":1}', Buffer.from([0x7b, 0x22, 0xff, 0x22, 0x3a, 0x31, 0x7d])]) {
      const reply = await wire.report(body);
      assert.equal(reply.status, 400, `${body} was answered ${reply.topic} ${reply.payload}`);
      assert.ok(Number.isInteger(reply.json?.errorCode) && reply.json.errorCode >= 400000, reply.payload);
      assert.equal(typeof reply.json.message, 'string');
      assert.ok(reply.json.message.length > 5, reply.payload);
      assert.equal(typeof reply.json.trackingId, 'string');
      assert.match(reply.json.timestampUtc, /^\d{4}-\d\d-\d\dT/);
    }
    assert.equal((await wire.twin()).json.reported.$version, 1);
  });

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 74: the unmodified Node client's update fails over ${name} when the hub refuses it`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transports[name]);
      defer(() => client.close());
      const twin = await within(patience, 'getTwin', client.getTwin());
      const error = await within(patience, 'refusal', updateReported(twin, { 'a b': 1 }).then(() => null, (e) => e));
      assert.ok(error instanceof Error, 'the update of a key with a space was not refused');
      assert.ok(error.message.length > 0);
      await within(patience, 'update', updateReported(twin, { fine: true }));
      assert.deepEqual((await service.get(twinPath(one.deviceId))).json.properties.reported.fine, true);
    });
  }

  const refused = {
    'invalid JSON': '{"a":',
    'trailing data': '{"a":1} {"b":2}',
    'an array as root': '[1]',
    'a number as root': '1',
    'null as root': 'null',
    'a key with a dot': { 'a.b': 1 },
    'a key with a dollar': { a$b: 1 },
    'a key with a space': { 'a b': 1 },
    'a key with a control character': { 'a\u0007b': 1 },
    'a key of 1025 bytes': { ['k'.repeat(1025)]: 1 },
    'a deep key with a dot': { a: { b: { 'c.d': 1 } } },
    'a key inside an array': { a: [{ 'b.c': 1 }] },
    'depth 11': nest(11),
    'a string of 4097 bytes': { a: 'x'.repeat(4097) },
    'a string of 4098 bytes in 2049 letters': { a: 'é'.repeat(2049) },
    'an integer above the range': '{"a":4503599627370496}',
    'an integer below the range': '{"a":-4503599627370497}',
    'a section above 32 KB': Object.fromEntries(Array.from({ length: 9 }, (_, i) => [`k${i}`, 'x'.repeat(4000)])),
    '$version inside': { $version: 1 },
    '$metadata inside': { $metadata: {} },
  };
  for (const [what, body] of Object.entries(refused)) {
    test(`device 75: ${what} gets 400 and the version stays`, async ({ service, defer }) => {
      const { wire } = await connected(service, defer);
      assert.equal((await wire.report({ before: 1 })).status, 204);
      const reply = await wire.report(body);
      assert.equal(reply.status, 400, `${reply.topic} ${reply.payload}`);
      assert.ok(reply.json.errorCode);
      assert.deepEqual((await wire.twin()).json.reported, { before: 1, $version: 2 });
    });
  }

  test('device 75: a section grown over 32 KB in steps is refused at the step that crosses it', async ({ service, defer }) => {
    const { wire } = await connected(service, defer);
    for (let i = 0; i < 8; i++) assert.equal((await wire.report({ [`k${i}`]: 'x'.repeat(4000) })).status, 204);
    const reply = await wire.report({ k8: 'x'.repeat(1000) });
    assert.equal(reply.status, 400, reply.payload);
    assert.equal((await wire.twin()).json.reported.$version, 9);
    assert.equal((await wire.report({ k0: null, k8: 'x'.repeat(1000) })).status, 204);
  });

  test('device 76: depth 10, integers at both ends of the range, a 4096-byte string and a 1024-byte key are accepted', async ({ service, defer }) => {
    const { wire } = await connected(service, defer);
    for (const body of [nest(10), '{"a":4503599627370495,"b":-4503599627370496}', { s: 'x'.repeat(4096) }, { ['k'.repeat(1024)]: 1 }]) {
      const reply = await wire.report(body);
      assert.equal(reply.status, 204, `${JSON.stringify(body).slice(0, 80)}: ${reply.payload}`);
    }
    assert.match((await wire.twin()).payload, /"a":4503599627370495,"b":-4503599627370496/);
  });

  test('device 77: $version in the patch topic: a stale number gets 412, the current one 204', async ({ service, defer }) => {
    const { wire } = await connected(service, defer);
    assert.equal((await wire.report({ a: 1 }, { more: '&$version=1' })).status, 204);
    const stale = await wire.report({ a: 2 }, { more: '&$version=1' });
    assert.equal(stale.status, 412, stale.payload);
    assert.ok(stale.json.errorCode >= 412000 && stale.json.errorCode < 413000, stale.payload);
    assert.equal((await wire.report({ a: 3 }, { more: '&$version=2' })).status, 204);
    assert.deepEqual((await wire.twin()).json.reported, { a: 3, $version: 3 });
  });

  for (const qos of [0, 1]) {
    test(`device 78: a desired change reaches a connected device with version and nulls (subscribed at QoS ${qos})`, async ({ service, defer }) => {
      const { one, wire } = await connected(service, defer, { topic: `${desiredTopic}#`, qos });
      await service.patch(twinPath(one.deviceId), { properties: { desired: { a: 1, b: { c: 2 } } } });
      const first = await wire.publishOn(desiredTopic);
      assert.equal(first.topic, `${desiredTopic}?$version=2`);
      assert.equal(first.retain, false);
      assert.deepEqual(JSON.parse(first.payload), { a: 1, b: { c: 2 }, $version: 2 });
      await service.patch(twinPath(one.deviceId), { properties: { desired: { a: null, b: { c: null, d: 3 } } } });
      const second = await wire.publishOn(desiredTopic);
      assert.equal(second.topic, `${desiredTopic}?$version=3`);
      assert.deepEqual(JSON.parse(second.payload), { a: null, b: { c: null, d: 3 }, $version: 3 });
      // A change of tags alone is none of the device's business.
      await service.patch(twinPath(one.deviceId), { tags: { x: 1 } });
      await settled(wire);
      assert.equal(wire.inbox.length, 0);
    });
  }

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 78: the unmodified SDKs over ${name}: Twin.update reaches the device's desired listener`, async ({ service, hub, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transports[name]);
      defer(() => client.close());
      const twin = await within(patience, 'getTwin', client.getTwin());
      const seen = [];
      twin.on('properties.desired', (delta) => seen.push(delta));
      await eventually('the first event, which holds the present state', () => seen.length === 1);
      // The subscription runs in the background; a later request proves it done.
      await updateReported(twin, { listening: true });
      const { responseBody: serviceTwin } = await registry(hub).getTwin(one.deviceId);
      await serviceTwin.update({ properties: { desired: { interval: 5, off: null, nested: { deep: 'x' } } } });
      await eventually('the delta', () => seen.length === 2);
      assert.deepEqual(seen[1], { interval: 5, off: null, nested: { deep: 'x' }, $version: 2 });
      assert.equal(twin.properties.desired.interval, 5);
      assert.equal(twin.properties.desired.$version, 2);
    });
  }

  test('device 78: a replacement by PUT tells the whole new section', async ({ service, defer }) => {
    const { one, wire } = await connected(service, defer, `${desiredTopic}#`);
    await service.patch(twinPath(one.deviceId), { properties: { desired: { a: 1, b: 2 } } });
    await wire.publishOn(desiredTopic);
    assert.equal((await service.put(twinPath(one.deviceId), { properties: { desired: { b: 3 } } })).status, 200);
    const told = JSON.parse((await wire.publishOn(desiredTopic)).payload);
    assert.equal(told.b, 3);
    assert.equal(told.$version, 3);
    assert.ok(told.a === undefined || told.a === null);
    assert.deepEqual((await wire.twin()).json.desired, { b: 3, $version: 3 });
  });

  test('device 79: of a desired change while offline nothing is queued; GET after the reconnect shows it', async ({ service, defer }) => {
    const { one, wire } = await connected(service, defer, { topic: `${desiredTopic}#`, qos: 1 });
    await wire.disconnect();
    await service.patch(twinPath(one.deviceId), { properties: { desired: { offline: 1 } } });
    await service.patch(twinPath(one.deviceId), { properties: { desired: { offline: 2 } } });
    const again = await Wire.session(one);
    defer(() => again.cut());
    await settled(again);
    assert.deepEqual(again.inbox.map((packet) => packet.topic), []);
    assert.deepEqual((await again.twin()).json.desired, { offline: 2, $version: 3 });
    await service.patch(twinPath(one.deviceId), { properties: { desired: { offline: 3 } } });
    assert.equal((await again.publishOn(desiredTopic)).topic, `${desiredTopic}?$version=4`);
  });

  test('device 80: two rapid desired changes, and fifty from many callers, arrive in version order without a gap', async ({ service, defer }) => {
    const { one, wire } = await connected(service, defer, `${desiredTopic}#`);
    const replies = await Promise.all(Array.from({ length: 50 }, (_, i) => service.patch(twinPath(one.deviceId), { properties: { desired: { [`k${i % 7}`]: i } } })));
    assert.deepEqual([...new Set(replies.map((reply) => reply.status))], [200]);
    const mirror = {};
    for (let version = 2; version <= 51; version++) {
      const packet = await wire.publishOn(desiredTopic);
      const { $version, ...delta } = JSON.parse(packet.payload);
      assert.equal(packet.topic, `${desiredTopic}?$version=${version}`);
      assert.equal($version, version);
      Object.assign(mirror, delta);
    }
    const { $version, ...state } = (await wire.twin()).json.desired;
    assert.equal($version, 51);
    assert.deepEqual(state, mirror);
  });

  test('device 80: the answer to a PATCH precedes notifications that were caused later', async ({ service, defer }) => {
    const { one, wire } = await connected(service, defer, `${desiredTopic}#`);
    for (let i = 0; i < 10; i++) {
      const reply = await wire.report({ i });
      await service.patch(twinPath(one.deviceId), { properties: { desired: { i } } });
      const told = await wire.publishOn(desiredTopic);
      assert.ok(reply.at <= told.at);
      assert.equal(told.topic, `${desiredTopic}?$version=${i + 2}`);
    }
  });

  test('device 81: a GET without a twin/res subscription neither disconnects nor breaks later requests', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    for (const qos of [0, 1]) await wire.publish(`$iothub/twin/GET/?$rid=lost${qos}`, ' ', { qos });
    await wire.publish('$iothub/twin/PATCH/properties/reported/?$rid=lost2', '{"a":1}', { qos: 1 });
    await settled(wire);
    assert.deepEqual(wire.inbox.map((packet) => packet.topic), []);
    await wire.subscribe('$iothub/twin/res/#');
    assert.deepEqual((await wire.twin()).json.reported, { a: 1, $version: 2 });
    await settled(wire);
    assert.deepEqual(wire.inbox.map((packet) => packet.topic), []);
  });

  test('device 82: what the Python client sends on reconnect, a GET at QoS 1 alone, gets its answer', async ({ service, defer }) => {
    const one = await newDevice(service);
    const first = await Wire.session(one, { keepalive: 60, username: `hub.muster.test/${one.deviceId}/?api-version=2019-10-01&DeviceClientType=azure-iot-device-iothub-py%2F2.14.0%28python%29` });
    for (const filter of [`devices/${one.deviceId}/messages/devicebound/#`, `${desiredTopic}#`, '$iothub/methods/POST/#', '$iothub/twin/res/#']) assert.deepEqual(await first.subscribe({ topic: filter, qos: 1 }), [1]);
    await first.publish('$iothub/twin/GET/?$rid=a1', ' ');
    await first.publishOn('$iothub/twin/res/200/?$rid=a1');
    await first.cut();
    await service.patch(twinPath(one.deviceId), { properties: { desired: { away: true } } });
    const second = await Wire.session(one, { keepalive: 60 });
    defer(() => second.cut());
    assert.equal(second.sessionPresent, true);
    await second.publish('$iothub/twin/GET/?$rid=b2', ' ');
    const reply = await second.publishOn('$iothub/twin/res/');
    assert.equal(reply.topic, '$iothub/twin/res/200/?$rid=b2');
    assert.deepEqual(JSON.parse(reply.payload).desired, { away: true, $version: 2 });
    assert.equal(reply.dup, false);
  });

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 72, 73: the unmodified SDK over ${name} reports, and azure-iothub reads it`, async ({ service, hub, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transports[name]);
      defer(() => client.close());
      const twin = await within(patience, 'getTwin', client.getTwin());
      await updateReported(twin, { fw: '1.0', n: { x: 1, y: 2 }, list: [1] });
      await updateReported(twin, { n: { x: null }, list: [2, 3] });
      const { responseBody } = await registry(hub).getTwin(one.deviceId);
      assert.deepEqual(responseBody.properties.reported.n, { y: 2 });
      assert.deepEqual(responseBody.properties.reported.list, [2, 3]);
      assert.equal(responseBody.properties.reported.$version, 3);
    });
  }
});
