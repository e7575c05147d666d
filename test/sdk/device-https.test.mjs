// Device checklist: the HTTPS device API, items 94 to 98, 100 and 101, by raw
// requests and by azure-iot-device-http.
import device from 'azure-iot-device';
import common from 'azure-iot-common';
import httpTransport from 'azure-iot-device-http';
import { suite } from './lib/suite.mjs';
import { rest } from './lib/rest.mjs';
import { assert, eventually, newDevice, newModule, path, modulePath, patience, within } from './lib/fixture.mjs';

const { Http } = httpTransport;
const version = 'api-version=2021-04-12';
const batchType = 'application/vnd.microsoft.iothub.json';

// call sends a request as the device.
const call = (one, method, where, { headers = {}, ...more } = {}) => rest({ method, path: where, headers: { Authorization: one.token(), ...headers }, ...more });
const post = (one, body, options = {}) => call(one, 'POST', `${path(one.deviceId)}/messages/events?${version}`, { body, ...options });
const receive = (one, name = 'devicebound') => call(one, 'GET', `${path(one.deviceId)}/messages/${name}?${version}`);
const settle = (one, method, tail, headers = {}) => call(one, method, `${path(one.deviceId)}/messages/devicebound/${tail}`, { headers });

const queue = (id) => `/api/v1${path(id)}/messages/devicebound`;
const send = async (service, id, text, more = {}) => {
  const reply = await service.post(queue(id), { body: Buffer.from(text).toString('base64'), ...more });
  assert.equal(reply.status, 200, reply.text);
};
const waiting = async (service, id) => (await service.get(queue(id))).json.items.length;

async function stored(service, id, count) {
  return eventually(`${count} messages of ${id}`, async () => {
    const reply = await service.get(`/api/v1/events?cursor=start&kind=telemetry&limit=1000&device=${encodeURIComponent(id)}`);
    assert.equal(reply.status, 200, reply.text);
    return reply.json.events.length === count && reply.json.events.map((event) => event.message);
  });
}

// token of the lock that a received message names.
const lockOf = (reply) => {
  assert.equal(reply.status, 200, reply.text);
  assert.match(reply.headers.etag, /^"[^"]+"$/);
  return reply.headers.etag.slice(1, -1);
};

