// Device checklist: cloud-to-device messages, items 60 to 68, and what items
// 36, 39 and 44 say about them.
import { once } from 'node:events';
import { suite } from './lib/suite.mjs';
import { Wire } from './lib/wire.mjs';
import { assert, eventually, newDevice, openClient, path, patience, transports, within } from './lib/fixture.mjs';

const filter = (id) => ({ topic: `devices/${id}/messages/devicebound/#`, qos: 1 });
const queue = (id) => `/api/v1${path(id)}/messages/devicebound`;
const send = async (service, id, body, more = {}) => {
  const reply = await service.post(queue(id), { body: Buffer.from(body).toString('base64'), ...more });
  assert.equal(reply.status, 200, reply.text);
  return reply.json;
};
const waiting = async (service, id) => (await service.get(queue(id))).json.items.length;
const puback = (wire, message) => wire.send({ cmd: 'puback', messageId: message.messageId });
const bound = (wire, one) => wire.publishOn(`devices/${one.deviceId}/messages/devicebound/`);

// feedbackOf receives and completes batches until one has the message.
async function feedbackOf(service, messageId) {
  return eventually(`feedback of ${messageId}`, async () => {
    const batch = await service.get('/messages/serviceBound/feedback');
    if (batch.status === 204) return undefined;
    assert.equal(batch.status, 200, batch.text);
    const done = await service.delete(`/messages/serviceBound/feedback/${batch.headers.etag.replaceAll('"', '')}`);
    assert.equal(done.status, 204, done.text);
    return batch.json.find((one) => one.originalMessageId === messageId);
  }, 15_000);
}

