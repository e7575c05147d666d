// Service checklist: modules, items 41 to 44, and bulk, items 45 to 51.
import { suite } from './lib/suite.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, assertError, modulePath, newDevice, newKey, newModule, path, registry, twinPath, uniqueId } from './lib/fixture.mjs';

const keys = () => ({ type: 'sas', symmetricKey: { primaryKey: newKey(), secondaryKey: newKey() } });
const promised = (call) => new Promise((resolve, reject) => call((error, result) => (error ? reject(error) : resolve(result))));

suite('service: modules and bulk', { concurrency: 4 }, ({ test }) => {
  test('service 41: create 200, duplicate 409 ModuleAlreadyExistsOnDevice, $-id 400', async ({ service, hub }) => {
    const one = await newDevice(service);
    const created = await service.put(modulePath(one.deviceId, 'm1'), { deviceId: one.deviceId, moduleId: 'm1' });
    assert.equal(created.status, 200, created.text);
    assert.equal(created.json.moduleId, 'm1');
    assert.equal(created.json.deviceId, one.deviceId);
    assert.equal(created.json.managedBy ?? null, null);
    assert.equal(created.json.status, undefined);
    assert.equal(Buffer.from(created.json.authentication.symmetricKey.primaryKey, 'base64').length, 32);
    assert.ok(created.json.etag && created.json.generationId);
    assert.equal((await service.get(modulePath(one.deviceId, 'm1'))).json.etag, created.json.etag);
    const twice = await service.put(modulePath(one.deviceId, 'm1'), { deviceId: one.deviceId, moduleId: 'm1' });
    assertError(twice, 409, 'ModuleAlreadyExistsOnDevice');
    assert.equal((await service.put(modulePath(one.deviceId, '$x'), { deviceId: one.deviceId, moduleId: '$x' })).status, 400);
    assert.equal((await service.put(modulePath(one.deviceId, 'a b'), { deviceId: one.deviceId, moduleId: 'a b' })).status, 400);
    const none = await service.put(modulePath(one.deviceId, 'm2'), { deviceId: one.deviceId, moduleId: 'm2', authentication: { type: 'none' } });
    assert.equal(none.json.authentication.type, 'sas', 'none is taken as sas for modules');
    const client = registry(hub);
    const { responseBody } = await client.addModule({ deviceId: one.deviceId, moduleId: 'm3' });
    assert.equal(responseBody.moduleId, 'm3');
    const { responseBody: updated } = await client.updateModule({ ...responseBody, managedBy: 'sdk' });
    assert.equal(updated.managedBy, 'sdk');
    await promised((done) => client.removeModule(one.deviceId, 'm3', done));
    assert.equal((await service.get(modulePath(one.deviceId, 'm3'))).status, 404);
  });

  test('service 41: module updates and deletes follow the If-Match rules of devices', async ({ service }) => {
    const one = await newDevice(service);
    const module = await newModule(service, one);
    const target = modulePath(one.deviceId, 'm1');
    for (const ifMatch of ['"*"', '*', `"${module.record.etag}"`]) {
      const reply = await service.put(target, module.record, { ifMatch });
      if (ifMatch.includes('*')) module.record = reply.json;
      assert.equal(reply.status, ifMatch.includes('*') ? 200 : 412, `${ifMatch}: ${reply.text}`);
    }
    assertError(await service.put(modulePath(one.deviceId, 'none'), { deviceId: one.deviceId, moduleId: 'none' }, { ifMatch: '*' }), 404, 'ModuleNotFound');
    assertError(await service.delete(target), 412, 'PreconditionFailed');
    assert.equal((await service.delete(target, { ifMatch: '*' })).status, 204);
    assertError(await service.delete(target, { ifMatch: '*' }), 404, 'ModuleNotFound');
  });

  test('service 42: the list of modules is an array with the system modules', async ({ service, hub }) => {
    const edge = await newDevice(service, { capabilities: { iotEdge: true } });
    await newModule(service, edge, 'own');
    const list = await service.get(`${path(edge.deviceId)}/modules`);
    assert.deepEqual(list.json.map((module) => module.moduleId).sort(), ['$edgeAgent', '$edgeHub', 'own']);
    const plain = await newDevice(service);
    assert.deepEqual((await service.get(`${path(plain.deviceId)}/modules`)).json, []);
    const { responseBody } = await registry(hub).getModulesOnDevice(edge.deviceId);
    assert.equal(responseBody.length, 3);
  });

  test('service 43: an unknown module gets ModuleNotFound, an unknown device DeviceNotFound', async ({ service }) => {
    const one = await newDevice(service);
    const nobody = uniqueId('nobody');
    assertError(await service.get(modulePath(one.deviceId, 'm')), 404, 'ModuleNotFound');
    assertError(await service.get(modulePath(nobody, 'm')), 404, 'DeviceNotFound');
    assertError(await service.get(`${path(nobody)}/modules`), 404, 'DeviceNotFound');
    assertError(await service.put(modulePath(nobody, 'm'), { deviceId: nobody, moduleId: 'm' }), 404, 'DeviceNotFound');
  });

  test('service 44: an omitted managedBy clears it; deleting the device deletes modules and module twins', async ({ service }) => {
    const one = await newDevice(service);
    const created = await service.put(modulePath(one.deviceId, 'm1'), { deviceId: one.deviceId, moduleId: 'm1', managedBy: 'me' });
    assert.equal(created.json.managedBy, 'me');
    const { managedBy, ...rest } = created.json;
    assert.equal(managedBy, 'me');
    const updated = await service.put(modulePath(one.deviceId, 'm1'), rest, { ifMatch: '*' });
    assert.equal(updated.status, 200, updated.text);
    assert.equal(updated.json.managedBy ?? null, null);
    await service.patch(twinPath(one.deviceId, 'm1'), { tags: { old: 1 } });
    assert.equal((await service.delete(path(one.deviceId), { ifMatch: '*' })).status, 204);
    assert.equal((await service.get(modulePath(one.deviceId, 'm1'))).status, 404);
    assert.equal((await service.get(twinPath(one.deviceId, 'm1'))).status, 404);
    const again = await newDevice(service, { id: one.deviceId });
    assert.deepEqual((await service.get(`${path(again.deviceId)}/modules`)).json, []);
    await newModule(service, again, 'm1');
    assert.equal((await service.get(twinPath(one.deviceId, 'm1'))).json.tags, undefined);
  });

  test('service 45: an array of 100 creates answers 200 isSuccessful true without errors and warnings', async ({ service, hub }) => {
    const base = uniqueId('bulk');
    const devices = Array.from({ length: 100 }, (_, i) => ({ id: `${base}-${i}`, importMode: 'create', authentication: keys() }));
    const reply = await service.post('/devices', devices);
    assert.equal(reply.status, 200, reply.text);
    assert.deepEqual(reply.json, { isSuccessful: true, errors: [], warnings: [] });
    for (const i of [0, 57, 99]) {
      const read = await service.get(path(`${base}-${i}`));
      assert.deepEqual(read.json.authentication.symmetricKey, devices[i].authentication.symmetricKey);
    }
    const client = registry(hub);
    const mine = Array.from({ length: 100 }, (_, i) => ({ deviceId: `${base}-sdk-${i}`, status: 'enabled', authentication: keys() }));
    const { responseBody } = await client.addDevices(mine);
    assert.equal(responseBody.isSuccessful, true);
    const updated = await client.updateDevices(mine.map((device) => ({ ...device, status: 'disabled' })), true);
    assert.equal(updated.responseBody.isSuccessful, true);
    assert.equal((await service.get(path(`${base}-sdk-3`))).json.status, 'disabled');
    const removed = await client.removeDevices(mine, true);
    assert.equal(removed.responseBody.isSuccessful, true);
    assert.equal((await service.get(path(`${base}-sdk-99`))).status, 404);
  });

  test('service 46: 101 items and an empty array get 400', async ({ service }) => {
    const base = uniqueId('bulk');
    const devices = Array.from({ length: 101 }, (_, i) => ({ id: `${base}-${i}`, importMode: 'create' }));
    assert.equal((await service.post('/devices', devices)).status, 400);
    assert.equal((await service.post('/devices', [])).status, 400);
    for (const i of [0, 100]) assert.equal((await service.get(path(`${base}-${i}`))).status, 404);
  });

  test('service 47: one duplicate gets 400 with IotHubErrorCode BulkRegistryOperationFailure and 409001; the others are applied', async ({ service }) => {
    const one = await newDevice(service);
    const [before, after] = [uniqueId('bulk'), uniqueId('bulk')];
    const reply = await service.post('/devices', [before, one.deviceId, after].map((id) => ({ id, importMode: 'create', authentication: keys() })));
    assert.equal(reply.status, 400, reply.text);
    assert.equal(reply.headers.iothuberrorcode, 'BulkRegistryOperationFailure');
    assert.equal(reply.json.isSuccessful, false);
    assert.equal(reply.json.errors.length, 1);
    assert.equal(reply.json.errors[0].deviceId, one.deviceId);
    assert.equal(reply.json.errors[0].errorCode, 409001);
    assert.equal(typeof reply.json.errors[0].errorStatus, 'string');
    assert.deepEqual(reply.json.warnings, []);
    for (const id of [before, after]) assert.equal((await service.get(path(id))).status, 200);
    assert.equal((await service.get(path(one.deviceId))).json.etag, one.record.etag);
  });

  test('service 48: importMode ignores case; a missing etag is an error entry; createOrUpdate upserts', async ({ service }) => {
    const one = await newDevice(service);
    for (const importMode of ['Update', 'update', 'UPDATE']) {
      const reply = await service.post('/devices', [{ id: one.deviceId, importMode, status: 'disabled', statusReason: importMode, authentication: one.record.authentication }]);
      assert.equal(reply.status, 200, reply.text);
      assert.equal((await service.get(path(one.deviceId))).json.statusReason, importMode);
    }
    for (const importMode of ['updateIfMatchETag', 'deleteIfMatchETag']) {
      const reply = await service.post('/devices', [{ id: one.deviceId, importMode, authentication: one.record.authentication }]);
      assert.equal(reply.status, 400, `${importMode}: ${reply.text}`);
      assert.equal(reply.json.errors.length, 1);
      assert.equal(reply.json.errors[0].deviceId, one.deviceId);
    }
    const etag = (await service.get(path(one.deviceId))).json.etag;
    const wrong = await service.post('/devices', [{ id: one.deviceId, importMode: 'UpdateIfMatchETag', eTag: 'AAAA', status: 'enabled', authentication: one.record.authentication }]);
    assert.equal(wrong.json.errors[0].errorCode, 412001, wrong.text);
    const right = await service.post('/devices', [{ id: one.deviceId, importMode: 'UpdateIfMatchETag', eTag: etag, status: 'enabled', authentication: one.record.authentication }]);
    assert.equal(right.status, 200, right.text);
    const fresh = uniqueId('bulk');
    for (const status of ['enabled', 'disabled']) {
      const reply = await service.post('/devices', [{ id: fresh, importMode: 'createOrUpdate', status, authentication: one.record.authentication }]);
      assert.equal(reply.status, 200, reply.text);
      assert.equal((await service.get(path(fresh))).json.status, status);
    }
    const missing = await service.post('/devices', [{ id: uniqueId('nobody'), importMode: 'update' }, { id: uniqueId('nobody'), importMode: 'Delete' }]);
    assert.deepEqual(missing.json.errors.map((error) => error.errorCode), [404001, 404001]);
    assert.equal((await service.post('/devices', [{ id: fresh, importMode: 'Delete' }])).status, 200);
    assert.equal((await service.get(path(fresh))).status, 404);
    const nonsense = await service.post('/devices', [{ id: uniqueId(), importMode: 'nonsense' }]);
    assert.equal(nonsense.status, 400);
  });

  test('service 49: the same id twice is DeviceDefinedMultipleTimes', async ({ service }) => {
    const id = uniqueId('bulk');
    const other = uniqueId('bulk');
    const reply = await service.post('/devices', [{ id, importMode: 'create' }, { id: other, importMode: 'create' }, { id, importMode: 'create' }]);
    assert.equal(reply.status, 400, reply.text);
    if (reply.json.errors) {
      const error = reply.json.errors.find((one) => one.deviceId === id);
      assert.equal(error?.errorCode, 400011, reply.text);
    } else {
      assertError(reply, 400, 'DeviceDefinedMultipleTimes');
    }
  });

  test('service 50: create with tags and desired makes device and twin in one call', async ({ service }) => {
    const id = uniqueId('bulk');
    const reply = await service.post('/devices', [{ id, importMode: 'create', authentication: keys(), tags: { site: 'A' }, properties: { desired: { interval: 5 } } }]);
    assert.equal(reply.status, 200, reply.text);
    const twin = (await service.get(twinPath(id))).json;
    assert.deepEqual(twin.tags, { site: 'A' });
    assert.equal(twin.properties.desired.interval, 5);
    const update = await service.post('/devices', [{ id, importMode: 'updateTwin', tags: { site: 'B' }, properties: { desired: { more: 1 } } }]);
    assert.equal(update.status, 200, update.text);
    assert.equal((await service.get(twinPath(id))).json.tags.site, 'B');
    const bad = await service.post('/devices', [{ id: uniqueId('bulk'), importMode: 'create', tags: { 'a.b': 1 } }]);
    assert.equal(bad.status, 400);
  });

  test('service 51: keys/regenerate rotates exactly the chosen slot; an unknown device appears in errors, status 207', async ({ service }) => {
    const version = '2024-03-31';
    const one = await newDevice(service);
    const module = await newModule(service, one);
    const read = async () => (await service.get(path(one.deviceId))).json.authentication.symmetricKey;
    let before = await read();
    for (const policyKey of ['primaryKey', 'secondaryKey', 'both']) {
      const reply = await service.post('/devices/keys/regenerate', { policyKey, devices: [{ id: one.deviceId }] }, { version });
      assert.equal(reply.status, 200, reply.text);
      const now = await read();
      for (const slot of ['primaryKey', 'secondaryKey']) {
        assert.equal(now[slot] !== before[slot], policyKey === slot || policyKey === 'both', `${policyKey}: ${slot}`);
        assert.equal(Buffer.from(now[slot], 'base64').length, 32);
      }
      assert.equal(reply.json.policyKey, policyKey);
      assert.equal(reply.json.rotatedKeys.length, 1);
      assert.equal(reply.json.rotatedKeys[0].id, one.deviceId);
      assert.deepEqual(reply.json.errors, []);
      before = now;
    }
    const mixed = await service.post('/devices/keys/regenerate', { policyKey: 'primaryKey', devices: [{ id: one.deviceId, moduleId: module.moduleId }, { id: 'nobody-at-all' }] }, { version });
    assert.equal(mixed.status, 207, mixed.text);
    assert.deepEqual(mixed.json.rotatedKeys.map((entry) => [entry.id, entry.moduleId]), [[one.deviceId, 'm1']]);
    assert.deepEqual(mixed.json.errors.map((entry) => [entry.id, entry.errorCode]), [['nobody-at-all', 404001]]);
    assert.deepEqual(await read(), before, 'the device\'s own keys stay');
    const moduleNow = (await service.get(modulePath(one.deviceId, 'm1'))).json.authentication.symmetricKey;
    assert.notEqual(moduleNow.primaryKey, module.primaryKey);
    assert.equal(moduleNow.secondaryKey, module.secondaryKey);
    const old = await Wire.connect(one);
    assert.equal(old.connack.returnCode, 5);
  });
});
