// Service checklist: twins, items 52 to 69.
import { suite } from './lib/suite.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, assertError, eventually, modulePath, newDevice, newModule, path, registry, sleep, timestamp, twinPath } from './lib/fixture.mjs';

const desiredTopic = '$iothub/twin/PATCH/properties/desired/';
const plain = ({ $metadata, $version, ...rest }) => rest;

function nest(depth) {
  let inner = { value: 1 };
  for (let i = 1; i < depth; i++) inner = { o: inner };
  return { o: inner };
}

suite('service: twins', { concurrency: 6 }, ({ test }) => {
  test('service 52: a fresh twin has version >= 1, both sections at 1 with $lastUpdated, and no tags', async ({ service, hub }) => {
    const one = await newDevice(service);
    const { json: twin } = await service.get(twinPath(one.deviceId));
    assert.equal(twin.deviceId, one.deviceId);
    assert.ok(Number.isInteger(twin.version) && twin.version >= 1);
    for (const section of ['desired', 'reported']) assert.deepEqual(twin.properties[section], { $metadata: { $lastUpdated: '0001-01-01T00:00:00Z' }, $version: 1 }, section);
    assert.equal('tags' in twin, false);
    assert.equal('moduleId' in twin, false);
    assert.match(twin.etag, /^[A-Za-z0-9+/]+=*$/);
    assert.equal(twin.authenticationType, 'sas');
    assert.equal(twin.connectionState, 'Disconnected');
    assert.equal(twin.status, 'enabled');
    assert.equal(twin.cloudToDeviceMessageCount, 0);
    assert.equal(twin.modelId, '');
    assert.deepEqual(twin.x509Thumbprint, { primaryThumbprint: null, secondaryThumbprint: null });
    for (const name of ['statusUpdateTime', 'lastActivityTime']) assert.match(twin[name], /^0001-01-01T00:00:00Z?$/, name);
    for (const name of ['generationId', 'connectionStateUpdatedTime', 'managedBy']) assert.equal(name in twin, false, name);
    const { responseBody } = await registry(hub).getTwin(one.deviceId);
    assert.equal(responseBody.etag, twin.etag);
    assert.equal(responseBody.properties.desired.$version, 1);
  });

  test('service 53: nested tags merge, the etag changes, desired stays at its version', async ({ service, hub }) => {
    const one = await newDevice(service);
    const before = (await service.get(twinPath(one.deviceId))).json;
    const first = await service.patch(twinPath(one.deviceId), { tags: { a: { b: 1 } } });
    assert.equal(first.status, 200, first.text);
    const second = await service.patch(twinPath(one.deviceId), { tags: { a: { c: 2 } } });
    assert.deepEqual(second.json.tags, { a: { b: 1, c: 2 } });
    assert.equal(new Set([before.etag, first.json.etag, second.json.etag]).size, 3);
    assert.ok(second.json.version > first.json.version && first.json.version > before.version);
    assert.equal(second.json.properties.desired.$version, 1);
    assert.deepEqual((await service.get(twinPath(one.deviceId))).json, second.json);
    const { responseBody: twin } = await registry(hub).getTwin(one.deviceId);
    await twin.update({ tags: { sdk: true } });
    assert.deepEqual(twin.tags, { a: { b: 1, c: 2 }, sdk: true });
  });

  test('service 54: null removes that key alone; the last nested key leaves {}; the last tag removes tags', async ({ service }) => {
    const one = await newDevice(service);
    const patch = async (body) => (await service.patch(twinPath(one.deviceId), body)).json;
    await patch({ tags: { a: { b: 1, c: 2 }, d: 3 }, properties: { desired: { x: { y: 1 }, z: 1 } } });
    assert.deepEqual((await patch({ tags: { a: { b: null } } })).tags, { a: { c: 2 }, d: 3 });
    assert.deepEqual((await patch({ tags: { a: { c: null } } })).tags, { a: {}, d: 3 });
    const emptied = await patch({ properties: { desired: { x: { y: null } } } });
    assert.deepEqual(plain(emptied.properties.desired), { x: {}, z: 1 });
    const gone = await patch({ tags: { a: null, d: null } });
    assert.equal('tags' in gone, false, JSON.stringify(gone.tags));
    assert.equal('tags' in (await service.get(twinPath(one.deviceId))).json, false);
  });

  test('service 55: {} for an object clears nothing and creates an empty object', async ({ service }) => {
    const one = await newDevice(service);
    await service.patch(twinPath(one.deviceId), { tags: { a: { b: 1 } }, properties: { desired: { x: { y: 1 } } } });
    const { json } = await service.patch(twinPath(one.deviceId), { tags: { a: {}, fresh: {} }, properties: { desired: { x: {} } } });
    assert.deepEqual(json.tags, { a: { b: 1 }, fresh: {} });
    assert.deepEqual(plain(json.properties.desired), { x: { y: 1 } });
    const empty = await service.patch(twinPath(one.deviceId), { tags: {} });
    assert.deepEqual(empty.json.tags, { a: { b: 1 }, fresh: {} });
    assert.equal((await service.patch(twinPath(one.deviceId), {})).status, 200);
  });

  test('service 56: arrays are replaced whole; an array with null gets 400', async ({ service }) => {
    const one = await newDevice(service);
    await service.patch(twinPath(one.deviceId), { tags: { list: [1, 2, 3] } });
    assert.deepEqual((await service.patch(twinPath(one.deviceId), { tags: { list: [{ a: 1 }] } })).json.tags, { list: [{ a: 1 }] });
    for (const list of [[null], [1, null], [[null]], [{ a: [null] }]]) {
      assertError(await service.patch(twinPath(one.deviceId), { tags: { list } }), 400, 'ArgumentInvalid');
      assertError(await service.patch(twinPath(one.deviceId), { properties: { desired: { list } } }), 400, 'ArgumentInvalid');
    }
    assert.deepEqual((await service.get(twinPath(one.deviceId))).json.tags, { list: [{ a: 1 }] });
  });

  test('service 57: a desired PATCH raises $version by exactly 1 and notifies the device with delta and $version', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe(`${desiredTopic}#`);
    for (let version = 2; version < 5; version++) {
      const delta = { [`k${version}`]: { deep: [version] }, gone: null };
      const reply = await service.patch(twinPath(one.deviceId), { tags: { t: version }, properties: { desired: delta } });
      assert.equal(reply.json.properties.desired.$version, version);
      const told = await wire.publishOn(desiredTopic);
      assert.equal(told.topic, `${desiredTopic}?$version=${version}`);
      assert.deepEqual(JSON.parse(told.payload), { ...delta, $version: version });
    }
  });

  test('service 58: $metadata mirrors the tree; touched paths get a new $lastUpdated and $lastUpdatedVersion', async ({ service, defer }) => {
    const one = await newDevice(service);
    const first = (await service.patch(twinPath(one.deviceId), { properties: { desired: { a: { b: 1, c: 2 }, list: [{ x: 1 }], d: 4 } } })).json.properties.desired;
    const meta = first.$metadata;
    assert.deepEqual(Object.keys(meta).sort(), ['$lastUpdated', '$lastUpdatedVersion', 'a', 'd', 'list']);
    assert.deepEqual(Object.keys(meta.a).sort(), ['$lastUpdated', '$lastUpdatedVersion', 'b', 'c']);
    assert.deepEqual(Object.keys(meta.list).sort(), ['$lastUpdated', '$lastUpdatedVersion'], 'arrays are leaves');
    for (const node of [meta, meta.a, meta.a.b, meta.a.c, meta.d, meta.list]) {
      assert.match(node.$lastUpdated, timestamp);
      assert.ok(Math.abs(Date.parse(node.$lastUpdated) - Date.now()) < 60_000);
      assert.equal(node.$lastUpdatedVersion, 2);
    }
    await sleep(5);
    const second = (await service.patch(twinPath(one.deviceId), { properties: { desired: { a: { b: 9 } } } })).json.properties.desired.$metadata;
    for (const [now, was] of [[second, meta], [second.a, meta.a], [second.a.b, meta.a.b]]) {
      assert.equal(now.$lastUpdatedVersion, 3);
      assert.ok(Date.parse(now.$lastUpdated) > Date.parse(was.$lastUpdated));
    }
    for (const [now, was] of [[second.a.c, meta.a.c], [second.d, meta.d], [second.list, meta.list]]) assert.deepEqual(now, was);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe('$iothub/twin/res/#');
    await wire.report({ r: { s: 1 } });
    const reported = (await service.get(twinPath(one.deviceId))).json.properties.reported;
    assert.deepEqual(Object.keys(reported.$metadata).sort(), ['$lastUpdated', 'r'], 'reported has no $lastUpdatedVersion');
    assert.match(reported.$metadata.r.s.$lastUpdated, timestamp);
    assert.equal(reported.$version, 2);
  });

  test('service 59: PUT replaces the sections sent; keys not in the body disappear', async ({ service }) => {
    const one = await newDevice(service);
    await service.patch(twinPath(one.deviceId), { tags: { a: 1, b: 2 }, properties: { desired: { x: 1, y: { z: 2 } } } });
    const both = await service.put(twinPath(one.deviceId), { tags: { c: 3 }, properties: { desired: { y: { w: 1 } } } });
    assert.equal(both.status, 200, both.text);
    assert.deepEqual(both.json.tags, { c: 3 });
    assert.deepEqual(plain(both.json.properties.desired), { y: { w: 1 } });
    assert.equal(both.json.properties.desired.$version, 3);
    assert.deepEqual(Object.keys(both.json.properties.desired.$metadata).filter((key) => !key.startsWith('$')), ['y']);
    const cleared = await service.put(twinPath(one.deviceId), { tags: {}, properties: { desired: {} } });
    assert.equal('tags' in cleared.json, false);
    assert.deepEqual(plain(cleared.json.properties.desired), {});
  });

  test('service 60: PATCHing back the complete GET document changes only what was edited and never fails', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe('$iothub/twin/res/#');
    await wire.report({ r: { deep: 1 } });
    await service.patch(twinPath(one.deviceId), { tags: { a: { b: 1 } }, properties: { desired: { x: { y: [1, 2] } } } });
    const document = (await service.get(twinPath(one.deviceId))).json;
    document.tags.a.edited = true;
    document.properties.reported.r.deep = 'never';
    const reply = await service.patch(twinPath(one.deviceId), document, { ifMatch: '*' });
    assert.equal(reply.status, 200, reply.text);
    assert.deepEqual(reply.json.tags, { a: { b: 1, edited: true } });
    assert.deepEqual(plain(reply.json.properties.desired), { x: { y: [1, 2] } });
    assert.deepEqual(plain(reply.json.properties.reported), { r: { deep: 1 } });
    assert.equal(reply.json.properties.reported.$version, 2);
    for (const name of ['status', 'deviceEtag', 'connectionState', 'authenticationType', 'modelId']) assert.deepEqual(reply.json[name], document[name], name);
    const fresh = await newDevice(service);
    const whole = (await service.get(twinPath(fresh.deviceId))).json;
    assert.equal((await service.patch(twinPath(fresh.deviceId), whole)).status, 200);
    assert.equal((await service.put(twinPath(fresh.deviceId), whole)).status, 200);
  });

  test('service 61: reported, status, version and $metadata in a service write are ignored', async ({ service }) => {
    const one = await newDevice(service);
    const reply = await service.patch(twinPath(one.deviceId), {
      deviceId: one.deviceId, etag: 'mine', version: 99, status: 'disabled', connectionState: 'Connected', modelId: 'mine', capabilities: { iotEdge: true }, unknown: [1],
      $metadata: { x: 1 }, $version: 77, properties: { reported: { r: 1 }, desired: { d: 1, $version: 50, $metadata: { d: { $lastUpdated: '2001-01-01T00:00:00Z' } } } },
    });
    assert.equal(reply.status, 200, reply.text);
    const { json } = reply;
    assert.equal(json.status, 'enabled');
    assert.ok(json.version < 90);
    assert.notEqual(json.etag, 'mine');
    assert.equal(json.modelId, '');
    assert.deepEqual(json.capabilities, { iotEdge: false });
    assert.deepEqual(json.properties.reported, { $metadata: { $lastUpdated: '0001-01-01T00:00:00Z' }, $version: 1 });
    assert.equal(json.properties.desired.$version, 2);
    assert.deepEqual(plain(json.properties.desired), { d: 1 });
    assert.ok(json.properties.desired.$metadata.d.$lastUpdated > '2020');
  });

  test('service 62: a stale If-Match gets 412; * under 30 concurrent PATCHes never does', async ({ service }) => {
    const one = await newDevice(service);
    const first = await service.patch(twinPath(one.deviceId), { tags: { a: 1 } });
    for (const ifMatch of [`"${first.json.etag}"`, null, first.json.etag, null]) {
      if (ifMatch === null) continue;
      const current = (await service.get(twinPath(one.deviceId))).json.etag;
      assert.equal((await service.patch(twinPath(one.deviceId), { tags: { a: 2 } }, { ifMatch: ifMatch.startsWith('"') ? `"${current}"` : current })).status, 200);
      assertError(await service.patch(twinPath(one.deviceId), { tags: { a: 3 } }, { ifMatch }), 412, 'PreconditionFailed');
      assertError(await service.put(twinPath(one.deviceId), { tags: { a: 3 } }, { ifMatch }), 412, 'PreconditionFailed');
    }
    const replies = await Promise.all(Array.from({ length: 30 }, (_, i) => service.patch(twinPath(one.deviceId), { tags: { [`k${i}`]: i }, properties: { desired: { n: i } } }, { ifMatch: i % 2 ? '*' : '"*"' })));
    assert.deepEqual([...new Set(replies.map((reply) => reply.status))], [200]);
    const last = (await service.get(twinPath(one.deviceId))).json;
    for (let i = 0; i < 30; i++) assert.equal(last.tags[`k${i}`], i);
    assert.equal(last.properties.desired.$version, 31);
    assert.equal(new Set(replies.map((reply) => reply.json.etag)).size, 30);
  });

  const bad = {
    'a dot': { 'a.b': 1 }, 'a dollar': { $a: 1 }, 'a dollar inside': { a$b: 1 }, 'a space': { 'a b': 1 }, 'a hash': { 'a#b': 1 }, 'a control character': { 'a\u0001': 1 }, 'a C1 control character': { 'a\u0085': 1 },
    '1025 bytes': { ['k'.repeat(1025)]: 1 }, 'a string of 4097 bytes': { a: 'x'.repeat(4097) }, 'depth 11': nest(11), '2^52': { a: 4503599627370496 }, '-2^52-1': { a: -4503599627370497 },
  };
  for (const [what, body] of Object.entries(bad)) {
    test(`service 63: ${what} gets 400 in tags and in desired`, async ({ service }) => {
      const one = await newDevice(service);
      const before = (await service.get(twinPath(one.deviceId))).json;
      for (const document of [{ tags: body }, { properties: { desired: body } }, { tags: { ok: { deeper: 1 }, ...body } }]) {
        const text = JSON.stringify(document);
        assertError(await service.patch(twinPath(one.deviceId), text), 400, 'ArgumentInvalid');
        assertError(await service.put(twinPath(one.deviceId), text), 400, 'ArgumentInvalid');
      }
      assert.deepEqual((await service.get(twinPath(one.deviceId))).json, before);
    });
  }

  test('service 63: the limits themselves are accepted', async ({ service }) => {
    const one = await newDevice(service);
    for (const body of [{ ['k'.repeat(1024)]: 1 }, { s: 'x'.repeat(4096) }, nest(10), { low: -4503599627370496, high: 4503599627370495 }, { '': 1 }, { ü: 1 }]) {
      const reply = await service.patch(twinPath(one.deviceId), { properties: { desired: body } });
      assert.equal(reply.status, 200, `${JSON.stringify(body).slice(0, 60)}: ${reply.text}`);
    }
  });

  test('service 64: 8 KB + 1 of tags and 32 KB + 1 of desired are refused, the twin is unchanged', async ({ service }) => {
    const one = await newDevice(service);
    // The size is the bytes of keys and values: "k" plus its text.
    const fill = (total, each = 4000) => {
      const body = {};
      let left = total;
      for (let i = 0; left > 0; i++) {
        const key = `k${i}`;
        const size = Math.min(each, left - key.length);
        body[key] = 'x'.repeat(size);
        left -= size + key.length;
      }
      return body;
    };
    const before = (await service.get(twinPath(one.deviceId))).json;
    for (const document of [{ tags: fill(8 * 1024 + 1) }, { properties: { desired: fill(32 * 1024 + 1) } }]) {
      for (const send of ['patch', 'put']) {
        const reply = await service[send](twinPath(one.deviceId), document);
        assert.ok([400, 413].includes(reply.status), `${reply.status} ${reply.text}`);
        assert.ok(reply.headers['iothub-errorcode']);
      }
    }
    assert.deepEqual((await service.get(twinPath(one.deviceId))).json, before);
    for (const document of [{ tags: fill(8 * 1024) }, { properties: { desired: fill(32 * 1024) } }]) {
      const reply = await service.patch(twinPath(one.deviceId), document);
      assert.equal(reply.status, 200, reply.text.slice(0, 300));
    }
    const over = await service.patch(twinPath(one.deviceId), { tags: { k9: '' } });
    assert.ok([400, 413].includes(over.status), 'two bytes more than full were taken');
  });

  test('service 65: 1, 1.0, large numbers and unicode keys round-trip as text', async ({ service }) => {
    const one = await newDevice(service);
    const reply = await service.patch(twinPath(one.deviceId), '{"tags":{"int":1,"float":1.0,"exp":1.5e3,"neg":-0.25,"ключ":"значение","emoji🚲":"☂"}}');
    assert.equal(reply.status, 200, reply.text);
    const { text } = await service.get(twinPath(one.deviceId));
    for (const expected of [/"int":1[,}]/, /"float":1\.0[,}]/, /"exp":1\.5e3[,}]/i, /"neg":-0\.25[,}]/, /"ключ":"значение"/, /"emoji🚲":"☂"/]) assert.match(text, expected);
    for (const number of ['12345678901234567', '99999999999999999999999999', '-12345678901234567']) {
      assertError(await service.patch(twinPath(one.deviceId), `{"tags":{"n":${number}}}`), 400, 'ArgumentInvalid');
    }
  });

  test('service 66: capabilities are always there; deviceScope and parentScopes are absent when unset', async ({ service }) => {
    const one = await newDevice(service);
    for (const reply of [await service.get(twinPath(one.deviceId)), await service.patch(twinPath(one.deviceId), { tags: { a: 1 } }), await service.get(path(one.deviceId))]) {
      assert.deepEqual(reply.json.capabilities, { iotEdge: false });
      assert.equal('deviceScope' in reply.json, false);
      assert.ok(reply.json.parentScopes === undefined || reply.json.parentScopes.length === 0);
    }
    assert.equal('parentScopes' in (await service.get(twinPath(one.deviceId))).json, false);
  });

  test('service 67: deviceEtag equals the identity\'s etag; an identity write moves it while the twin\'s etag stays', async ({ service }) => {
    const one = await newDevice(service);
    const before = (await service.get(twinPath(one.deviceId))).json;
    assert.equal(before.deviceEtag, one.record.etag);
    const written = (await service.put(path(one.deviceId), { ...one.record, statusReason: 'x' }, { ifMatch: '*' })).json;
    const after = (await service.get(twinPath(one.deviceId))).json;
    assert.equal(after.deviceEtag, written.etag);
    assert.notEqual(after.deviceEtag, before.deviceEtag);
    assert.equal(after.etag, before.etag);
    const module = await newModule(service, one);
    assert.equal((await service.get(twinPath(one.deviceId, 'm1'))).json.deviceEtag, module.record.etag);
  });

  test('service 68: the twin of a missing module gets 404', async ({ service }) => {
    const one = await newDevice(service);
    for (const reply of [await service.get(twinPath(one.deviceId, 'none')), await service.patch(twinPath(one.deviceId, 'none'), { tags: {} }), await service.put(twinPath(one.deviceId, 'none'), { tags: {} })]) {
      assert.equal(reply.status, 404, reply.text);
      assert.ok(['DeviceNotFound', 'ModuleNotFound'].includes(reply.headers['iothub-errorcode']));
    }
  });

  test('service 69: the twin is there as soon as the device\'s PUT returns', async ({ service, hub }) => {
    await Promise.all(Array.from({ length: 30 }, async () => {
      const one = await newDevice(service);
      const reply = await service.get(twinPath(one.deviceId));
      assert.equal(reply.status, 200, reply.text);
    }));
    const one = await newDevice(service);
    await service.put(modulePath(one.deviceId, 'm'), { deviceId: one.deviceId, moduleId: 'm' });
    const { responseBody } = await registry(hub).getModuleTwin(one.deviceId, 'm');
    assert.equal(responseBody.moduleId, 'm');
    await eventually('twin', async () => (await service.get(twinPath(one.deviceId, 'm'))).json.properties.desired.$version === 1, 1000);
  });
});
