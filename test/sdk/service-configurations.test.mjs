// Service checklist: automatic configurations, items 102 to 114, with
// azure-iothub's Registry where it has the operation, and raw requests for what
// it cannot send.
import { suite } from './lib/suite.mjs';
import { assert, assertError, eventually, newDevice, newModule, openClient, path, registry, timestamp, twinPath, uniqueId } from './lib/fixture.mjs';

const at = (id) => `/configurations/${encodeURIComponent(id)}`;
const plain = ({ $metadata, $version, ...rest }) => rest;

// fleet is a tag of its own, so that suites' configurations do not meet.
const fleet = () => uniqueId('fleet').toLowerCase();

function configuration(tag, desired, more = {}) {
  return { id: uniqueId('conf').toLowerCase(), targetCondition: `tags.fleet='${tag}'`, priority: 10, content: { deviceContent: desired }, ...more };
}

async function member(service, tag, more = {}) {
  const one = await newDevice(service);
  const reply = await service.patch(twinPath(one.deviceId), { tags: { fleet: tag, ...more } });
  assert.equal(reply.status, 200, reply.text);
  return one;
}

const twinOf = async (service, one) => (await service.get(twinPath(one.deviceId, one.moduleId))).json;
const desiredOf = async (service, one) => plain((await twinOf(service, one)).properties.desired);

// settled waits until a twin's desired properties hold a value at a path.
const settled = (service, one, what, probe) => eventually(what, async () => probe(await twinOf(service, one)));

// rejected is the error of an SDK call that must fail.
async function rejected(promise) {
  try {
    await promise;
  } catch (error) {
    return error;
  }
  throw new Error('the call succeeded');
}

