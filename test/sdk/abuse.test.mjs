// What misbehaving clients get, and that an innocent device notices nothing.
// The answers are documented in docs/reference/bad-input.md.
import { randomBytes } from 'node:crypto';
import mqttPacket from 'mqtt-packet';
import { suite } from './lib/suite.mjs';
import { host, httpsPort, mqttsPort } from './lib/hub.mjs';
import { rest } from './lib/rest.mjs';
import { inSeconds, token } from './lib/sas.mjs';
import { Wire, resource, userName } from './lib/wire.mjs';
import { abusing, events, lonely, median, memory, raw } from './lib/abuse.mjs';
import { assert, eventually, newDevice, newKey, path, sleep, twinPath, uniqueId, within } from './lib/fixture.mjs';

suite('abuse', {}, ({ test }) => {
  const { abuse, last } = abusing(test);

  abuse('unknown device, wrong key, expired token and disabled device: CONNACK 5 and a closed socket, 200 times', async ({ service }) => {
    const one = await newDevice(service);
    const off = await newDevice(service, { status: 'disabled' });
    const kinds = [
      () => [{ identity: uniqueId('unknown') }, { password: token(resource('unknown'), one.primaryKey) }],
      () => [one, { password: token(resource(one.identity), newKey()) }],
      () => [one, { password: one.token({ se: inSeconds(-3600) }) }],
      () => [off, {}],
    ];
    for (let round = 0; round < 10; round++) {
      await Promise.all(Array.from({ length: 20 }, async (_, i) => {
        const [device, options] = kinds[i % 4]();
        const { wire, connack } = await Wire.connect(device, options);
        // 3 is the hub's answer to too many at once: it says nothing of keys.
        assert.ok([5, 3].includes(connack?.returnCode), `kind ${i % 4} got ${connack?.returnCode}`);
        await wire.closes();
      }));
    }
  });

  abuse('unsupported topics: closed, without an answer', async ({ service }) => {
    const one = await newDevice(service);
    for (const topic of ['x', '$iothub/nothing', events('other'), `${'a/'.repeat(30_000)}`]) {
      const wire = await Wire.session(one, { clean: true });
      wire.send({ cmd: 'publish', topic, payload: 'x', qos: 1, messageId: 1 });
      await wire.closes();
      assert.deepEqual(wire.inbox, []);
    }
  });

  abuse('a declared length of 256 MB: closed at once, before and after CONNECT, and no memory taken', async ({ service, hub }) => {
    const one = await newDevice(service);
    const before = memory(hub);
    const huge = [0xff, 0xff, 0xff, 0x7f];
    await Promise.all(Array.from({ length: 50 }, async () => {
      const { closed, socket } = await raw(Buffer.from([0x10, ...huge, ...randomBytes(100)]));
      await within(3000, 'close of a huge CONNECT', closed);
      socket.destroy();
    }));
    for (const type of [0x30, 0x32, 0x82, 0xa2, 0xc0, 0x40]) {
      for (const via of ['tls', 'ws']) {
        const wire = await Wire.session(one, { clean: true, via });
        wire.write(Buffer.from([type, ...huge, 0, 1, 65]));
        await wire.closes(3000);
      }
    }
    const grown = memory(hub) - before;
    assert.ok(grown < 100, `the hub grew by ${grown.toFixed(0)} MB`);
  });

  abuse('packets that break MQTT: closed', async ({ service }) => {
    const one = await newDevice(service);
    const publish = (topic, rest = [0x78]) => { const body = Buffer.concat([Buffer.from([topic.length >> 8, topic.length & 255]), topic, Buffer.from(rest)]); return Buffer.concat([Buffer.from([0x30, body.length]), body]); };
    const base = Buffer.from(events(one.deviceId));
    const broken = {
      'invalid UTF-8 in the topic': publish(Buffer.concat([base, Buffer.from([0xff, 0xfe])])),
      'a cut UTF-8 sequence in the topic': publish(Buffer.concat([base, Buffer.from([0xe2, 0x98])])),
      'a UTF-16 surrogate in the topic': publish(Buffer.concat([base, Buffer.from([0xed, 0xa0, 0x80])])),
      'NUL in the topic': publish(Buffer.concat([base, Buffer.from([0])])),
      'a wildcard in the topic': publish(Buffer.from(`devices/${one.deviceId}/messages/+/`)),
      'an empty topic': publish(Buffer.alloc(0)),
      'a topic longer than the packet': Buffer.from([0x30, 5, 0xff, 0xff, 65, 65, 65]),
      'a length of five bytes': Buffer.from([0x30, 0xff, 0xff, 0xff, 0xff, 0x01]),
      'packet type 0': Buffer.from([0x00, 0]),
      'packet type 15': Buffer.from([0xf0, 0]),
      'a CONNACK from the client': Buffer.from([0x20, 2, 0, 0]),
      'a PINGRESP from the client': Buffer.from([0xd0, 0]),
      'QoS 3': Buffer.from([0x36, 5, 0, 1, 65, 0, 1]),
      'QoS 1 with packet id 0': Buffer.concat([Buffer.from([0x32, base.length + 4, 0, base.length]), base, Buffer.from([0, 0])]),
      'SUBSCRIBE without a filter': Buffer.from([0x82, 2, 0, 1]),
      'SUBSCRIBE with wrong flags': Buffer.from([0x80, 6, 0, 1, 0, 1, 35, 0]),
      'SUBSCRIBE at QoS 3': mqttPacketWith(),
      'a second CONNECT': mqttPacket.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clientId: one.deviceId, clean: true, keepalive: 60, username: userName(one.identity), password: Buffer.from(one.token()) }),
      'random bytes': randomBytes(2000).fill(0xf3, 0, 1),
    };
    function mqttPacketWith() {
      const filter = Buffer.from('$iothub/methods/POST/#');
      return Buffer.concat([Buffer.from([0x82, filter.length + 5, 0, 1, 0, filter.length]), filter, Buffer.from([3])]);
    }
    for (const [what, bytes] of Object.entries(broken)) {
      for (const via of ['tls', 'ws']) {
        const wire = await Wire.session(one, { clean: true, via });
        wire.write(bytes);
        await wire.closes(3000).catch((error) => { throw new Error(`${what} over ${via}: ${error.message}`); });
      }
    }
  });

  abuse('bytes that are no CONNECT: closed', async ({ service }) => {
    const one = await newDevice(service);
    const text = (s) => Buffer.concat([Buffer.from([s.length >> 8, s.length & 255]), Buffer.from(s)]);
    const connect = (body) => Buffer.concat([Buffer.from([0x10, body.length]), body]);
    for (const [what, bytes] of Object.entries({
      'PUBLISH first': mqttPacket.generate({ cmd: 'publish', topic: events(one.deviceId), payload: 'x', qos: 0 }),
      'PINGREQ first': Buffer.from([0xc0, 0]),
      'HTTP on the MQTT port': Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'),
      'another protocol name': connect(Buffer.concat([text('MQXX'), Buffer.from([4, 2, 0, 60]), text('x')])),
      'reserved flag set': connect(Buffer.concat([text('MQTT'), Buffer.from([4, 3, 0, 60]), text('x')])),
      'password flag without user name': connect(Buffer.concat([text('MQTT'), Buffer.from([4, 0x42, 0, 60]), text('x'), text('p')])),
      'invalid UTF-8 in the client id': connect(Buffer.concat([text('MQTT'), Buffer.from([4, 2, 0, 60]), Buffer.from([0, 2, 0xff, 0xfe])])),
      'random bytes': Buffer.concat([Buffer.from([0x11]), randomBytes(500)]),
    })) {
      const { closed } = await raw(bytes);
      await within(3000, `close after ${what}`, closed);
    }
    for (const port of [mqttsPort, httpsPort]) {
      const plain = await lonely(port);
      plain.socket.write(Buffer.concat([Buffer.from('GET / HTTP/1.1\r\n'), randomBytes(300)]));
      await within(5000, `close of plain text on ${port}`, plain.closed);
    }
  });

  abuse('a CONNECT with 60 KB of user name or password: refused', async ({ service }) => {
    const one = await newDevice(service);
    for (const options of [{ username: userName(one.identity, 'x='.padEnd(60_000, 'y')) , password: 'x' }, { password: `SharedAccessSignature sr=${'x'.repeat(60_000)}` }, { clientId: 'x'.repeat(60_000) }, { will: { topic: 'foreign', payload: Buffer.alloc(60_000), qos: 1, retain: false } }]) {
      const { wire, connack } = await Wire.connect(one, options);
      assert.notEqual(connack?.returnCode, 0);
      await wire.closes();
    }
  });

  abuse('broken WebSocket frames: closed', async ({ service }) => {
    const one = await newDevice(service);
    const masked = (first, length, payload = Buffer.alloc(0)) => Buffer.concat([Buffer.from([first, ...length]), Buffer.from([0, 0, 0, 0]), payload]);
    for (const [what, bytes] of Object.entries({
      'a text frame': masked(0x81, [0x82], Buffer.from([0xc0, 0])),
      'an unmasked frame': Buffer.from([0x82, 2, 0xc0, 0]),
      'a frame of 2^62 bytes': masked(0x82, [0xff, 0x3f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
      'a reserved opcode': masked(0x83, [0x82], Buffer.from([0xc0, 0])),
      'a reserved bit': masked(0xc2, [0x82], Buffer.from([0xc0, 0])),
      'a continuation without a start': masked(0x80, [0x82], Buffer.from([0xc0, 0])),
      'a ping of 200 bytes': masked(0x89, [0xfe, 0, 200], Buffer.alloc(200)),
    })) {
      const wire = await Wire.session(one, { clean: true, via: 'ws' });
      wire.websocket._socket.write(bytes);
      if (what.startsWith('a frame of 2^62')) wire.websocket._socket.write(Buffer.concat([Buffer.from([0xf3, 0]), randomBytes(1000)]));
      await wire.closes(3000).catch((error) => { throw new Error(`${what}: ${error.message}`); });
    }
  });

  const deepArray = `${'['.repeat(100_000)}${']'.repeat(100_000)}`;
  const deepObject = `${'{"a":'.repeat(100_000)}1${'}'.repeat(100_000)}`;
  const nasty = {
    'an object nested 100,000 deep': deepObject,
    'an array nested 100,000 deep': `{"a":${deepArray}}`,
    'an unclosed array 100,000 deep': `{"a":${'['.repeat(100_000)}`,
    'the number 1e400': '{"a":1e400}',
    'a number of 10,000 digits': `{"a":${'9'.repeat(10_000)}}`,
    'a number of 10,000 decimals': `{"a":0.${'1'.repeat(10_000)}}`,
    'duplicate keys': '{"a":1,"a":2}',
    'duplicate keys inside': '{"a":{"b":1,"b":2}}',
    'duplicate keys by escape': '{"a":1,"\\u0061":2}',
    'invalid UTF-8': Buffer.from([0x7b, 0x22, 0x61, 0x22, 0x3a, 0x22, 0xff, 0x22, 0x7d]),
    'a lone surrogate in a key': '{"\\ud800":1}',
    'NaN': '{"a":NaN}',
    'a leading zero': '{"a":01}',
    'a comment': '{"a":1/*x*/}',
    'trailing data': '{"a":1}{',
    'a byte order mark': '\ufeff{"a":1}',
    'nothing but white space': '   ',
  };

  abuse('nasty JSON as reported properties: 400 with errorCode, or the close when it is too large to be a patch', async ({ service, defer }) => {
    const one = await newDevice(service);
    for (const [what, body] of Object.entries(nasty)) {
      const wire = await Wire.session(one);
      defer(() => wire.cut());
      await wire.subscribe('$iothub/twin/res/#');
      const started = performance.now();
      const reply = await wire.report(body).catch((error) => error);
      if (reply instanceof Error) {
        assert.ok(wire.ended && body.length > 256 * 1024, `${what}: ${reply.message}`);
      } else {
        assert.ok([400, 413].includes(reply.status), `${what}: ${reply.topic} ${reply.payload}`);
        assert.ok(reply.json.errorCode, what);
        assert.ok(reply.payload.length < 2000, `${what}: the error text is ${reply.payload.length} bytes long`);
        await wire.ping();
        await wire.disconnect();
      }
      assert.ok(performance.now() - started < 1000, `${what} took ${Math.round(performance.now() - started)} ms`);
    }
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    assert.deepEqual((await wire.twin()).json.reported, { $version: 1 });
  });

  abuse('nasty JSON through REST: 400 or 413 with a short JSON error, nothing changed', async ({ service }) => {
    const one = await newDevice(service);
    const before = (await service.get(twinPath(one.deviceId))).json;
    for (const [what, body] of Object.entries(nasty)) {
      const text = Buffer.from(body);
      const wrap = (head, tail) => Buffer.concat([Buffer.from(head), text, Buffer.from(tail)]);
      const requests = {
        tags: ['PATCH', twinPath(one.deviceId), wrap('{"tags":', '}')],
        desired: ['PUT', twinPath(one.deviceId), wrap('{"properties":{"desired":', '}}')],
        twin: ['PATCH', twinPath(one.deviceId), text],
        device: ['PUT', path(uniqueId()), wrap('{"authentication":', '}')],
        bulk: ['POST', '/devices', wrap('[{"id":"x","importMode":"create","tags":', '}]')],
        method: ['POST', `${twinPath(one.deviceId)}/methods`, wrap('{"methodName":"x","payload":', '}')],
        'whole method': ['POST', `${twinPath(one.deviceId)}/methods`, text],
      };
      for (const [where, [method, target, content]] of Object.entries(requests)) {
        // As a twin patch or method some of these are merely unknown members.
        const harmless = (where === 'twin' || where === 'device') && /number|keys inside|surrogate/.test(what);
        const started = performance.now();
        const reply = await service.call(method, target, { body: content });
        assert.ok(harmless ? reply.status < 500 : reply.status >= 400 && reply.status < 500, `${what} as ${where}: ${reply.status} ${reply.text.slice(0, 300)}`);
        assert.ok(reply.json !== undefined && reply.text.length < 4000, `${what} as ${where}: ${reply.text.length} bytes of error`);
        assert.ok(performance.now() - started < 1500, `${what} as ${where} took ${Math.round(performance.now() - started)} ms`);
      }
    }
    assert.deepEqual((await service.get(twinPath(one.deviceId))).json, before);
  });

  abuse('oversize requests: 413, 414 or 431 without reading them to the end', async ({ service, hub, t }) => {
    const one = await newDevice(service);
    const before = memory(hub);
    const send = (head, more) => new Promise((resolve) => {
      raw(Buffer.from(head), httpsPort).then(({ socket, received, closed }) => {
        const timer = more ? setInterval(() => socket.write(more), 2) : null;
        const answered = setInterval(() => {
          const text = Buffer.concat(received).toString();
          const found = /^HTTP\/1\.1 (\d+)/.exec(text);
          if (found) done(Number(found[1]));
        }, 20);
        const limit = setTimeout(() => done('nothing'), 15_000);
        const done = (value) => { clearInterval(timer); clearInterval(answered); clearTimeout(limit); socket.destroy(); resolve(value); };
        closed.then(() => setTimeout(() => done('closed'), 50));
      });
    });
    const head = (method, target, ...headers) => `${[`${method} ${target} HTTP/1.1`, `Host: ${host}`, `Authorization: ${service.token()}`, ...headers].join('\r\n')}\r\n\r\n`;
    const version = 'api-version=2021-04-12';
    const declared = await send(head('PATCH', `${twinPath(one.deviceId)}?${version}`, 'Content-Type: application/json', 'Content-Length: 1000000000'), Buffer.alloc(65536, 0x20));
    assert.ok([400, 413, 'closed'].includes(declared), `declared 1 GB: ${declared}`);
    const chunk = Buffer.concat([Buffer.from('10000\r\n'), Buffer.alloc(65536, 0x20), Buffer.from('\r\n')]);
    const chunked = await send(head('PATCH', `${twinPath(one.deviceId)}?${version}`, 'Content-Type: application/json', 'Transfer-Encoding: chunked'), chunk);
    assert.ok([400, 413, 'closed'].includes(chunked), `endless chunks: ${chunked}`);
    const headers = await send(`GET / HTTP/1.1\r\nHost: ${host}\r\nX: ${'y'.repeat(2_000_000)}\r\n`);
    assert.ok([400, 431, 'closed'].includes(headers), `2 MB of headers: ${headers}`);
    const target = await send(head('GET', `/${'x'.repeat(500_000)}`));
    assert.ok([400, 404, 414, 431, 'closed'].includes(target), `500 KB of path: ${target}`);
    t.diagnostic(`declared 1 GB: ${declared}, endless chunks: ${chunked}, 2 MB of headers: ${headers}, 500 KB of path: ${target}`);
    const grown = memory(hub) - before;
    assert.ok(grown < 100, `the hub grew by ${grown.toFixed(0)} MB`);
  });

  abuse('slow handshakes, slow headers, slow bodies, half-open and silent sockets: all ended in time', async ({ service, t }) => {
    const one = await newDevice(service);
    const ends = [];
    const started = performance.now();
    const note = (what, closed, limit) => ends.push({ what, limit, closed: closed.then((at) => (at - started) / 1000) });
    const drip = (socket, bytes, pause = 1000) => {
      let i = 0;
      const timer = setInterval(() => { if (socket.destroyed) clearInterval(timer); else socket.write(bytes.subarray(i % bytes.length, (i++ % bytes.length) + 1)); }, pause);
      socket.once('close', () => clearInterval(timer));
    };
    // The first bytes of a ClientHello whose record is declared 512 bytes long.
    const hello = Buffer.concat([Buffer.from([0x16, 0x03, 0x01, 0x02, 0x00, 0x01, 0x00, 0x01, 0xfc, 0x03, 0x03]), randomBytes(200)]);
    for (const port of [mqttsPort, httpsPort]) {
      for (let i = 0; i < 20; i++) {
        const silent = await lonely(port);
        note(`silent TCP on ${port}`, silent.closed, 15);
        const slow = await lonely(port);
        drip(slow.socket, hello);
        note(`TLS handshake byte by byte on ${port}`, slow.closed, 15);
      }
    }
    for (let i = 0; i < 20; i++) {
      const mute = await raw(null);
      note('TLS without CONNECT', mute.closed, 35);
      const half = await lonely(mqttsPort);
      half.socket.end();
      note('half-closed TCP', half.closed, 15);
      const header = await raw(Buffer.from(`GET /devices HTTP/1.1\r\nHost: ${host}\r\nX-Slow: `), httpsPort);
      drip(header.socket, Buffer.from('y'));
      note('HTTP headers byte by byte', header.closed, 15);
      const body = await raw(Buffer.from(`PATCH ${twinPath(one.deviceId)}?api-version=2021-04-12 HTTP/1.1\r\nHost: ${host}\r\nAuthorization: ${service.token()}\r\nContent-Length: 5000\r\n\r\n{`), httpsPort);
      drip(body.socket, Buffer.from(' '));
      note('HTTP body byte by byte', body.closed, 40);
      const nothing = await raw(null, httpsPort);
      note('TLS without a request', nothing.closed, 35);
    }
    // Meanwhile others are served.
    for (let i = 0; i < 5; i++) {
      const { wire, connack } = await within(3000, 'a new device connects meanwhile', Wire.connect(await newDevice(service)));
      assert.equal(connack.returnCode, 0);
      await wire.disconnect();
      await sleep(1000);
    }
    const longest = new Map();
    const overdue = new Set();
    await Promise.all(ends.map(async ({ what, limit, closed }) => {
      const seconds = await Promise.race([closed, sleep(limit * 1000 - (performance.now() - started)).then(() => Infinity)]);
      longest.set(what, Math.max(longest.get(what) ?? 0, seconds));
      if (seconds > limit) overdue.add(what);
    }));
    for (const [what, seconds] of longest) t.diagnostic(`${what}: closed after ${seconds.toFixed(1)} s`);
    assert.deepEqual([...overdue], []);
  }, { timeout: 150_000 });

  abuse('a device that does not read: cut or held within bounds, and its hub keeps its pace', async ({ service, hub, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe('$iothub/twin/PATCH/properties/desired/#', '$iothub/twin/res/#');
    wire.socket.pause();
    const before = memory(hub);
    const body = (i) => ({ properties: { desired: Object.fromEntries(Array.from({ length: 7 }, (_, k) => [`k${k}`, `${i}${'x'.repeat(4000)}`])) } });
    const times = [];
    for (let i = 0; i < 200; i++) {
      const started = performance.now();
      const reply = await service.patch(twinPath(one.deviceId), body(i));
      assert.ok([200, 429].includes(reply.status), reply.text);
      times.push(performance.now() - started);
    }
    // And it asks for its twin without ever reading an answer.
    for (let i = 0; i < 2000; i++) wire.send({ cmd: 'publish', topic: `$iothub/twin/GET/?$rid=${i}`, payload: ' ', qos: 0 });
    await sleep(1000);
    assert.ok(median(times) < 200, `median of the patches ${median(times)} ms`);
    const grown = memory(hub) - before;
    assert.ok(grown < 150, `the hub grew by ${grown.toFixed(0)} MB`);
    const again = await Wire.session(one);
    await again.ping();
    await again.cut();
  });

  abuse('many twin requests and method answers nobody asked for: taken or throttled, bounded', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe('$iothub/twin/res/#', '$iothub/methods/POST/#');
    for (let i = 0; i < 3000; i++) wire.send({ cmd: 'publish', topic: `$iothub/methods/res/200/?$rid=${i}`, payload: 'x', qos: 0 });
    for (let i = 0; i < 300; i++) wire.send({ cmd: 'publish', topic: `$iothub/twin/GET/?$rid=${i}`, payload: ' ', qos: 0 });
    let answered = 0;
    await eventually('300 answers, or the close', () => {
      answered = wire.inbox.filter((packet) => packet.cmd === 'publish' && /\/res\/(200|429)\//.test(packet.topic)).length;
      return answered === 300 || wire.ended;
    }, 20_000);
    assert.equal(wire.ended, false, `closed after ${answered} answers`);
  });

  // Silent at once, or silent after a handshake that cost the hub something.
  const knocks = {
    'that say nothing': (i) => lonely(i % 2 ? mqttsPort : httpsPort),
    'that end after the TLS handshake': () => raw(null),
  };
  for (const [what, knock] of Object.entries(knocks)) {
    abuse(`two thousand unauthenticated connections ${what}: other devices come and go, and all 2000 are closed`, async ({ service, hub, t }) => {
      const before = memory(hub);
      const started = performance.now();
      const open = [];
      let refused = 0;
      for (let batch = 0; batch < 40; batch++) {
        await Promise.all(Array.from({ length: 50 }, async (_, i) => {
          try {
            open.push(await knock(i));
          } catch {
            refused++;
          }
        }));
      }
      const seconds = (performance.now() - started) / 1000;
      t.diagnostic(`${open.length} connections in ${seconds.toFixed(1)} s, ${refused} refused, the hub grew by ${(memory(hub) - before).toFixed(0)} MB`);
      assert.equal(open.length + refused, 2000);
      for (let i = 0; i < 5; i++) {
        const one = await newDevice(service);
        const wire = await eventually('a new device connects meanwhile', () => within(4000, 'connect', Wire.session(one, { via: i % 2 ? 'ws' : 'tls' })).catch(() => null), 10_000);
        await wire.ping();
        await wire.disconnect();
      }
      const anonymous = await rest({ path: '/healthz' });
      assert.equal(anonymous.status, 200);
      assert.ok(memory(hub) - before < 300, `the hub grew by ${(memory(hub) - before).toFixed(0)} MB`);
      await within(45_000, 'all of them are closed', Promise.all(open.map((one) => one.closed)));
      for (const { socket } of open) socket.destroy();
    }, { timeout: 150_000 });
  }

  last();
});