suite('device: cloud-to-device messages', ({ concurrency: 1 }), ({ test }) => {
  for (const via of ['tls', 'ws']) {
    test(`device 36, 60, 67: messages sent while offline wait, and come in order over ${via} with a new and with a stored subscription`, async ({ service, defer }) => {
      const one = await newDevice(service);
      await send(service, one.deviceId, 'first');
      const idle = await Wire.session(one, { via });
      await idle.ping();
      assert.equal(await waiting(service, one.deviceId), 1);
      await idle.subscribe(filter(one.deviceId));
      const first = await bound(idle, one);
      assert.equal(first.qos, 1);
      assert.equal(first.retain, false);
      assert.equal(first.payload.toString(), 'first');
      puback(idle, first);
      await idle.disconnect();
      for (const text of ['second', 'third']) await send(service, one.deviceId, text);
      const next = await Wire.session(one, { via });
      defer(() => next.cut());
      for (const text of ['second', 'third']) {
        const message = await bound(next, one);
        assert.equal(message.payload.toString(), text);
        assert.equal(message.dup, false);
        puback(next, message);
      }
      await eventually('empty queue', async () => (await waiting(service, one.deviceId)) === 0);
    });
  }

  test('device 39: a clean session gives up what waits', async ({ service, defer }) => {
    const one = await newDevice(service);
    const { messageId } = await send(service, one.deviceId, 'old', { ack: 'negative' });
    const wire = await Wire.session(one, { clean: true });
    defer(() => wire.cut());
    await wire.subscribe(filter(one.deviceId));
    await send(service, one.deviceId, 'new');
    assert.equal((await bound(wire, one)).payload.toString(), 'new');
    assert.equal((await feedbackOf(service, messageId)).statusCode, 'Purged');
  });

  test('device 44: devices/+/messages/devicebound/# delivers only own messages', async ({ service, defer }) => {
    const [one, other] = [await newDevice(service), await newDevice(service)];
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    assert.deepEqual(await wire.subscribe({ topic: 'devices/+/messages/devicebound/#', qos: 1 }), [1]);
    await send(service, other.deviceId, 'not yours');
    await send(service, one.deviceId, 'yours');
    assert.equal((await wire.publishOn('devices/')).payload.toString(), 'yours');
    await wire.ping();
    assert.equal(wire.inbox.filter((packet) => packet.cmd === 'publish').length, 0);
  });

  test('device 61, 68: the topic begins with $.to and holds no bare key, empty value, raw slash, plus or space; $.exp has seven digits', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe(filter(one.deviceId));
    await send(service, one.deviceId, 'x', { messageId: 'abc', contentType: 'application/json', contentEncoding: 'utf-8', ack: 'full', properties: [{ name: 'a b', value: 'c/d+e=f&g' }] });
    const { topic } = await bound(wire, one);
    const start = `devices/${one.deviceId}/messages/devicebound/`;
    assert.ok(topic.startsWith(`${start}%24.to=%2Fdevices%2F`), topic);
    const bag = topic.slice(start.length);
    assert.doesNotMatch(bag, /[/+ ]/);
    const pairs = new Map(bag.split('&').map((pair) => {
      assert.match(pair, /^[^=]+=[^=]+$/);
      return pair.split('=').map(decodeURIComponent);
    }));
    assert.match(pairs.get('$.exp'), /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{7}Z$/);
    assert.deepEqual([...pairs].filter(([name]) => name !== '$.exp'), [
      ['$.to', `/devices/${one.deviceId}/messages/deviceBound`], ['$.mid', 'abc'], ['$.ct', 'application/json'], ['$.ce', 'utf-8'], ['iothub-ack', 'full'], ['a b', 'c/d+e=f&g'],
    ]);
  });

  for (const ack of ['positive', 'full']) {
    test(`device 62: PUBACK removes a message and ack ${ack} yields Success`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const wire = await Wire.session(one);
      defer(() => wire.cut());
      await wire.subscribe(filter(one.deviceId));
      const { messageId } = await send(service, one.deviceId, 'x', { ack });
      puback(wire, await bound(wire, one));
      const record = await feedbackOf(service, messageId);
      assert.equal(record.statusCode, 'Success');
      assert.equal(record.deviceId, one.deviceId);
      assert.equal(await waiting(service, one.deviceId), 0);
    });
  }

  for (const signal of ['', 'SIGKILL']) {
    test(`device 63: after a cut${signal && ` by ${signal}`} before PUBACK the message comes again with DUP`, async ({ service, hub, defer }) => {
      const one = await newDevice(service);
      const wire = await Wire.session(one);
      await wire.subscribe(filter(one.deviceId));
      await send(service, one.deviceId, 'again');
      const first = await bound(wire, one);
      if (signal) await hub.restart(signal);
      await wire.cut();
      const next = await Wire.session(one);
      defer(() => next.cut());
      const second = await bound(next, one);
      assert.equal(second.dup, true);
      assert.equal(second.messageId, first.messageId);
      assert.equal(second.payload.toString(), 'again');
      puback(next, second);
      await eventually('empty queue', async () => (await waiting(service, one.deviceId)) === 0);
    });
  }

  test('device 64: a subscription at QoS 0 delivers at QoS 0 and completes at once', async ({ service, defer }) => {
    const one = await newDevice(service);
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe({ ...filter(one.deviceId), qos: 0 });
    await send(service, one.deviceId, 'x');
    assert.equal((await bound(wire, one)).qos, 0);
    assert.equal(await waiting(service, one.deviceId), 0);
  });

  test('device 65: 50 messages wait, the next is refused, and a purge counts them', async ({ service }) => {
    const one = await newDevice(service);
    for (let n = 0; n < 50; n += 1) await send(service, one.deviceId, `${n}`);
    const refused = await service.post(queue(one.deviceId), { body: '' });
    assert.equal(refused.status, 429, refused.text);
    assert.equal(refused.json.code, 'DeviceMaximumQueueDepthExceeded');
    for (const count of [50, 0]) {
      const purged = await service.delete(`${path(one.deviceId)}/commands`);
      assert.deepEqual(purged.json, { totalMessagesPurged: count, deviceId: one.deviceId, moduleId: null });
    }
  });

  test('device 66: an expired message is not delivered, and ack negative yields Expired', async ({ service, defer }) => {
    const one = await newDevice(service);
    const { messageId } = await send(service, one.deviceId, 'late', { ack: 'negative', timeToLiveSeconds: 1 });
    assert.equal((await feedbackOf(service, messageId)).statusCode, 'Expired');
    const wire = await Wire.session(one);
    defer(() => wire.cut());
    await wire.subscribe(filter(one.deviceId));
    await wire.ping();
    assert.equal(wire.inbox.filter((packet) => packet.cmd === 'publish').length, 0);
  });

  for (const [name, transport] of Object.entries(transports)) {
    test(`device 60: the unmodified SDK over ${name} gets a message with its properties`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const client = await openClient(one, transport);
      defer(() => client.close());
      const came = once(client, 'message');
      await send(service, one.deviceId, 'hello', { messageId: 'm-1', properties: [{ name: 'k', value: 'v w' }] });
      const [message] = await within(patience, 'message', came);
      assert.equal(message.getData().toString(), 'hello');
      assert.equal(message.messageId, 'm-1');
      assert.equal(message.properties.getValue('k'), 'v w');
      await client.complete(message);
      await eventually('empty queue', async () => (await waiting(service, one.deviceId)) === 0);
    });
  }
});
