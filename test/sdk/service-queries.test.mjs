// Service checklist: queries, items 70 to 77, and Microsoft's client paging
// through ten thousand devices that change meanwhile.
import { suite } from './lib/suite.mjs';
import { assert, assertError, newDevice, newModule, path, registry, twinPath, uniqueId } from './lib/fixture.mjs';

const ask = (service, query, headers = {}) => service.post('/devices/query', { query }, { headers });

// tagged makes so many devices with a tag of their own, by bulk.
async function tagged(service, count, more = () => ({})) {
  const tag = uniqueId('tag');
  const ids = Array.from({ length: count }, (_, i) => `${tag}-${String(i).padStart(5, '0')}`);
  for (let at = 0; at < count; at += 100) {
    const items = ids.slice(at, at + 100).map((id, i) => ({ id, importMode: 'create', tags: { tag, n: at + i, ...more(at + i) } }));
    const reply = await service.post('/devices', items);
    assert.equal(reply.status, 200, reply.text);
  }
  return { tag, ids };
}

// header returns a header by its exact name on the wire.
function header(reply, name) {
  for (let i = 0; i < reply.rawHeaders.length; i += 2) if (reply.rawHeaders[i] === name) return reply.rawHeaders[i + 1];
  return undefined;
}

// everything reads all pages with Microsoft's client; turn runs between two.
async function everything(hub, text, size, turn = async () => {}) {
  const query = registry(hub).createQuery(text, size);
  const pages = [];
  while (query.hasMoreResults) {
    const { result } = await query.nextAsTwin();
    pages.push(result);
    await turn(pages.length);
  }
  return pages;
}

