// Service checklist: device identities, items 21 to 40.
import { suite } from './lib/suite.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, assertError, eventually, modulePath, never, newDevice, newKey, openClient, path, registry, sleep, timestamp, transports, twinPath, uniqueId } from './lib/fixture.mjs';
import { selfSigned } from './lib/certificates.mjs';

const sas = (primaryKey, secondaryKey) => ({ type: 'sas', symmetricKey: { primaryKey, secondaryKey } });
const bytes = (key) => Buffer.from(key, 'base64').length;

suite('service: devices', { concurrency: 4 }, ({ test }) => {
  test('service 21: PUT without If-Match on a new id answers 200 with generated 32-byte keys', async ({ service, hub }) => {
    const bodies = { 'no authentication': {}, 'empty keys': { authentication: sas('', '') }, 'type alone': { authentication: { type: 'sas' } }, 'null keys': { authentication: sas(null, null) } };
    const seen = new Set();
    for (const [name, body] of Object.entries(bodies)) {
      const id = uniqueId();
      const reply = await service.put(path(id), { deviceId: id, ...body });
      assert.equal(reply.status, 200, `${name}: ${reply.text}`);
      assert.equal(reply.json.authentication.type, 'sas');
      for (const key of Object.values(reply.json.authentication.symmetricKey)) {
        assert.equal(bytes(key), 32, name);
        assert.equal(Buffer.from(key, 'base64').toString('base64'), key);
        assert.ok(!seen.has(key));
        seen.add(key);
      }
    }
    const { responseBody, httpResponse } = await registry(hub).create({ deviceId: uniqueId() });
    assert.equal(httpResponse.statusCode, 200);
    assert.equal(bytes(responseBody.authentication.symmetricKey.primaryKey), 32);
    assert.equal(bytes(responseBody.authentication.symmetricKey.secondaryKey), 32);
  });

  test('service 21: the reply has each member of a device identity', async ({ service }) => {
    const { record, deviceId } = await newDevice(service);
    assert.equal(record.deviceId, deviceId);
    assert.ok(record.generationId);
    assert.match(record.etag, /^[A-Za-z0-9+/=]+$/);
    assert.equal(record.connectionState, 'Disconnected');
    assert.equal(record.status, 'enabled');
    assert.equal(record.cloudToDeviceMessageCount, 0);
    assert.deepEqual(record.capabilities, { iotEdge: false });
    assert.deepEqual(record.authentication.x509Thumbprint, { primaryThumbprint: null, secondaryThumbprint: null });
    const read = await service.get(path(deviceId));
    assert.deepEqual(read.json, record);
    if (read.headers.etag) assert.equal(read.headers.etag, `"${record.etag}"`);
  });

  test('service 22: PUT without If-Match on an existing id gets 409, even with the current etag in the body', async ({ service, hub }) => {
    const one = await newDevice(service);
    assertError(await service.put(path(one.deviceId), { deviceId: one.deviceId }), 409, 'DeviceAlreadyExists');
    assertError(await service.put(path(one.deviceId), one.record), 409, 'DeviceAlreadyExists');
    assert.equal((await service.get(path(one.deviceId))).json.etag, one.record.etag);
    const error = await registry(hub).create({ deviceId: one.deviceId }).then(() => null, (e) => e);
    assert.equal(error?.name, 'DeviceAlreadyExistsError', String(error));
  });

  test('service 23: PUT with If-Match "*", *, "<etag>" and bare <etag> all update', async ({ service, hub }) => {
    const one = await newDevice(service);
    let current = one.record;
    for (const form of ['"*"', '*', 'quoted', 'bare']) {
      const ifMatch = { quoted: `"${current.etag}"`, bare: current.etag }[form] ?? form;
      const reply = await service.put(path(one.deviceId), { ...current, statusReason: `by ${form}` }, { ifMatch });
      assert.equal(reply.status, 200, `${form}: ${reply.text}`);
      assert.equal(reply.json.statusReason, `by ${form}`);
      assert.notEqual(reply.json.etag, current.etag);
      assert.equal(reply.json.generationId, one.record.generationId);
      assert.equal(reply.json.authentication.symmetricKey.primaryKey, one.primaryKey);
      current = reply.json;
    }
    const { responseBody } = await registry(hub).update({ ...current, statusReason: 'by SDK' });
    assert.equal(responseBody.statusReason, 'by SDK');
  });

  test('service 24: a stale etag gets 412; If-Match on a missing device gets 404', async ({ service }) => {
    const one = await newDevice(service);
    const fresh = await service.put(path(one.deviceId), one.record, { ifMatch: '*' });
    assert.equal(fresh.status, 200);
    for (const ifMatch of [`"${one.record.etag}"`, one.record.etag, '"AAAAAAAAAAA="', 'nonsense']) {
      assertError(await service.put(path(one.deviceId), one.record, { ifMatch }), 412, 'PreconditionFailed');
    }
    assert.equal((await service.get(path(one.deviceId))).json.etag, fresh.json.etag);
    const id = uniqueId('nobody');
    for (const ifMatch of ['"*"', '*', '"AAAA"']) assertError(await service.put(path(id), { deviceId: id }, { ifMatch }), 404, 'DeviceNotFound');
    assert.equal((await service.get(path(id))).status, 404);
  });

  test('service 25: the etag changes with each update and not by connect, disconnect, telemetry or twin patches', async ({ service, defer }) => {
    const one = await newDevice(service);
    const etags = [one.record.etag];
    for (let i = 0; i < 3; i++) etags.push((await service.put(path(one.deviceId), one.record, { ifMatch: '*' })).json.etag);
    assert.equal(new Set(etags).size, 4);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe('$iothub/twin/res/#');
    await wire.publish(`devices/${one.deviceId}/messages/events/`, 'x');
    assert.equal((await wire.report({ a: 1 })).status, 204);
    await service.patch(twinPath(one.deviceId), { tags: { a: 1 }, properties: { desired: { b: 1 } } });
    await eventually('connected', async () => (await service.get(path(one.deviceId))).json.connectionState === 'Connected');
    await wire.disconnect();
    const last = await eventually('disconnected', async () => {
      const reply = await service.get(path(one.deviceId));
      return reply.json.connectionState === 'Disconnected' && reply;
    });
    assert.equal(last.json.etag, etags[3]);
  });

  test('service 26: DELETE without If-Match gets 412, with "*" 204, again 404', async ({ service, hub }) => {
    const one = await newDevice(service);
    assertError(await service.delete(path(one.deviceId)), 412, 'PreconditionFailed');
    assertError(await service.delete(path(one.deviceId), { ifMatch: '"AAAA"' }), 412, 'PreconditionFailed');
    assert.equal((await service.get(path(one.deviceId))).status, 200);
    assert.equal((await service.delete(path(one.deviceId), { ifMatch: '"*"' })).status, 204);
    assertError(await service.delete(path(one.deviceId), { ifMatch: '"*"' }), 404, 'DeviceNotFound');
    const two = await newDevice(service);
    assert.equal((await service.delete(path(two.deviceId), { ifMatch: `"${two.record.etag}"` })).status, 204);
    const three = await newDevice(service);
    await registry(hub).delete(three.deviceId);
    assert.equal((await service.get(path(three.deviceId))).status, 404);
  });

  test('service 27: disabled round-trips with its reason, statusUpdatedTime moves, the session is dropped and refused', async ({ service }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    const off = await service.put(path(one.deviceId), { ...one.record, status: 'disabled', statusReason: 'stolen' }, { ifMatch: '*' });
    assert.equal(off.status, 200);
    assert.equal(off.json.status, 'disabled');
    assert.equal(off.json.statusReason, 'stolen');
    assert.match(off.json.statusUpdatedTime, timestamp);
    assert.ok(Math.abs(Date.parse(off.json.statusUpdatedTime) - Date.now()) < 60_000);
    await wire.closes(1000);
    assert.equal((await Wire.connect(one)).connack.returnCode, 5);
    const read = (await service.get(path(one.deviceId))).json;
    assert.deepEqual([read.status, read.statusReason, read.statusUpdatedTime], ['disabled', 'stolen', off.json.statusUpdatedTime]);
    const twin = (await service.get(twinPath(one.deviceId))).json;
    assert.deepEqual([twin.status, twin.statusReason], ['disabled', 'stolen']);
    await sleep(5);
    const on = await service.put(path(one.deviceId), { ...one.record, status: 'Enabled' }, { ifMatch: '*' });
    assert.equal(on.json.status, 'enabled');
    assert.ok(Date.parse(on.json.statusUpdatedTime) > Date.parse(off.json.statusUpdatedTime));
    const again = await Wire.session(one);
    await again.disconnect();
  });

  test('service 28: an absent statusReason is null in replies', async ({ service }) => {
    const one = await newDevice(service);
    assert.equal(one.record.statusReason, null);
    assert.equal((await service.get(path(one.deviceId))).json.statusReason, null);
    const set = await service.put(path(one.deviceId), { ...one.record, statusReason: 'x' }, { ifMatch: '*' });
    assert.equal(set.json.statusReason, 'x');
    const { statusReason, ...rest } = one.record;
    assert.equal(statusReason, null);
    assert.equal((await service.put(path(one.deviceId), rest, { ifMatch: '*' })).json.statusReason, null);
  });

  test('service 29: the three times are never null; a fresh device has 0001-01-01T00:00:00', async ({ service, defer }) => {
    const one = await newDevice(service);
    for (const name of ['connectionStateUpdatedTime', 'lastActivityTime', 'statusUpdatedTime']) assert.match(one.record[name], never, name);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.publish(`devices/${one.deviceId}/messages/events/`, 'x');
    const read = await eventually('connected', async () => {
      const reply = await service.get(path(one.deviceId));
      return reply.json.connectionState === 'Connected' && reply;
    });
    assert.match(read.json.connectionStateUpdatedTime, timestamp);
    assert.match(read.json.lastActivityTime, timestamp);
    assert.doesNotMatch(read.json.connectionStateUpdatedTime, never);
    assert.doesNotMatch(read.json.lastActivityTime, never);
    assert.ok(Math.abs(Date.parse(read.json.lastActivityTime) - Date.now()) < 120_000);
  });

  test('service 30: one key alone and keys of 8 or 65 bytes get 400; 16 and 64 bytes are accepted and echoed', async ({ service }) => {
    const refused = { 'primary alone': sas(newKey()), 'secondary alone': sas(undefined, newKey()), 'primary with empty secondary': sas(newKey(), ''), '8 bytes': sas(newKey(8), newKey(8)), '15 bytes': sas(newKey(15), newKey(32)), '65 bytes': sas(newKey(65), newKey(65)), 'not base64': sas('!!!not-base64-at-all-and-long!!!', newKey()) };
    for (const [name, authentication] of Object.entries(refused)) {
      const id = uniqueId();
      const reply = await service.put(path(id), { deviceId: id, authentication });
      assert.equal(reply.status, 400, `${name}: ${reply.status} ${reply.text}`);
      assert.equal((await service.get(path(id))).status, 404, name);
    }
    for (const size of [16, 64]) {
      const [primaryKey, secondaryKey] = [newKey(size), newKey(size)];
      const one = await newDevice(service, { authentication: sas(primaryKey, secondaryKey) });
      assert.deepEqual(one.record.authentication.symmetricKey, { primaryKey, secondaryKey });
      assert.deepEqual((await service.get(path(one.deviceId))).json.authentication.symmetricKey, { primaryKey, secondaryKey });
      const wire = await Wire.session(one);
      await wire.disconnect();
    }
  });

  test('service 31: thumbprints with colons get 400; lower-case hex keeps its case; such a device does not connect yet', async ({ service }) => {
    const own = selfSigned(uniqueId('thumb'));
    for (const primaryThumbprint of [own.sha1.match(/../g).join(':'), 'xyz', own.sha1.slice(1)]) {
      const id = uniqueId();
      const reply = await service.put(path(id), { deviceId: id, authentication: { type: 'selfSigned', x509Thumbprint: { primaryThumbprint } } });
      assert.equal(reply.status, 400, primaryThumbprint);
    }
    const x509Thumbprint = { primaryThumbprint: own.sha256.toLowerCase(), secondaryThumbprint: own.sha1 };
    const one = await newDevice(service, { authentication: { type: 'selfSigned', x509Thumbprint } });
    assert.deepEqual(one.record.authentication, { symmetricKey: { primaryKey: null, secondaryKey: null }, x509Thumbprint, type: 'selfSigned' });
    assert.deepEqual((await service.get(path(one.deviceId))).json.authentication.x509Thumbprint, x509Thumbprint);
    const twin = (await service.get(twinPath(one.deviceId))).json;
    assert.equal(twin.authenticationType, 'selfSigned');
    assert.deepEqual(twin.x509Thumbprint, x509Thumbprint);
    assert.equal((await newDevice(service, { authentication: { type: 'selfSigned' } })).record.authentication.type, 'selfSigned');
  });

  test('service 32: type none gets 400; certificateAuthority shows null keys and null thumbprints', async ({ service }) => {
    const id = uniqueId();
    assert.equal((await service.put(path(id), { deviceId: id, authentication: { type: 'none' } })).status, 400);
    assert.equal((await service.put(path(id), { deviceId: id, authentication: { type: 'other' } })).status, 400);
    const one = await newDevice(service, { authentication: { type: 'certificateAuthority' } });
    assert.deepEqual(one.record.authentication, { symmetricKey: { primaryKey: null, secondaryKey: null }, x509Thumbprint: { primaryThumbprint: null, secondaryThumbprint: null }, type: 'certificateAuthority' });
  });

  test('service 33: an update without authentication mints new keys, also as the SDK\'s update sends it', async ({ service, hub }) => {
    const one = await newDevice(service);
    const reply = await service.put(path(one.deviceId), { deviceId: one.deviceId, status: 'enabled' }, { ifMatch: '*' });
    assert.equal(reply.status, 200);
    assert.notEqual(reply.json.authentication.symmetricKey.primaryKey, one.primaryKey);
    assert.notEqual(reply.json.authentication.symmetricKey.secondaryKey, one.secondaryKey);
    assert.equal((await Wire.connect(one)).connack.returnCode, 5);
    const { responseBody } = await registry(hub).update({ deviceId: one.deviceId, status: 'enabled' });
    assert.notEqual(responseBody.authentication.symmetricKey.primaryKey, reply.json.authentication.symmetricKey.primaryKey);
    assert.equal(bytes(responseBody.authentication.symmetricKey.primaryKey), 32);
  });

  test('service 34: a deviceId in the body that differs from the path gets 400', async ({ service }) => {
    const id = uniqueId();
    for (const deviceId of ['other', id.toUpperCase(), `${id}x`]) assert.equal((await service.put(path(id), { deviceId })).status, 400, deviceId);
    assert.equal((await service.get(path(id))).status, 404);
  });

  test('service 35: read-only and unknown members of the body are ignored', async ({ service }) => {
    const one = await newDevice(service);
    const body = { ...one.record, generationId: 'mine', connectionState: 'Connected', connectionStateUpdatedTime: '2001-01-01T00:00:00', lastActivityTime: '2001-01-01T00:00:00', statusUpdatedTime: '2001-01-01T00:00:00', cloudToDeviceMessageCount: 7, etag: 'mine', hub: 'x', unknown: { a: [1] }, parentScopes: [] };
    const reply = await service.put(path(one.deviceId), body, { ifMatch: '"*"' });
    assert.equal(reply.status, 200, reply.text);
    const { etag, ...now } = reply.json;
    const { etag: before, ...was } = one.record;
    assert.deepEqual(now, was);
    assert.notEqual(etag, 'mine');
    assert.notEqual(etag, before);
  });

  test('service 36: GET /devices?top=2 gives 2, without top all up to 1000; generationId differs after delete and create', async ({ service, hub }) => {
    const some = [];
    for (let i = 0; i < 3; i++) some.push(await newDevice(service));
    const two = await service.get('/devices?top=2');
    assert.equal(two.json.length, 2);
    assert.ok(two.json.every((device) => device.deviceId && device.generationId && device.authentication));
    const all = await service.get('/devices');
    const ids = all.json.map((device) => device.deviceId);
    assert.ok(some.every((one) => ids.includes(one.deviceId)));
    assert.equal(new Set(ids).size, ids.length);
    const { responseBody } = await registry(hub).list();
    assert.ok(some.every((one) => responseBody.some((device) => device.deviceId === one.deviceId)));
    await service.delete(path(some[0].deviceId), { ifMatch: '*' });
    const reborn = await newDevice(service, { id: some[0].deviceId });
    assert.notEqual(reborn.record.generationId, some[0].record.generationId);
    assert.equal((await service.get(twinPath(reborn.deviceId))).json.properties.desired.$version, 1);
  });

  test('service 37: an edge device gets a scope and the modules $edgeAgent and $edgeHub', async ({ service }) => {
    const edge = await newDevice(service, { capabilities: { iotEdge: true }, deviceScope: 'chosen-by-user' });
    assert.ok(edge.record.deviceScope.startsWith(`ms-azure-iot-edge://${edge.deviceId}-`), edge.record.deviceScope);
    assert.match(edge.record.deviceScope.slice(`ms-azure-iot-edge://${edge.deviceId}-`.length), /^\d+$/);
    assert.deepEqual(edge.record.capabilities, { iotEdge: true });
    const modules = (await service.get(`${path(edge.deviceId)}/modules`)).json;
    assert.deepEqual(modules.map((module) => module.moduleId).sort(), ['$edgeAgent', '$edgeHub']);
    for (const module of modules) assert.equal(module.managedBy, 'iotEdge');
    const twin = (await service.get(twinPath(edge.deviceId))).json;
    assert.deepEqual(twin.capabilities, { iotEdge: true });
    assert.equal(twin.deviceScope, edge.record.deviceScope);
    assert.equal((await service.get(twinPath(edge.deviceId, '$edgeAgent'))).status, 200);
  });

  test('service 38: a leaf with its parent\'s scope shows it in parentScopes; with parentScopes alone it stays unattached', async ({ service }) => {
    const edge = await newDevice(service, { capabilities: { iotEdge: true } });
    const scope = edge.record.deviceScope;
    const child = await newDevice(service, { deviceScope: scope });
    assert.equal(child.record.deviceScope, scope);
    assert.equal(child.record.parentScopes[0], scope);
    assert.deepEqual((await service.get(twinPath(child.deviceId))).json.parentScopes, [scope]);
    const loner = await newDevice(service, { parentScopes: [scope] });
    assert.equal(loner.record.deviceScope, undefined);
    assert.ok(loner.record.parentScopes === undefined || loner.record.parentScopes.length === 0, JSON.stringify(loner.record.parentScopes));
    const attached = await service.put(path(loner.deviceId), { ...loner.record, deviceScope: scope }, { ifMatch: '*' });
    assert.equal(attached.json.parentScopes[0], scope);
  });

  test('service 39: an edge update that blanks its own scope gets 400; one that echoes it is taken', async ({ service }) => {
    const edge = await newDevice(service, { capabilities: { iotEdge: true } });
    const { deviceScope, ...without } = edge.record;
    for (const body of [without, { ...edge.record, deviceScope: '' }, { ...edge.record, deviceScope: null }]) {
      assert.equal((await service.put(path(edge.deviceId), body, { ifMatch: '*' })).status, 400, JSON.stringify(body.deviceScope));
    }
    const kept = await service.put(path(edge.deviceId), { ...edge.record, statusReason: 'x' }, { ifMatch: '*' });
    assert.equal(kept.status, 200, kept.text);
    assert.equal(kept.json.deviceScope, deviceScope);
  });

  test('service 35: an update by read, edit and PUT of the whole document, as az does, keeps what was not edited', async ({ service }) => {
    const one = await newDevice(service);
    const read = (await service.get(path(one.deviceId))).json;
    const reply = await service.put(path(one.deviceId), { ...read, statusReason: 'edited' }, { ifMatch: `"${read.etag}"` });
    assert.equal(reply.status, 200, reply.text);
    // The time of the status may count its reason in.
    const rest = { etag: 0, statusUpdatedTime: 0 };
    assert.deepEqual({ ...reply.json, ...rest }, { ...read, statusReason: 'edited', ...rest });
  });

  test('service 25: module writes leave the device\'s etag', async ({ service }) => {
    const one = await newDevice(service);
    await service.put(modulePath(one.deviceId, 'm'), { deviceId: one.deviceId, moduleId: 'm' });
    assert.equal((await service.get(path(one.deviceId))).json.etag, one.record.etag);
  });
});

