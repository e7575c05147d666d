// What misbehaving clients get on the side of streams, webhooks, queues and
// floods. The answers are documented in docs/reference/bad-input.md.
import http from 'node:http';
import net from 'node:net';
import tls from 'node:tls';
import { randomBytes } from 'node:crypto';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { suite } from './lib/suite.mjs';
import { address, host, httpsPort } from './lib/hub.mjs';
import { rest } from './lib/rest.mjs';
import { token } from './lib/sas.mjs';
import { Wire, resource } from './lib/wire.mjs';
import { abusing, events, memory, metric, raw } from './lib/abuse.mjs';
import { assert, eventually, newDevice, newKey, path, sleep, uniqueId } from './lib/fixture.mjs';

suite('abuse: streams and floods', {}, ({ test }) => {
  const { abuse, last } = abusing(test);

  // follow begins a stream of events: over TLS as a policy, or over the local
  // socket. It takes nothing when told so.
  async function follow(hub, { service, query = 'kind=telemetry', local = false, upgrade = false, deaf = false } = {}) {
    const socket = local ? net.connect(join(hub.dir, 'muster.sock')) : tls.connect({ host: address, port: httpsPort, servername: host });
    const one = { socket, text: '', bytes: 0, status: 0, ended: false };
    one.closed = new Promise((gone) => socket.once('close', () => { one.ended = true; gone(performance.now()); }));
    socket.on('error', () => {});
    await once(socket, local ? 'connect' : 'secureConnect');
    const kind = upgrade
      ? ['Connection: Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13', `Sec-WebSocket-Key: ${randomBytes(16).toString('base64')}`]
      : ['Accept: text/event-stream'];
    const headers = [`Host: ${host}`, ...kind];
    if (service) headers.push(`Authorization: ${service.token()}`);
    socket.write(`GET /api/v1/events?${query} HTTP/1.1\r\n${headers.join('\r\n')}\r\n\r\n`);
    await new Promise((done) => {
      socket.on('data', (data) => {
        one.bytes += data.length;
        one.text = (one.text + data.toString('latin1')).slice(-20_000);
        const found = !one.status && /^HTTP\/1\.1 (\d+)/.exec(one.text);
        if (!found) return;
        one.status = Number(found[1]);
        if (deaf) socket.pause();
        done();
      });
      socket.once('close', done);
    });
    return one;
  }

  abuse('subscribers that read nothing: cut, each in time and in bounds, while one that reads gets everything', async ({ service, hub, t, defer }) => {
    const one = await newDevice(service);
    const before = memory(hub);
    const query = `device=${one.deviceId}`;
    const deaf = [];
    for (let i = 0; i < 16; i++) deaf.push(await follow(hub, { service, query: i % 2 ? query : `${query}&kind=telemetry`, upgrade: i % 4 > 1, deaf: true }));
    defer(() => deaf.forEach(({ socket }) => socket.destroy()));
    assert.deepEqual([...new Set(deaf.map(({ status }) => status))].sort(), [101, 200]);
    const quick = await follow(hub, { service, query: `${query}&kind=telemetry` });
    defer(() => quick.socket.destroy());
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    const body = Buffer.alloc(200 * 1024, 'x'); // 30 MB: more than both ends' sockets hold
    const started = performance.now();
    let most = 0;
    for (let i = 1; i <= 150; i++) {
      wire.send({ cmd: 'publish', topic: events(one.deviceId), payload: body, qos: 1, messageId: i });
      if (i % 10 === 0) {
        await wire.packet((packet) => packet.cmd === 'puback' && packet.messageId === i, 20_000);
        most = Math.max(most, memory(hub));
      }
    }
    await eventually('the one that reads has it all', () => quick.bytes > 150 * body.length, 20_000);
    t.diagnostic(`30 MB for each of 17 subscribers, 16 of which read nothing: the one that reads had it after ${((performance.now() - started) / 1000).toFixed(1)} s, the hub grew by ${(most - before).toFixed(0)} MB at most`);
    const left = () => metric('muster_event_streams');
    await eventually('the deaf ones are cut', async () => await left() <= 1, 45_000, 500);
    t.diagnostic(`they were cut ${((performance.now() - started) / 1000).toFixed(1)} s after the first message`);
    assert.equal(quick.ended, false, 'the one that reads was cut, too');
    assert.ok(most - before < 200, `the hub grew by ${most - before} MB`);
  }, { timeout: 150_000 });

  abuse('ten thousand streams: as many as the limits say, 429 for the others, all of the open ones served', async ({ service, hub, t, defer }) => {
    const one = await newDevice(service);
    const before = memory(hub);
    const open = [];
    defer(() => open.forEach(({ socket }) => socket.destroy()));
    let refused = 0;
    const started = performance.now();
    for (let batch = 0; batch < 100; batch++) {
      await Promise.all(Array.from({ length: 100 }, async () => {
        const stream = await follow(hub, { local: true, query: `device=${one.deviceId}&kind=telemetry` });
        if (stream.status === 200) { open.push(stream); return; }
        assert.equal(stream.status, 429, stream.text);
        assert.match(stream.text, /the most of one principal/);
        assert.match(stream.text, /Retry-After/i);
        refused += 1;
        stream.socket.destroy();
      }));
    }
    t.diagnostic(`${open.length} streams opened and ${refused} refused in ${((performance.now() - started) / 1000).toFixed(1)} s, the hub grew by ${(memory(hub) - before).toFixed(0)} MB`);
    assert.equal(open.length, 1000);
    // Another principal has its own share.
    const other = await follow(hub, { service, query: `device=${one.deviceId}&kind=telemetry` });
    assert.equal(other.status, 200);
    open.push(other);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    const sent = performance.now();
    await wire.publish(events(one.deviceId), '"for all"');
    await eventually('all have it', () => open.every((stream) => stream.text.includes('for all')), 20_000);
    t.diagnostic(`an event was with all ${open.length} after ${Math.round(performance.now() - sent)} ms`);
    assert.ok(memory(hub) - before < 250, `the hub grew by ${memory(hub) - before} MB`);
    for (const { socket } of open) socket.destroy();
    await eventually('their places are free', async () => (await rest({ path: '/metrics' })).text.includes('\nmuster_event_streams 0\n'), 20_000, 200);
  }, { timeout: 150_000 });

  abuse('webhooks to private addresses: refused, whatever the address is written as, and nobody hears of it', async ({ service, defer }) => {
    let heard = 0;
    const server = http.createServer((_, response) => { heard += 1; response.end(); });
    await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
    defer(() => server.close());
    const { port } = server.address();
    for (const where of ['127.0.0.1', 'localhost', '0.0.0.0', '2130706433', '0x7f000001', '127.1', '[::1]', '[::ffff:127.0.0.1]', '[64:ff9b::127.0.0.1]', '10.1.2.3', '192.168.1.1', '169.254.169.254', '[fd00:ec2::254]', '[fe80::1]', '100.64.0.1', host]) {
      const name = uniqueId('hook');
      const put = await service.put(`/api/v1/webhooks/${name}`, { url: `http://${where}:${port}/`, paused: true });
      assert.equal(put.status, 200, `${where}: ${put.text}`);
      const tried = (await service.post(`/api/v1/webhooks/${name}/test`, '')).json;
      assert.equal(tried.delivered, false, where);
      assert.match(tried.error, /private or reserved|no such host|lookup|unreachable/, where);
      assert.equal((await service.delete(`/api/v1/webhooks/${name}`)).status, 204);
    }
    for (const url of ['file:///etc/passwd', 'ftp://example.com', 'http://user:secret@example.com', 'http://', '//example.com', 'gopher://127.0.0.1:70/', `https://example.com/${'x'.repeat(3000)}`]) {
      assert.equal((await service.put('/api/v1/webhooks/never', { url })).status, 400, url);
    }
    assert.equal(heard, 0);
  });

  abuse('a body of 200 MB on every POST, PUT and PATCH: 413 or refused before, and no memory taken', async ({ service, hub, t }) => {
    const before = memory(hub);
    const described = (await service.get('/api/v1/openapi.json')).json;
    const targets = [];
    for (const [path_, methods] of Object.entries(described.paths)) {
      for (const method of ['post', 'put', 'patch']) {
        if (!methods[method] || !methods[method].requestBody) continue;
        targets.push([method.toUpperCase(), path_.replace(/\{[^}]+\}/g, 'x')]);
      }
    }
    assert.ok(targets.length > 20, `${targets.length} operations take a body`);
    const chunk = Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(65536, 0x20), Buffer.from('\r\n')]);
    const seen = new Map();
    await Promise.all(targets.map(async ([method, target], i) => {
      const declared = i % 2 === 0;
      const { socket, received, closed } = await raw(Buffer.from([
        `${method} ${target}?api-version=2021-04-12 HTTP/1.1`, `Host: ${host}`, `Authorization: ${service.token()}`, 'Content-Type: application/json', 'If-Match: *',
        declared ? 'Content-Length: 200000000' : 'Transfer-Encoding: chunked', '', ''].join('\r\n')), httpsPort);
      const part = declared ? Buffer.alloc(65536, 0x20) : chunk;
      let sent = 0;
      while (!/^HTTP\/1\.1 \d+/.test(Buffer.concat(received).toString()) && !socket.destroyed && sent < 50e6) {
        sent += part.length;
        if (!socket.write(part)) await Promise.race([once(socket, 'drain'), closed, sleep(100)]);
        else await sleep(0);
      }
      await Promise.race([closed, sleep(300)]);
      const status = /^HTTP\/1\.1 (\d+)/.exec(Buffer.concat(received).toString())?.[1] ?? 'closed';
      socket.destroy();
      assert.ok(sent < 50e6, `${method} ${target} took ${sent} bytes`);
      assert.ok(['400', '404', '411', '413', 'closed'].includes(status), `${method} ${target}: ${status}`);
      seen.set(status, (seen.get(status) ?? 0) + 1);
    }));
    t.diagnostic(`${targets.length} operations: ${JSON.stringify(Object.fromEntries(seen))}, the hub grew by ${(memory(hub) - before).toFixed(0)} MB`);
    assert.ok(memory(hub) - before < 150, `the hub grew by ${memory(hub) - before} MB`);
  });

  abuse('a device that floods telemetry at QoS 0: slowed to its share, told in the log and the metrics, nobody waits for it', async ({ service, t }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    const body = Buffer.alloc(250 * 1024, 'f');
    const paced = () => metric('muster_device_paced_total');
    const before = await paced();
    const started = performance.now();
    let sent = 0;
    while (performance.now() - started < 6000 && !wire.ended) {
      wire.send({ cmd: 'publish', topic: events(one.deviceId), payload: body, qos: 0 });
      sent += body.length;
      if (wire.socket.writableLength > 8e6) await Promise.race([once(wire.socket, 'drain'), sleep(1000)]);
    }
    assert.equal(wire.ended, false, 'a device is slowed, not cut');
    await wire.ping(30_000); // behind all that it sent
    const rate = sent / (performance.now() - started) / 1000;
    t.diagnostic(`a flood at QoS 0 was taken at ${rate.toFixed(1)} MB/s`);
    assert.ok(rate < 12, `${rate} MB/s`);
    assert.ok(await paced() > before, 'nothing tells that it was slowed');
    assert.match(readFileSync(process.env.MUSTER_TEST_LOG, 'utf8'), new RegExp(`sends more than it may and is read more slowly" device=${one.deviceId}`));
    await wire.disconnect();
  });

  abuse('a device that floods reported patches and method answers: answered in order or throttled, nobody waits for it', async ({ service, t, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe('$iothub/twin/res/#', '$iothub/methods/POST/#');
    const started = performance.now();
    for (let i = 0; i < 2000; i++) {
      wire.send({ cmd: 'publish', topic: `$iothub/twin/PATCH/properties/reported/?$rid=${i}`, payload: JSON.stringify({ i, x: 'y'.repeat(2000) }), qos: 0 });
      wire.send({ cmd: 'publish', topic: `$iothub/methods/res/200/?$rid=${i}`, payload: 'x'.repeat(1000), qos: 0 });
    }
    const statuses = new Map();
    for (let i = 0; i < 2000; i++) {
      const reply = await wire.publishOn('$iothub/twin/res/', 30_000);
      const [, , , status, rest_] = reply.topic.split('/');
      assert.ok(rest_.includes(`$rid=${i}`), `answer ${i} is ${reply.topic}`);
      statuses.set(status, (statuses.get(status) ?? 0) + 1);
    }
    t.diagnostic(`2000 patches were answered in ${((performance.now() - started) / 1000).toFixed(1)} s: ${JSON.stringify(Object.fromEntries(statuses))}`);
    for (const status of statuses.keys()) assert.ok(['204', '429'].includes(status), status);
    await wire.disconnect();
  });

  abuse('a device that never acknowledges its cloud-to-device messages: 50 wait, further ones are refused, purged ones free its queue', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe({ topic: `devices/${one.deviceId}/messages/devicebound/#`, qos: 1 });
    const queue = `/api/v1${path(one.deviceId)}/messages/devicebound`;
    for (let i = 0; i < 50; i++) assert.equal((await service.post(queue, { body: Buffer.alloc(1000, i).toString('base64') })).status, 200);
    const full = await service.post(queue, { body: 'eA==' });
    assert.ok([403, 429].includes(full.status), full.text);
    await sleep(1000);
    const handed = wire.inbox.filter((packet) => packet.cmd === 'publish').length;
    assert.ok(handed >= 1 && handed <= 16, `${handed} messages are with the device at once`);
    assert.equal((await service.delete(queue)).status, 200);
    assert.equal((await service.post(queue, { body: 'eA==' })).status, 200);
    await wire.ping();
  });

  abuse('giant property bags: as large as the format takes, then the close or 413', async ({ service, hub }) => {
    const one = await newDevice(service);
    const before = memory(hub);
    const bag = (n, size) => Array.from({ length: n }, (_, i) => `k${i}=${'v'.repeat(size)}`).join('&');
    for (const [n, size, taken] of [[90, 600, true], [1, 60_000, true], [5000, 1, false], [60_000 / 4, 0, false]]) {
      const wire = await Wire.session(one, { clean: true });
      wire.send({ cmd: 'publish', topic: `${events(one.deviceId)}${bag(n, size)}`.slice(0, 65_000), payload: 'x', qos: 1, messageId: 7 });
      const answer = await wire.packetOrClose('puback', 5000);
      if (taken) assert.ok(answer, `${n} properties of ${size} bytes were refused`);
      else if (!answer) assert.ok(wire.ended);
      await wire.cut();
    }
    const page = await service.get(`/api/v1/events?cursor=start&kind=telemetry&limit=1000&device=${one.deviceId}`);
    assert.equal(page.status, 200);
    assert.ok(page.text.length < 2e6, `a page of ${page.text.length} bytes`);
    assert.ok(memory(hub) - before < 100, `the hub grew by ${memory(hub) - before} MB`);
  });

  abuse('poisoned idempotency keys: bad ones 400, another body 422, thousands of them within bounds, and an effect comes once', async ({ service, hub, t }) => {
    const one = await newDevice(service);
    const before = memory(hub);
    const calls = `/api/v1${path(one.deviceId)}/method-calls`;
    const post = (key, body) => service.post(calls, body, { headers: { 'Idempotency-Key': key } });
    const body = { methodName: 'm', waitForDeviceInSeconds: 60 };
    for (const key of ['x'.repeat(256), 'two words']) assert.equal((await post(key, body)).status, 400, key);
    const together = await Promise.all(Array.from({ length: 20 }, () => post('same', body)));
    assert.deepEqual([...new Set(together.map(({ status }) => status))].filter((status) => ![202, 409].includes(status)), []);
    assert.equal((await post('same', { ...body, methodName: 'other' })).status, 422);
    const again = await post('same', body);
    assert.equal(again.headers['idempotency-replayed'], 'true');
    assert.equal((await service.get(`${calls}?limit=1000`)).json.items.length, 1);
    // Each of these is refused, and its refusal kept.
    const started = performance.now();
    for (let batch = 0; batch < 60; batch++) {
      await Promise.all(Array.from({ length: 50 }, (_, i) => post(`poison-${batch}-${i}`, { nonsense: 'x'.repeat(1000) })));
    }
    t.diagnostic(`3000 keys in ${((performance.now() - started) / 1000).toFixed(1)} s, the hub grew by ${(memory(hub) - before).toFixed(0)} MB`);
    assert.ok(memory(hub) - before < 150, `the hub grew by ${memory(hub) - before} MB`);
    assert.equal((await post('same', body)).json.id, again.json.id);
  });

  abuse('a storm of reconnects: every device is back, and again, while a flood of wrong keys from the same address is slowed', async ({ service, t }) => {
    const devices = await Promise.all(Array.from({ length: 60 }, () => newDevice(service)));
    const stranger = { identity: uniqueId('stranger') };
    let storming = true;
    const tries = { refused: 0, other: 0 };
    const flood = Promise.all(Array.from({ length: 4 }, async () => {
      while (storming) {
        try {
          const { wire, connack } = await Wire.connect(stranger, { password: token(resource(stranger.identity), newKey()) });
          tries[connack?.returnCode === 5 ? 'refused' : 'other'] += 1;
          wire.destroy();
        } catch { tries.other += 1; await sleep(20); }
      }
    }));
    const took = [];
    for (let round = 0; round < 3; round++) {
      const started = performance.now();
      const wires = await Promise.all(devices.map((one) => eventually('a device is back', () => Wire.session(one).catch(() => null), 30_000, 50)));
      took.push(performance.now() - started);
      await Promise.all(wires.map((wire) => wire.ping(10_000)));
      for (const wire of wires) wire.destroy();
      await Promise.all(wires.map((wire) => wire.closed));
    }
    storming = false;
    await flood;
    t.diagnostic(`60 devices came back in ${took.map((ms) => `${(ms / 1000).toFixed(1)} s`).join(', ')}, beside ${tries.refused} wrong keys`);
  });

  last();
});