suite('service: queries', { concurrency: 4, timeout: 240_000 }, ({ test }) => {
  test('service 70: the reply is a bare array, and x-ms-item-type says Twin, Raw or DeviceJob', async ({ service, hub }) => {
    const { tag, ids } = await tagged(service, 3);
    const one = await newDevice(service);
    const module = await newModule(service, one);
    for (const [text, type, count] of [
      [`SELECT * FROM devices WHERE tags.tag = '${tag}'`, 'Twin', 3],
      [`select deviceId, tags.n AS n from devices where tags.tag = "${tag}"`, 'Raw', 3],
      [`SELECT COUNT() AS number FROM devices WHERE tags.tag = '${tag}'`, 'Raw', 1],
      [`SELECT * FROM devices.modules WHERE deviceId = '${one.deviceId}' AND moduleId = '${module.moduleId}'`, 'Twin', 1],
      ['SELECT * FROM devices.jobs', 'DeviceJob', 0],
    ]) {
      const reply = await ask(service, text);
      assert.equal(reply.status, 200, reply.text);
      assert.ok(Array.isArray(reply.json), text);
      assert.equal(reply.json.length, count, text);
      assert.equal(header(reply, 'x-ms-item-type'), type, text);
      assert.match(reply.headers['content-type'], /application\/json/);
    }
    const { json } = await ask(service, `SELECT * FROM devices WHERE deviceId = '${ids[1]}'`);
    assert.deepEqual(json, [(await service.get(twinPath(ids[1]))).json]);
    const [[twin]] = await everything(hub, `SELECT * FROM devices WHERE deviceId = '${ids[2]}'`, 10);
    assert.equal(twin.deviceId, ids[2]);
    assert.deepEqual(twin.tags, { tag, n: 2 });
    await twin.update({ tags: { more: true } });
    const raw = await registry(hub).createQuery(`SELECT tags.n AS n FROM devices WHERE tags.tag = '${tag}' AND tags.more = true`).next();
    assert.deepEqual(raw.result, [{ n: 2 }]);
  });

  test('service 71: pages of 2 over 5 rows hold 2, 2 and 1; the last has no x-ms-continuation', async ({ service, hub }) => {
    const { tag, ids } = await tagged(service, 5);
    const text = `SELECT * FROM devices WHERE tags.tag = '${tag}'`;
    const sizes = [];
    for (let token; ;) {
      const reply = await ask(service, text, { 'x-ms-max-item-count': '2', ...(token === undefined ? {} : { 'x-ms-continuation': token }) });
      sizes.push(reply.json.length);
      token = header(reply, 'x-ms-continuation');
      if (token === undefined) break;
      assert.notEqual(token, '');
    }
    assert.deepEqual(sizes, [2, 2, 1]);
    const pages = await everything(hub, text, 2);
    assert.deepEqual(pages.map((page) => page.length), [2, 2, 1]);
    assert.deepEqual(pages.flat().map((twin) => twin.deviceId), ids);
    assert.deepEqual((await everything(hub, `${text} AND tags.n < 4`, 2)).map((page) => page.length), [2, 2]);
  });

  test('service 72: x-ms-max-item-count 10000 gives at most 100 rows and is not refused', async ({ service }) => {
    const { tag } = await tagged(service, 120);
    const reply = await ask(service, `SELECT * FROM devices WHERE tags.tag = '${tag}'`, { 'x-ms-max-item-count': '10000' });
    assert.equal(reply.status, 200, reply.text);
    assert.ok(reply.json.length > 0 && reply.json.length <= 100, `${reply.json.length} rows`);
    assert.ok(header(reply, 'x-ms-continuation'));
  });

  test('service 73: a token works on a new connection, is opaque, and garbage answers 400', async ({ service }) => {
    const { tag, ids } = await tagged(service, 4);
    const text = `SELECT deviceId FROM devices WHERE tags.tag = '${tag}'`;
    const first = await ask(service, text, { 'x-ms-max-item-count': '1' });
    const token = header(first, 'x-ms-continuation');
    assert.ok(token && !token.includes(ids[0]));
    const rest = await ask(service, text, { 'x-ms-continuation': token, Connection: 'close' });
    assert.deepEqual(rest.json.map((row) => row.deviceId), ids.slice(1));
    for (const bad of ['garbage', token.slice(0, -3), `${token.slice(0, 8)}${token[8] === 'A' ? 'B' : 'A'}${token.slice(9)}`]) {
      assertError(await ask(service, text, { 'x-ms-continuation': bad }), 400, 'ArgumentInvalid');
    }
    assertError(await ask(service, `${text} AND tags.n = 1`, { 'x-ms-continuation': token }), 400, 'ArgumentInvalid');
  });

  test('service 74: bad syntax is ArgumentInvalid, a missing query ArgumentNull, 8193 characters 400', async ({ service, hub }) => {
    for (const text of ['SELECT nonsense', 'SELECT * FROM c', 'SELECT * FROM devices ORDER BY deviceId', 'SELECT * FROM devices WHERE tags.a IN (1,2)', `SELECT * FROM devices WHERE ${' '.repeat(8166)}`]) {
      assertError(await ask(service, text), 400, 'ArgumentInvalid');
    }
    assertError(await service.post('/devices/query', {}), 400, 'ArgumentNull');
    const fits = 'SELECT * FROM devices WHERE deviceId = \'';
    assert.equal((await ask(service, `${fits}${'x'.repeat(8192 - fits.length - 1)}'`)).status, 200);
    assertError(await ask(service, `${fits}${'x'.repeat(8193 - fits.length - 1)}'`), 400, 'ArgumentInvalid');
    await assert.rejects(registry(hub).createQuery('SELEC nonsense').next(), (error) => error.response.statusCode === 400);
  });

  test('service 75: an empty result is [] with an item type', async ({ service, hub }) => {
    const text = `SELECT * FROM devices WHERE tags.tag = '${uniqueId('none')}'`;
    const reply = await ask(service, text);
    assert.equal(reply.text.trim(), '[]');
    assert.equal(header(reply, 'x-ms-item-type'), 'Twin');
    assert.equal(header(reply, 'x-ms-continuation'), undefined);
    assert.deepEqual(await everything(hub, text, 10), [[]]);
  });

  test('service 76: rows deleted between pages never crash paging, and none comes twice', async ({ service, hub }) => {
    const { tag, ids } = await tagged(service, 12);
    const gone = new Set();
    const pages = await everything(hub, `SELECT * FROM devices WHERE tags.tag = '${tag}'`, 3, async (page) => {
      for (const at of [page, 12 - page]) {
        if (gone.has(ids[at])) continue;
        gone.add(ids[at]);
        assert.equal((await service.delete(path(ids[at]), { ifMatch: '*' })).status, 204);
      }
    });
    const seen = pages.flat().map((twin) => twin.deviceId);
    assert.equal(new Set(seen).size, seen.length);
    for (const id of ids) if (!gone.has(id)) assert.ok(seen.includes(id), `${id} is missing in ${seen}`);
  });

  test('service 77: a device created just before, and each change of it, is visible to the next query', async ({ service }) => {
    for (let i = 0; i < 20; i++) {
      const one = await newDevice(service);
      const count = async (where) => (await ask(service, `SELECT deviceId FROM devices WHERE deviceId = '${one.deviceId}' AND ${where}`)).json.length;
      assert.equal(await count('status = \'enabled\''), 1);
      await service.patch(twinPath(one.deviceId), { tags: { i }, properties: { desired: { deep: { i } } } });
      assert.equal(await count(`tags.i = ${i} AND properties.desired.deep.i = ${i}`), 1);
      await service.delete(path(one.deviceId), { ifMatch: '*' });
      assert.equal(await count('status = \'enabled\''), 0);
    }
  });

  test('service 71, 76: createQuery pages through 10,000 devices while they change', async ({ service, hub, t }) => {
    const { tag, ids } = await tagged(service, 10_000, (i) => ({ leaves: i % 10 === 3 }));
    const mine = `tags.tag = '${tag}'`;
    let stop = false;
    let changes = 0;
    const deleted = new Set();
    const made = [];
    const random = () => ids[Math.floor(Math.random() * ids.length)];
    const change = async () => {
      while (!stop) {
        const kind = Math.random();
        if (kind < 0.7) await service.patch(twinPath(random()), { tags: { changed: changes } });
        else if (kind < 0.85) {
          const id = ids[Math.floor(Math.random() * 1000) * 10 + 3]; // of those that leave
          deleted.add(id);
          await service.delete(path(id), { ifMatch: '*' });
        } else {
          const id = `${random()}x${changes}`;
          made.push(id);
          await service.post('/devices', [{ id, importMode: 'create', tags: { tag } }]);
        }
        changes++;
      }
    };
    const changing = Promise.all(Array.from({ length: 4 }, change));
    const started = performance.now();
    const pages = await everything(hub, `SELECT * FROM devices WHERE ${mine}`, 100);
    const seconds = (performance.now() - started) / 1000;
    stop = true;
    await changing;
    const seen = pages.flat().map((twin) => twin.deviceId);
    const set = new Set(seen);
    assert.equal(set.size, seen.length, 'a device came twice');
    const missing = ids.filter((id) => !deleted.has(id) && !set.has(id));
    assert.deepEqual(missing, [], 'devices that were there throughout are missing');
    const strange = seen.filter((id) => !id.startsWith(tag));
    assert.deepEqual(strange, []);
    assert.ok(changes > 100, `${changes} changes`);
    t.diagnostic(`${seen.length} devices on ${pages.length} pages in ${seconds.toFixed(1)} s (IoT Hub's throttle for queries applies), ${changes} changes meanwhile: ${deleted.size} deleted, ${made.length} made`);
  });
});