// Counting needs a registry in which nobody else works: this runs after the
// suite above has ended, since top-level suites of a file run one by one.
suite('service: statistics', {}, ({ test }) => {
  test('service 40: statistics count total, enabled, disabled and connected devices', async ({ service, hub, defer }) => {
    const numbers = async () => ({ ...(await service.get('/statistics/devices')).json, ...(await service.get('/statistics/service')).json });
    const before = await numbers();
    const one = await newDevice(service);
    const two = await newDevice(service, { status: 'disabled' });
    await newDevice(service);
    const plus = (total, enabled, disabled, connected) => ({ totalDeviceCount: before.totalDeviceCount + total, enabledDeviceCount: before.enabledDeviceCount + enabled, disabledDeviceCount: before.disabledDeviceCount + disabled, connectedDeviceCount: before.connectedDeviceCount + connected });
    assert.deepEqual(await numbers(), plus(3, 2, 1, 0));
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    assert.deepEqual(await numbers(), plus(3, 2, 1, 1));
    const client = await openClient(await newDevice(service), transports.MqttWs);
    assert.deepEqual(await numbers(), plus(4, 3, 1, 2));
    await client.close();
    await eventually('one connected', async () => (await numbers()).connectedDeviceCount === before.connectedDeviceCount + 1);
    await service.put(path(two.deviceId), { ...two.record, status: 'enabled' }, { ifMatch: '*' });
    assert.deepEqual(await numbers(), plus(4, 4, 0, 1));
    await service.delete(path(one.deviceId), { ifMatch: '*' });
    await eventually('none connected', async () => (await numbers()).connectedDeviceCount === before.connectedDeviceCount);
    assert.deepEqual(await numbers(), plus(3, 3, 0, 0));
    const { responseBody } = await registry(hub).getRegistryStatistics();
    assert.deepEqual([responseBody.totalDeviceCount, responseBody.enabledDeviceCount, responseBody.disabledDeviceCount], [before.totalDeviceCount + 3, before.enabledDeviceCount + 3, before.disabledDeviceCount]);
  });
});
