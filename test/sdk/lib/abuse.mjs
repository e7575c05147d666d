// What the suites of misbehaving clients share: an innocent bystander who must
// notice nothing, and bare sockets.
import net from 'node:net';
import tls from 'node:tls';
import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { address, host, mqttsPort } from './hub.mjs';
import { rest } from './rest.mjs';
import { assert, newDevice, sleep, twinPath, uniqueId, within } from './fixture.mjs';

export const events = (id) => `devices/${id}/messages/events/`;
export const median = (values) => [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)];
export const percentile = (values, p) => [...values].sort((a, b) => a - b)[Math.min(values.length - 1, Math.floor(values.length * p))];

// raw opens TLS and sends bytes; `closed` resolves with the time of the close.
export async function raw(bytes, port = mqttsPort) {
  const socket = tls.connect({ host: address, port, servername: host });
  const received = [];
  socket.on('data', (data) => received.push(data));
  socket.on('error', () => {});
  const closed = new Promise((gone) => socket.once('close', () => gone(performance.now()))); // also after an error
  await once(socket, 'secureConnect');
  if (bytes) socket.write(bytes);
  return { socket, closed, received };
}

// lonely opens plain TCP and never speaks TLS, unless it is given bytes.
export function lonely(port, localAddress) {
  return new Promise((resolve, reject) => {
    const socket = net.connect({ host: address, port, localAddress });
    const closed = new Promise((gone) => socket.once('close', () => gone(performance.now())));
    socket.once('connect', () => resolve({ socket, closed }));
    socket.on('error', (error) => reject(error));
    socket.resume();
  });
}

export function memory(hub) {
  const status = readFileSync(`/proc/${hub.process.pid}/status`, 'utf8');
  return Number(/VmRSS:\s+(\d+) kB/.exec(status)[1]) / 1024;
}

// metric reads one figure of the hub.
export const metric = async (name) => Number(new RegExp(`^${name} (.+)$`, 'm').exec((await rest({ path: '/metrics' })).text)[1]);

// abusing gives abuse(title, body), which declares a test that must not disturb
// the bystander, and last(), which declares the one that says goodbye to it.
export function abusing(test) {
  let bystander; // the child process, with `device`: who it is

  // calm starts the bystander once, and checks it after each abuse: still on
  // its first connection, none of its requests refused, its answers quick.
  async function calm(service, t, what) {
    if (!bystander) {
      const one = await newDevice(service, { id: uniqueId('bystander') });
      bystander = fork(fileURLToPath(new URL('bystander.mjs', import.meta.url)), [JSON.stringify({ deviceId: one.deviceId, identity: one.identity, primaryKey: one.primaryKey })]);
      bystander.device = one;
      await within(10_000, 'the bystander is connected', once(bystander, 'message'));
      bystander.unref();
      bystander.channel.unref();
    }
    return async () => {
      await sleep(500);
      const told = once(bystander, 'message');
      bystander.channel.ref();
      bystander.send('tell');
      const [{ samples, failed, ended }] = await within(10_000, 'the bystander answers', told);
      bystander.channel.unref();
      assert.equal(failed, null);
      assert.equal(ended, false, 'the bystander lost its connection');
      assert.ok(samples.length > 0, 'the bystander did nothing');
      t.diagnostic(`bystander during ${what}: ${samples.length} rounds of durable report + telemetry, median ${median(samples).toFixed(1)} ms, p99 ${percentile(samples, 0.99).toFixed(1)} ms`);
      assert.ok(median(samples) < 100, `median ${median(samples)} ms`);
      assert.ok(percentile(samples, 0.99) < 1500, `p99 ${percentile(samples, 0.99)} ms`);
      const called = await service.post(`${twinPath(bystander.device.deviceId)}/methods`, { methodName: 'echo', payload: what, responseTimeoutInSeconds: 5 });
      assert.deepEqual(called.json, { status: 200, payload: what }, called.text);
    };
  }

  const abuse = (title, body, options) => test(`abuse: ${title}`, async (on) => {
    const check = await calm(on.service, on.t, title);
    await body(on);
    await check();
  }, options);

  const last = () => test('abuse: the bystander was never disturbed in the whole run', async ({ t, service }) => {
    await (await calm(service, t, 'the end'))();
    bystander.disconnect();
    await once(bystander, 'exit');
  });

  return { abuse, last };
}
