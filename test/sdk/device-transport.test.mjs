// Device checklist: transport and TLS, items 1 to 10.
import https from 'node:https';
import tls from 'node:tls';
import { once } from 'node:events';
import { randomBytes } from 'node:crypto';
import { spawnSync } from 'node:child_process';
import mqttPacket from 'mqtt-packet';
import { WebSocket } from 'ws';
import { suite } from './lib/suite.mjs';
import { address, host, httpsPort, mqttsPort } from './lib/hub.mjs';
import { Wire, userName, websocketPath } from './lib/wire.mjs';
import { assert, newDevice, openClient, patience, transports, within } from './lib/fixture.mjs';
import { chained, selfSigned } from './lib/certificates.mjs';
import { token } from './lib/sas.mjs';
import device from 'azure-iot-device';

// upgrade asks for a WebSocket by hand and gives the answer's head.
function upgrade(path, headers, method = 'GET') {
  return new Promise((resolve, reject) => {
    const request = https.request({
      host, port: httpsPort, path, method, agent: false,
      headers: { Connection: 'Upgrade', Upgrade: 'websocket', 'Sec-WebSocket-Version': '13', 'Sec-WebSocket-Key': randomBytes(16).toString('base64'), ...headers },
    });
    request.on('upgrade', (response, socket) => { socket.destroy(); resolve({ status: 101, headers: response.headers }); });
    request.on('response', (response) => { response.resume(); resolve({ status: response.statusCode, headers: response.headers }); });
    request.on('error', reject);
    request.setTimeout(5000, () => request.destroy(new Error('no answer to the upgrade request in 5 s')));
    request.end();
  });
}

async function handshake(port, options) {
  const socket = tls.connect({ host: address, port, servername: host, ...options });
  await within(patience, `TLS handshake on ${port}`, once(socket, 'secureConnect'));
  return socket;
}