suite('device: HTTPS', { concurrency: 4 }, ({ test }) => {
  test('device 94: POST events answers 204 and the message is stored with its properties', async ({ service }) => {
    const one = await newDevice(service);
    const reply = await post(one, Buffer.from([1, 2, 255]), { headers: { 'Content-Type': 'application/octet-stream', 'iothub-app-color': 'red', 'iothub-messageid': 'm1', 'iothub-contenttype': 'application/x', 'dt-subject': 'comp' } });
    assert.equal(reply.status, 204, reply.text);
    assert.equal(reply.text, '');
    const [message] = await stored(service, one.deviceId, 1);
    assert.equal(message.encoding, 'base64');
    assert.equal(message.body, 'AQL/');
    assert.deepEqual(message.properties, { color: 'red' });
    const { 'message-id': id, 'content-type': type, 'dt-subject': subject, 'iothub-connection-device-id': from } = message.systemProperties;
    assert.deepEqual([id, type, subject, from], ['m1', 'application/x', 'comp', one.deviceId]);
  });

  test('device 94: a batch in base64, without a word of it, and as plain text is stored', async ({ service }) => {
    const one = await newDevice(service);
    const batch = [
      { body: Buffer.from('first').toString('base64'), base64Encoded: true, properties: { 'iothub-app-k': 'v' } },
      { body: Buffer.from('second').toString('base64') },
      { body: 'third: plain', base64Encoded: false },
    ];
    const reply = await post(one, JSON.stringify(batch), { headers: { 'Content-Type': batchType } });
    assert.equal(reply.status, 204, reply.text);
    const list = await stored(service, one.deviceId, 3);
    assert.deepEqual(list.map((message) => message.body), ['first', 'second', 'third: plain']);
    assert.deepEqual(list[0].properties, { k: 'v' });
  });

  test('device 94: a module sends for itself', async ({ service }) => {
    const one = await newDevice(service);
    const module = await newModule(service, one);
    const reply = await call(module, 'POST', `${modulePath(one.deviceId, 'm1')}/messages/events?${version}`, { body: 'x' });
    assert.equal(reply.status, 204, reply.text);
    const [message] = await stored(service, one.deviceId, 1);
    assert.equal(message.systemProperties['iothub-connection-module-id'], 'm1');
  });

  test('device 94: what is refused stores nothing: a body that is too large, a bad batch, another device, no token', async ({ service }) => {
    const [one, other] = [await newDevice(service), await newDevice(service)];
    const refused = [
      [413, await post(one, Buffer.alloc(300 << 10))],
      [400, await post(one, '[{"body":"not base64!"}]', { headers: { 'Content-Type': batchType } })],
      [400, await post(one, '{"body":""}', { headers: { 'Content-Type': batchType } })],
      [401, await call(one, 'POST', `${path(other.deviceId)}/messages/events?${version}`, { body: 'x' })],
      [401, await rest({ method: 'POST', path: `${path(one.deviceId)}/messages/events?${version}`, body: 'x' })],
      [400, await call(one, 'POST', `${path(one.deviceId)}/messages/events`, { body: 'x' })],
    ];
    for (const [status, reply] of refused) assert.equal(reply.status, status, reply.text);
    for (const { deviceId } of [one, other]) assert.equal((await stored(service, deviceId, 0)).length, 0);
  });

  test('device 95: GET devicebound gives 200 with a quoted ETag, then 204; deviceBound is accepted too', async ({ service }) => {
    const one = await newDevice(service);
    await send(service, one.deviceId, 'hello', { messageId: 'm1', ack: 'full', properties: [{ name: 'k', value: 'v' }] });
    await send(service, one.deviceId, 'second');
    const first = await receive(one);
    lockOf(first);
    assert.equal(first.text, 'hello');
    const { 'iothub-messageid': id, 'iothub-ack': ack, 'iothub-app-k': property, 'iothub-deliverycount': deliveries, 'iothub-sequencenumber': sequence, 'iothub-to': to } = first.headers;
    assert.deepEqual([id, ack, property, deliveries, to], ['m1', 'full', 'v', '0', `/devices/${one.deviceId}/messages/deviceBound`]);
    assert.match(sequence, /^\d+$/);
    const second = await receive(one, 'deviceBound');
    assert.equal(second.text, 'second');
    const none = await receive(one);
    assert.equal(none.status, 204);
    assert.equal(none.text, '');
  });

  test('device 95: the names of headers are written as IoT Hub writes them, a property as it was sent', async ({ service }) => {
    const one = await newDevice(service);
    await send(service, one.deviceId, 'hello', { messageId: 'm1', correlationId: 'c1', contentType: 'text/x', contentEncoding: 'utf-8', properties: [{ name: 'MyProp', value: 'v' }] });
    const { rawHeaders } = await receive(one);
    const names = rawHeaders.filter((_, i) => i % 2 === 0);
    for (const name of ['ETag', 'iothub-messageid', 'iothub-correlationid', 'iothub-app-MyProp', 'iothub-ack', 'iothub-deliverycount', 'Content-Type', 'ContentType', 'ContentEncoding']) {
      assert.ok(names.includes(name), `no ${name} among ${names.join(', ')}`);
    }
  });

  test('device 96: DELETE completes, DELETE with reject dead-letters, POST abandon redelivers, each with 204', async ({ service }) => {
    const one = await newDevice(service);
    await send(service, one.deviceId, 'a', { messageId: 'a', ack: 'full' });
    let lock = lockOf(await receive(one));
    assert.equal((await settle(one, 'POST', `${lock}/abandon?${version}`)).status, 204);
    const again = await receive(one);
    assert.equal(again.text, 'a');
    assert.equal(again.headers['iothub-deliverycount'], '1');
    lock = lockOf(again);
    assert.equal((await settle(one, 'DELETE', `${lock}?${version}`)).status, 204);
    assert.equal((await receive(one)).status, 204);
    await send(service, one.deviceId, 'b', { messageId: 'b', ack: 'negative' });
    lock = lockOf(await receive(one));
    assert.equal((await settle(one, 'DELETE', `${lock}?${version}&reject`)).status, 204);
    assert.equal(await waiting(service, one.deviceId), 0);
    const seen = new Map();
    await eventually('feedback of both', async () => {
      const batch = await service.get('/messages/serviceBound/feedback');
      if (batch.status === 200) {
        for (const record of batch.json) if (record.deviceId === one.deviceId) seen.set(record.originalMessageId, record.statusCode);
        await service.delete(`/messages/serviceBound/feedback/${batch.headers.etag.replaceAll('"', '')}`);
      }
      return seen.size === 2;
    }, 20_000);
    assert.deepEqual([seen.get('a'), seen.get('b')], ['Success', 'Rejected']);
  });

  test('device 97: an unknown lock token, and one that was used, get 412', async ({ service }) => {
    const one = await newDevice(service);
    await send(service, one.deviceId, 'x');
    const lock = lockOf(await receive(one));
    assert.equal((await settle(one, 'DELETE', `${lock}?${version}`)).status, 204);
    for (const [method, tail] of [['DELETE', `${lock}?${version}`], ['DELETE', `nothing?${version}`], ['DELETE', `nothing?${version}&reject`], ['POST', `nothing/abandon?${version}`]]) {
      const reply = await settle(one, method, tail);
      assert.equal(reply.status, 412, `${method} ${tail}: ${reply.text}`);
      assert.match(reply.json.Message, /^ErrorCode:/);
    }
  });

  test('device 98: If-Match is accepted with and without quotes', async ({ service }) => {
    const one = await newDevice(service);
    for (const quote of ['"', '']) {
      await send(service, one.deviceId, 'x');
      const lock = lockOf(await receive(one));
      const reply = await settle(one, 'DELETE', `${lock}?${version}`, { 'If-Match': `${quote}${lock}${quote}` });
      assert.equal(reply.status, 204, reply.text);
    }
    assert.equal(await waiting(service, one.deviceId), 0);
  });

  test('device 100: doubled and trailing slashes never produce a redirect', async ({ service }) => {
    const one = await newDevice(service);
    const module = await newModule(service, one);
    const sent = [
      await call(one, 'POST', `//devices/${one.deviceId}//messages/events/?${version}`, { body: 'x' }),
      await call(one, 'POST', `/devices/${one.deviceId}/messages//events?${version}`, { body: 'x' }),
      await call(module, 'POST', `/devices/${one.deviceId}/modules/m1//messages/events?${version}`, { body: 'x' }),
    ];
    for (const reply of sent) assert.equal(reply.status, 204, reply.text);
    assert.equal((await call(one, 'GET', `/devices/${one.deviceId}//messages/devicebound/?${version}`)).status, 204);
  });

  test('device 101: every error body carries Message that starts with ErrorCode:', async ({ service }) => {
    const one = await newDevice(service);
    const events = `${path(one.deviceId)}/messages/events`;
    const refused = [
      [401, await rest({ method: 'POST', path: `${events}?${version}`, body: 'x' })],
      [400, await call(one, 'POST', events, { body: 'x' })],
      [405, await call(one, 'PUT', `${events}?${version}`, { body: 'x' })],
      [412, await settle(one, 'DELETE', `nothing?${version}`)],
      [413, await post(one, Buffer.alloc(300 << 10))],
    ];
    for (const [status, reply] of refused) {
      assert.equal(reply.status, status, reply.text);
      assert.match(reply.headers['content-type'], /application\/json/);
      assert.match(reply.json.Message, /^ErrorCode:\w+;./);
      assert.ok(reply.json.ExceptionMessage.startsWith('Tracking ID:'));
    }
    assert.equal(refused[2][1].headers.allow, 'POST');
  });

  test('device 94, 95, 96: azure-iot-device-http sends, receives, completes, abandons and rejects', async ({ service, defer }) => {
    const one = await newDevice(service);
    const client = device.Client.fromConnectionString(one.connectionString, Http);
    client.setRetryPolicy(new common.NoRetry());
    await client.open();
    defer(() => client.close());
    const message = new common.Message('{"t":1}');
    Object.assign(message, { messageId: 'm1', correlationId: 'c1', contentType: 'application/json', contentEncoding: 'utf-8' });
    message.properties.add('alert', 'yes');
    await client.sendEvent(message);
    const batch = ['a', 'b', 'c'].map((text) => new common.Message(text));
    batch[1].properties.add('n', '2');
    await client.sendEventBatch(batch);
    const list = await stored(service, one.deviceId, 4);
    assert.deepEqual(list[0].body, { t: 1 });
    assert.deepEqual(list[0].properties, { alert: 'yes' });
    const { 'message-id': id, 'correlation-id': correlation, 'content-type': type, 'content-encoding': encoding } = list[0].systemProperties;
    assert.deepEqual([id, correlation, type, encoding], ['m1', 'c1', 'application/json', 'utf-8']);
    assert.deepEqual(list.slice(1).map((item) => item.body), ['a', 'b', 'c']);
    assert.deepEqual(list[2].properties, { n: '2' });

    const received = [];
    client.on('message', (one) => received.push(one));
    for (const [text, how] of [['take', 'complete'], ['refuse', 'reject'], ['later', 'abandon']]) {
      await send(service, one.deviceId, text, { messageId: text, properties: [{ name: 'k', value: 'v' }] });
      const got = await eventually(`message ${text}`, () => received.find((one) => one.messageId === text), 15_000);
      assert.equal(got.getData().toString(), text);
      assert.equal(got.properties.getValue('k') ?? got.properties.getValue('iothub-app-k'), 'v');
      received.splice(received.indexOf(got), 1);
      await client[how](got);
    }
    const again = await eventually('the abandoned message', () => received.find((one) => one.messageId === 'later'), 15_000);
    await client.complete(again);
    await eventually('empty queue', async () => (await waiting(service, one.deviceId)) === 0);
  });

  test('device 97, 101: azure-iot-device-http names the errors', async ({ service, defer }) => {
    const one = await newDevice(service);
    const stranger = device.Client.fromConnectionString(one.connectionString.replace(/SharedAccessKey=.*/, `SharedAccessKey=${Buffer.alloc(32).toString('base64')}`), Http);
    stranger.setRetryPolicy(new common.NoRetry());
    defer(() => stranger.close());
    await assert.rejects(within(patience, 'refusal', stranger.sendEvent(new common.Message('x'))), { name: 'UnauthorizedError' });
    const client = device.Client.fromConnectionString(one.connectionString, Http);
    client.setRetryPolicy(new common.NoRetry());
    defer(() => client.close());
    await assert.rejects(client.sendEvent(new common.Message(Buffer.alloc(300 << 10))), (error) => error.name === 'MessageTooLargeError' || /413/.test(String(error)));
    await assert.rejects(client.complete({ lockToken: 'nothing' }));
  });
});
