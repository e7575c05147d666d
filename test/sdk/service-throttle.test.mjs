// Service checklist: throttling, item 19, and the throttled part of device 24.
// It has a hub of its own: throttled callers would spoil other tests.
import { suite } from './lib/suite.mjs';
import { assert, assertError, newDevice, path, registry } from './lib/fixture.mjs';

suite('service: throttling', {}, ({ test }) => {
  test('service 19: a throttled request gets 429 with ThrottlingException or ThrottlingBacklogTimeout', async ({ service, hub }) => {
    const one = await newDevice(service);
    let throttled;
    for (let round = 0; round < 200 && !throttled; round++) {
      const replies = await Promise.all(Array.from({ length: 50 }, () => service.get(path(one.deviceId))));
      for (const reply of replies) assert.ok([200, 429].includes(reply.status), reply.text);
      throttled = replies.find((reply) => reply.status === 429);
    }
    assert.ok(throttled, '10,000 registry reads were not throttled under --limits azure');
    assert.ok(['ThrottlingException', 'ThrottlingBacklogTimeout'].includes(throttled.headers['iothub-errorcode']), throttled.text);
    assertError(throttled, 429, throttled.headers['iothub-errorcode']);
    const errors = await Promise.all(Array.from({ length: 200 }, () => registry(hub).get(one.deviceId).then(() => null, (error) => error)));
    const named = errors.find((error) => error);
    assert.equal(named?.name, 'ThrottlingError', String(named));
  });
});