suite('device: transport and TLS', { concurrency: 4 }, ({ test }) => {
  for (const version of ['TLSv1.2', 'TLSv1.3']) {
    test(`device 1: a client that speaks ${version} alone completes the handshake on 8883 and on 443`, async ({ service, defer }) => {
      for (const port of [mqttsPort, httpsPort]) {
        const socket = await handshake(port, { minVersion: version, maxVersion: version });
        assert.equal(socket.getProtocol(), version);
        assert.equal(socket.authorized, true);
        socket.destroy();
      }
      const wire = await Wire.session(await newDevice(service), { tls: { minVersion: version, maxVersion: version } });
      defer(() => wire.cut());
      assert.equal(wire.socket.getProtocol(), version);
      await wire.ping();
    });
  }

  test('device 1: TLS 1.1 is refused on both ports', async () => {
    for (const port of [mqttsPort, httpsPort]) {
      const error = await handshake(port, { minVersion: 'TLSv1.1', maxVersion: 'TLSv1.1', ciphers: 'DEFAULT:@SECLEVEL=0' }).then((s) => { s.destroy(); return null; }, (e) => e);
      assert.ok(error, `port ${port} took TLS 1.1`);
    }
  });

  test('device 1: a client that knows RSA certificates alone completes the handshake on both ports', async () => {
    for (const port of [mqttsPort, httpsPort]) {
      const socket = await handshake(port, { minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2', ciphers: 'ECDHE-RSA-AES128-GCM-SHA256:ECDHE-RSA-AES256-GCM-SHA384' });
      assert.equal(socket.getPeerCertificate().asn1Curve, undefined);
      assert.ok(socket.getPeerCertificate().modulus, 'the server certificate is not RSA');
      socket.destroy();
    }
  });

  test('device 2: clients without certificate and with a self-signed one complete the handshake on the same port', async ({ service, defer }) => {
    const own = selfSigned('device-two');
    for (const options of [{}, { key: own.key, cert: own.cert }]) {
      for (const via of ['tls', 'ws']) {
        const wire = await Wire.session(await newDevice(service), { via, tls: options });
        defer(() => wire.cut());
        await wire.ping();
      }
    }
  });

  test('device 2: the server asks for a client certificate', () => {
    for (const port of [mqttsPort, httpsPort]) {
      // Only openssl shows the server's request; TLS 1.2 has it in the clear.
      const { stdout } = spawnSync('openssl', ['s_client', '-connect', `${address}:${port}`, '-servername', host, '-tls1_2'], { input: '', encoding: 'utf8', timeout: 10_000 });
      assert.match(stdout, /Client Certificate Types:/, `port ${port}`);
    }
  });

  test('device 3: a chain from an unknown CA does not end the handshake; CONNECT decides', async ({ service, defer }) => {
    const foreign = chained('device-three');
    const known = await newDevice(service);
    const { wire, connack } = await Wire.connect(known, { tls: { key: foreign.key, cert: foreign.cert } });
    defer(() => wire.cut());
    assert.equal(connack.returnCode, 0);
    const refused = await Wire.connect(known, { tls: { key: foreign.key, cert: foreign.cert }, password: null });
    assert.equal(refused.connack.returnCode, 5);
    await refused.wire.closes();
  });

  test('device 4: an upgrade with subprotocol mqtt answers 101 and mqtt', async () => {
    for (const path of [websocketPath, '/%24iothub/websocket']) {
      const reply = await upgrade(path, { 'Sec-WebSocket-Protocol': 'mqtt' });
      assert.equal(reply.status, 101, path);
      assert.equal(reply.headers['sec-websocket-protocol'], 'mqtt');
      assert.match(reply.headers.connection, /upgrade/i);
      assert.match(reply.headers.upgrade, /^websocket$/i);
      assert.ok(reply.headers['sec-websocket-accept']);
    }
  });

  test('device 5: the same with MQTT in capitals echoes MQTT', async ({ service, defer }) => {
    const reply = await upgrade(websocketPath, { 'Sec-WebSocket-Protocol': 'MQTT' });
    assert.equal(reply.status, 101);
    assert.equal(reply.headers['sec-websocket-protocol'], 'MQTT');
    const wire = await Wire.session(await newDevice(service), { via: 'ws', protocols: ['MQTT'] });
    defer(() => wire.cut());
    await wire.ping();
  });

  test('device 6: ?iothub-no-client-cert=true and an Origin header work', async ({ service, defer }) => {
    const query = await upgrade(`${websocketPath}?iothub-no-client-cert=true`, { 'Sec-WebSocket-Protocol': 'mqtt' });
    assert.equal(query.status, 101);
    for (const origin of [`https://${host}:443`, 'https://somewhere.else.test']) {
      const reply = await upgrade(`${websocketPath}?iothub-no-client-cert=true`, { 'Sec-WebSocket-Protocol': 'mqtt', Origin: origin, Host: `${host}:443` });
      assert.equal(reply.status, 101, origin);
    }
    const wire = await Wire.session(await newDevice(service), { via: 'ws', path: `${websocketPath}?iothub-no-client-cert=true`, tls: { origin: `https://${host}:443` } });
    defer(() => wire.cut());
    await wire.ping();
  });

  test('device 7: a packet over three frames, and two packets in one frame, are understood', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one, { via: 'ws' });
    defer(() => wire.cut());
    const packet = mqttPacket.generate({ cmd: 'publish', topic: `devices/${one.deviceId}/messages/events/`, payload: 'three frames', qos: 1, messageId: 31 });
    // Cut inside the fixed header, the topic and the payload.
    for (const part of [packet.subarray(0, 1), packet.subarray(1, 20), packet.subarray(20)]) wire.write(part);
    assert.equal((await wire.packet('puback')).messageId, 31);
    const two = Buffer.concat([32, 33].map((messageId) => mqttPacket.generate({ cmd: 'publish', topic: `devices/${one.deviceId}/messages/events/`, payload: `packet ${messageId}`, qos: 1, messageId })));
    wire.write(two);
    assert.deepEqual([(await wire.packet('puback')).messageId, (await wire.packet('puback')).messageId], [32, 33]);
    // One WebSocket message in three fragments is the other way to cut it.
    const again = mqttPacket.generate({ cmd: 'publish', topic: `devices/${one.deviceId}/messages/events/`, payload: 'three fragments', qos: 1, messageId: 34 });
    wire.websocket.send(again.subarray(0, 3), { binary: true, fin: false });
    wire.websocket.send(again.subarray(3, 9), { binary: true, fin: false });
    wire.websocket.send(again.subarray(9), { binary: true, fin: true });
    assert.equal((await wire.packet('puback')).messageId, 34);
  });

  test('device 7: a CONNECT over many frames of one byte is understood', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.dial({ via: 'ws' });
    defer(() => wire.cut());
    const connect = mqttPacket.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clientId: one.deviceId, clean: false, keepalive: 60, username: userName(one.deviceId), password: Buffer.from(one.token()) });
    for (const byte of connect) wire.write(Buffer.from([byte]));
    assert.equal((await wire.packet('connack')).returnCode, 0);
  });

  test('device 8: a telemetry publish of 200 KiB through WebSocket is accepted', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one, { via: 'ws' });
    defer(() => wire.cut());
    await wire.publish(`devices/${one.deviceId}/messages/events/`, randomBytes(200 * 1024));
    await wire.ping();
  });

  test('device 8: the unmodified SDK sends 200 KiB through MqttWs', async ({ service, defer }) => {
    const client = await openClient(await newDevice(service), transports.MqttWs);
    defer(() => client.close());
    await within(patience, 'sendEvent of 200 KiB', client.sendEvent(new device.Message(randomBytes(200 * 1024))));
  });

  test('device 9: the 101 names no extension that the server does not implement', async ({ service, defer }) => {
    const reply = await upgrade(websocketPath, { 'Sec-WebSocket-Protocol': 'mqtt', 'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits' });
    assert.equal(reply.status, 101);
    if (reply.headers['sec-websocket-extensions'] === undefined) return;
    // It claims one, so it must work: a compressing client has a session.
    const one = await newDevice(service);
    const wire = await Wire.session(one, { via: 'ws', tls: { perMessageDeflate: { threshold: 0 } } });
    defer(() => wire.cut());
    await wire.publish(`devices/${one.deviceId}/messages/events/`, 'x'.repeat(10_000));
  });

  test('device 9: a client that offers permessage-deflate, as Microsoft\'s does, has a working session', async ({ service, defer }) => {
    const one = await newDevice(service);
    const socket = new WebSocket(`wss://${host}${websocketPath}`, ['mqtt'], { perMessageDeflate: true });
    defer(() => socket.terminate());
    await once(socket, 'open');
    socket.send(mqttPacket.generate({ cmd: 'connect', protocolId: 'MQTT', protocolVersion: 4, clientId: one.deviceId, clean: true, keepalive: 60, username: userName(one.deviceId), password: Buffer.from(token(encodeURIComponent(`${host}/devices/${one.deviceId}`), one.primaryKey)) }));
    const [data] = await within(patience, 'CONNACK', once(socket, 'message'));
    assert.deepEqual([...data], [0x20, 2, 0, 0]);
  });

  test('device 10: AMQPWSB10 alone is refused with an HTTP error, at once', async () => {
    const started = performance.now();
    const reply = await upgrade(websocketPath, { 'Sec-WebSocket-Protocol': 'AMQPWSB10' });
    assert.ok(reply.status >= 400 && reply.status < 500, `answered ${reply.status}`);
    assert.ok(performance.now() - started < 2000);
  });
});