suite('service: configurations', { concurrency: 4, timeout: 240_000 }, ({ test }) => {
  test('service 102: a PUT of an existing id without If-Match answers 409 ConfigurationAlreadyExists; If-Match "etag", etag, "*" and * all update', async ({ service, hub }) => {
    const sdk = registry(hub);
    const body = configuration(fleet(), { 'properties.desired.a': 1 }, { labels: { team: 'north' } });
    const { responseBody: made } = await sdk.addConfiguration(structuredClone(body));
    assert.equal(made.id, body.id);
    assert.equal(made.schemaVersion, '1.0'); // the SDK sets it
    assert.deepEqual(made.labels, { team: 'north' });
    assert.deepEqual(made.content.deviceContent, body.content.deviceContent);
    assert.equal(made.targetCondition, body.targetCondition);
    assert.equal(made.priority, 10);
    assert.deepEqual(made.metrics, { queries: {}, results: {} });
    assert.match(made.createdTimeUtc, timestamp);
    assert.match(made.lastUpdatedTimeUtc, timestamp);
    assert.ok(made.etag && !made.etag.includes('"'), made.etag);

    const again = await rejected(sdk.addConfiguration(structuredClone(body)));
    assert.equal(again.response.statusCode, 409);
    assertError(await service.put(at(body.id), body), 409, 'ConfigurationAlreadyExists');

    let { etag } = made;
    for (const form of [(e) => `"${e}"`, (e) => e, () => '"*"', () => '*']) {
      const reply = await service.put(at(body.id), { ...body, labels: { form: form('etag') } }, { ifMatch: form(etag) });
      assert.equal(reply.status, 200, `If-Match ${form(etag)}: ${reply.text}`);
      assert.deepEqual(reply.json.labels, { form: form('etag') });
      assert.notEqual(reply.json.etag, etag);
      assert.equal(reply.headers.etag, `"${reply.json.etag}"`);
      const stale = await service.put(at(body.id), body, { ifMatch: `"${etag}"` });
      assertError(stale, 412, 'PreconditionFailed');
      ({ etag } = reply.json);
    }
    const { responseBody: read } = await sdk.getConfiguration(body.id);
    assert.equal(read.etag, etag);
    const { responseBody: updated } = await sdk.updateConfiguration({ ...read, priority: 11 });
    assert.equal(updated.priority, 11);
    assert.equal((await rejected(sdk.updateConfiguration({ ...read, priority: 12 }))).response.statusCode, 412);
    assert.equal((await sdk.updateConfiguration({ ...read, priority: 12 }, true)).responseBody.priority, 12);
    assertError(await service.put(at(uniqueId('none')), body, { ifMatch: '*' }), 400, 'ArgumentInvalid'); // the body's id is another
    const unknown = { ...body, id: uniqueId('none').toLowerCase() };
    assertError(await service.put(at(unknown.id), unknown, { ifMatch: '*' }), 404, 'ConfigurationNotFound');
    // The az CLI creates with etag "*" in the body and no header.
    const az = await service.put(at(unknown.id), { ...unknown, etag: '*', schemaVersion: '2.0' });
    assert.equal(az.status, 200, az.text);
    assert.equal(az.json.schemaVersion, '2.0');
    assert.equal((await rejected(sdk.getConfiguration(uniqueId('none')))).response.statusCode, 404);
    const { responseBody: list } = await sdk.getConfigurations();
    assert.ok(Array.isArray(list));
    for (const id of [body.id, unknown.id]) assert.ok(list.some((one) => one.id === id), id);
    assert.ok((await service.get('/configurations?top=1')).json.length >= 1);
    for (const id of [body.id, unknown.id]) await sdk.removeConfiguration(id);
  });

  test('service 103: DELETE without If-Match answers 204, and values written to twins stay', async ({ service, hub }) => {
    const tag = fleet();
    const one = await member(service, tag);
    const body = configuration(tag, { 'properties.desired.kept': { deep: 1 } });
    await registry(hub).addConfiguration(body);
    await settled(service, one, 'the value', (twin) => twin.properties.desired.kept?.deep === 1);
    assertError(await service.delete(at(body.id), { ifMatch: '"AAAAAAAAAAA="' }), 412, 'PreconditionFailed');
    await registry(hub).removeConfiguration(body.id);
    await settled(service, one, 'the configuration is gone from the twin', (twin) => !(body.id in (twin.configurations ?? {})));
    assert.deepEqual(await desiredOf(service, one), { kept: { deep: 1 } });
    assert.equal((await rejected(registry(hub).getConfiguration(body.id))).response.statusCode, 404);
    assertError(await service.delete(at(body.id)), 404, 'ConfigurationNotFound');
  });

  test('service 104: an upper-case id is 400, and so is an update without content: InvalidConfigurationContent', async ({ service, hub, defer }) => {
    const tag = fleet();
    const body = configuration(tag, { 'properties.desired.a': 1 });
    for (const id of ['Upper', 'with space', `x${'y'.repeat(128)}`]) {
      assert.equal((await service.put(at(id), { ...body, id })).status, 400, id);
    }
    const odd = `${uniqueId('odd').toLowerCase()}-+%_*!'`;
    await registry(hub).addConfiguration({ ...body, id: odd });
    defer(() => registry(hub).removeConfiguration(odd));
    assert.equal((await registry(hub).getConfiguration(odd)).responseBody.id, odd);
    const { content, ...without } = body;
    assertError(await service.put(at(odd), { ...without, id: odd }, { ifMatch: '*' }), 400, 'InvalidConfigurationContent');
    assertError(await service.put(at(body.id), without), 400, 'InvalidConfigurationContent');
  });

  test('service 105: a changed content on update answers 200, and the old content is kept', async ({ service, hub, defer }) => {
    const tag = fleet();
    const one = await member(service, tag);
    const body = configuration(tag, { 'properties.desired.a': 1 });
    await registry(hub).addConfiguration(structuredClone(body));
    defer(() => registry(hub).removeConfiguration(body.id));
    await settled(service, one, 'the value', (twin) => twin.properties.desired.a === 1);
    const reply = await service.put(at(body.id), { ...body, priority: 20, content: { deviceContent: { 'properties.desired.a': 2 } } }, { ifMatch: '*' });
    assert.equal(reply.status, 200, reply.text);
    assert.equal(reply.json.priority, 20);
    const { responseBody: read } = await registry(hub).getConfiguration(body.id);
    assert.deepEqual(read.content.deviceContent, { 'properties.desired.a': 1 });
    assert.deepEqual(await desiredOf(service, one), { a: 1 });
  });

  test('service 106: a deviceContent key tags.x, device and module content together, and content without a kind are InvalidConfigurationContent', async ({ service }) => {
    const body = configuration(fleet(), {});
    for (const content of [
      { deviceContent: { 'tags.x': 1 } },
      { deviceContent: { 'properties.reported.x': 1 } },
      { deviceContent: { x: 1 } },
      { deviceContent: { 'properties.desired.a': 1 }, moduleContent: { 'properties.desired.a': 1 } },
      { modulesContent: { app: { 'properties.desired.a': 1 } } }, // without $edgeAgent
      {},
    ]) {
      assertError(await service.put(at(body.id), { ...body, content }), 400, 'InvalidConfigurationContent');
    }
    assertError(await service.put(at(body.id), { ...body, content: { deviceContent: { 'properties.desired.a': 1 } }, targetCondition: 'tags.x =' }), 400, 'InvalidConfigurationTargetCondition');
    assertError(await service.put(at(body.id), { ...body, content: { deviceContent: { 'properties.desired.a': 1 } }, metrics: { queries: { bad: 'SELECT nonsense' } } }), 400, 'InvalidConfigurationCustomMetricsQuery');
    const fine = 'SELECT deviceId FROM devices';
    assertError(await service.put(at(body.id), { ...body, content: { deviceContent: { 'properties.desired.a': 1 } }, metrics: { queries: { a: fine, b: fine, c: fine, d: fine, e: fine, f: fine } } }), 400, 'InvalidConfigurationCustomMetricsQuery');
    assert.equal((await service.get(at(body.id))).status, 404);
  });

  test('service 107: testQueries answers 200 with targetConditionError for a bad condition, and errors by name for metrics', async ({ service }) => {
    const ask = (targetCondition, customMetricQueries) => service.post('/configurations/testQueries', { targetCondition, customMetricQueries });
    const good = await ask("tags.site='x'", { n: 'SELECT deviceId FROM devices' });
    assert.equal(good.status, 200, good.text);
    assert.ok(!good.json.targetConditionError, good.text);
    assert.deepEqual(good.json.customMetricQueryErrors, {});
    const bad = await ask('tags.site = = 1', { fine: 'SELECT deviceId FROM devices', bad: 'SELEC nonsense' });
    assert.equal(bad.status, 200, bad.text);
    assert.equal(typeof bad.json.targetConditionError, 'string');
    assert.deepEqual(Object.keys(bad.json.customMetricQueryErrors), ['bad']);
    assert.ok((await ask('from devices.modules where tags.x = 1', {})).json.targetConditionError === undefined);
  });

  test('service 108: a device that matches gets the desired values and the status Applied; one that comes later, too', async ({ service, hub, defer }) => {
    const tag = fleet();
    const one = await member(service, tag);
    const other = await member(service, `${tag}-other`);
    const connected = await openClient(one);
    defer(() => connected.close());
    const told = new Promise((resolve, reject) => {
      connected.getTwin((error, twin) => (error ? reject(error) : twin.on('properties.desired.interval', resolve)));
    });
    const body = configuration(tag, { 'properties.desired.interval': 30, 'properties.desired.fan': { speed: 3 } });
    await registry(hub).addConfiguration(structuredClone(body));
    defer(() => registry(hub).removeConfiguration(body.id));
    const twin = await settled(service, one, 'applied', (t) => t.configurations?.[body.id]?.status === 'Applied' && t);
    assert.deepEqual(plain(twin.properties.desired), { interval: 30, fan: { speed: 3 } });
    assert.equal(await told, 30);
    const late = await member(service, tag);
    await settled(service, late, 'applied to a device that came later', (t) => t.configurations?.[body.id]?.status === 'Applied');
    assert.deepEqual(await desiredOf(service, late), { interval: 30, fan: { speed: 3 } });
    assert.deepEqual(await desiredOf(service, other), {});
    const query = await service.post('/devices/query', { query: `SELECT deviceId FROM devices WHERE configurations.[[${body.id}]].status = 'Applied'` });
    assert.deepEqual(query.json.map((row) => row.deviceId).sort(), [one.deviceId, late.deviceId].sort(), query.text);
    // It leaves the fleet: its settings go with it.
    await service.patch(twinPath(late.deviceId), { tags: { fleet: null } });
    await settled(service, late, 'removed', (t) => !('interval' in t.properties.desired) && !(body.id in (t.configurations ?? {})));

    // Modules have configurations of their own.
    const module = await newModule(service, one, 'app');
    const forModules = { ...configuration(tag, {}), targetCondition: `from devices.modules where deviceId='${one.deviceId}' and moduleId='app'`, content: { moduleContent: { 'properties.desired.m': true } } };
    await registry(hub).addConfiguration(structuredClone(forModules));
    defer(() => registry(hub).removeConfiguration(forModules.id));
    await settled(service, module, 'applied to the module', (t) => t.configurations?.[forModules.id]?.status === 'Applied' && t.properties.desired.m === true);
  });

  test('service 109: of two configurations on one path the higher priority wins, of equal ones the newer; the loser is Targeted', async ({ service, hub, defer }) => {
    const sdk = registry(hub);
    const tag = fleet();
    const one = await member(service, tag);
    const make = async (value, priority) => {
      const body = configuration(tag, { 'properties.desired.v': value }, { priority });
      await sdk.addConfiguration(structuredClone(body));
      defer(() => sdk.removeConfiguration(body.id).catch(() => {}));
      return body;
    };
    const first = await make('first', 10);
    const higher = await make('higher', 20);
    const lower = await make('lower', 5);
    const status = (t, body) => t.configurations?.[body.id]?.status;
    await settled(service, one, 'the higher one wins', (t) => t.properties.desired.v === 'higher' && status(t, higher) === 'Applied' && status(t, first) === 'Targeted' && status(t, lower) === 'Targeted');
    const newer = await make('newer', 20);
    await settled(service, one, 'the newer one wins', (t) => t.properties.desired.v === 'newer' && status(t, newer) === 'Applied' && status(t, higher) === 'Targeted');
    const { responseBody: read } = await sdk.getConfiguration(lower.id);
    await sdk.updateConfiguration({ ...read, priority: 30 });
    await settled(service, one, 'a raised priority wins', (t) => t.properties.desired.v === 'lower' && status(t, newer) === 'Targeted');
    await sdk.removeConfiguration(lower.id);
    await settled(service, one, 'the next one takes over', (t) => t.properties.desired.v === 'newer' && status(t, newer) === 'Applied' && status(t, lower) === undefined);
  });

  test('service 110: the other paths of a configuration with lower priority are applied', async ({ service, hub, defer }) => {
    const sdk = registry(hub);
    const tag = fleet();
    const one = await member(service, tag);
    const base = configuration(tag, { 'properties.desired.net': { host: 'base', port: 1 }, 'properties.desired.own': true }, { priority: 1 });
    const top = configuration(tag, { 'properties.desired.net.host': 'top' }, { priority: 2 });
    for (const body of [base, top]) {
      await sdk.addConfiguration(structuredClone(body));
      defer(() => sdk.removeConfiguration(body.id));
    }
    await settled(service, one, 'both applied', (t) => t.configurations?.[top.id]?.status === 'Applied' && t.configurations?.[base.id]?.status === 'Applied' && t.properties.desired.own === true);
    assert.deepEqual(await desiredOf(service, one), { net: { host: 'top', port: 1 }, own: true });
  });

  test('service 111: null in the content removes the property', async ({ service, hub, defer }) => {
    const tag = fleet();
    const one = await newDevice(service);
    await service.patch(twinPath(one.deviceId), { properties: { desired: { old: 1, kept: { a: 1, b: 2 } } } });
    const body = configuration(tag, { 'properties.desired.old': null, 'properties.desired.kept.a': null });
    await registry(hub).addConfiguration(structuredClone(body));
    defer(() => registry(hub).removeConfiguration(body.id));
    await service.patch(twinPath(one.deviceId), { tags: { fleet: tag } });
    await settled(service, one, 'removed', (t) => !('old' in t.properties.desired));
    assert.deepEqual(await desiredOf(service, one), { kept: { b: 2 } });
  });

  test('service 112: metric results equal the row counts of their queries, and targetedCount the matching devices', async ({ service, hub, defer }) => {
    const tag = fleet();
    const members = [];
    for (let i = 0; i < 4; i++) members.push(await member(service, tag, { n: i }));
    const body = configuration(tag, { 'properties.desired.a': 1 }, {
      metrics: { queries: {
        low: `SELECT deviceId FROM devices WHERE tags.fleet='${tag}' AND tags.n < 2`,
        applied: `SELECT deviceId FROM devices WHERE configurations.[[${'ID'}]].status='Applied'`,
        none: 'SELECT deviceId FROM devices WHERE tags.n = 999999',
      } },
    });
    body.metrics.queries.applied = body.metrics.queries.applied.replace('ID', body.id);
    await registry(hub).addConfiguration(structuredClone(body));
    defer(() => registry(hub).removeConfiguration(body.id));
    const shown = await eventually('the metrics', async () => {
      const { responseBody } = await registry(hub).getConfiguration(body.id);
      return responseBody.systemMetrics.results.appliedCount === 4 && responseBody.metrics.results.applied === 4 && responseBody;
    }, 30_000, 500);
    assert.deepEqual(shown.metrics.queries, body.metrics.queries);
    assert.deepEqual(shown.metrics.results, { low: 2, applied: 4, none: 0 });
    assert.equal(shown.systemMetrics.results.targetedCount, 4);
    // az's show-metric runs the text of a system metric again.
    for (const name of ['targetedCount', 'appliedCount']) {
      const reply = await service.post('/devices/query', { query: shown.systemMetrics.queries[name] });
      assert.equal(reply.status, 200, `${name}: ${reply.text}`);
      assert.equal(reply.json.length, 4, name);
    }
  });

  test('service 114: applyConfigurationContent on an edge device answers 204 and changes its modules; on another device 400', async ({ service, hub }) => {
    const sdk = registry(hub);
    const edge = await newDevice(service, { capabilities: { iotEdge: true } });
    await newModule(service, edge, 'app');
    const content = { modulesContent: {
      $edgeAgent: { 'properties.desired': { schemaVersion: '1.1', modules: {} } },
      app: { 'properties.desired': { interval: 5 } },
    } };
    const { httpResponse } = await sdk.applyConfigurationContentOnDevice(edge.deviceId, content);
    assert.equal(httpResponse.statusCode, 204);
    const module = (name) => service.get(twinPath(edge.deviceId, name));
    assert.deepEqual(plain((await module('$edgeAgent')).json.properties.desired), { schemaVersion: '1.1', modules: {} });
    assert.deepEqual(plain((await module('app')).json.properties.desired), { interval: 5 });
    const leaf = await newDevice(service);
    assert.equal((await rejected(sdk.applyConfigurationContentOnDevice(leaf.deviceId, content))).response.statusCode, 400);
    assert.equal((await rejected(sdk.applyConfigurationContentOnDevice(uniqueId('none'), content))).response.statusCode, 404);
    const apply = (body) => service.post(`${path(edge.deviceId)}/applyConfigurationContent`, body);
    assertError(await apply({ deviceContent: { 'properties.desired.a': 1 } }), 400, 'InvalidConfigurationContent');
    assertError(await apply({ modulesContent: { $edgeAgent: { 'tags.x': 1 } } }), 400, 'InvalidConfigurationContent');
  });
});

suite('service: the number of configurations', { timeout: 240_000 }, ({ test }) => {
  test('service 113: the 101st configuration answers 413 ConfigurationCountLimitExceeded', async ({ service, hub }) => {
    const sdk = registry(hub);
    const have = (await sdk.getConfigurations()).responseBody.length;
    const body = (i) => ({ id: `many-${i}`, content: { deviceContent: { 'properties.desired.a': i } }, targetCondition: '', priority: i });
    for (let i = have; i < 100; i++) await sdk.addConfiguration(body(i));
    assert.equal((await rejected(sdk.addConfiguration(body(100)))).response.statusCode, 413);
    assertError(await service.put(at('many-100'), body(100)), 413, 'ConfigurationCountLimitExceeded');
    await sdk.removeConfiguration('many-99');
    await sdk.addConfiguration(body(100));
    assert.equal((await sdk.getConfigurations()).responseBody.length, 100);
  });
});
