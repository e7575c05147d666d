// An innocent device in a process of its own: it reports and calls itself ten
// times a second, and tells how long each took. The abuse suite starts it
// before it misbehaves. Usage: node bystander.mjs IDENTITY-JSON
import { Wire, deviceToken } from './wire.mjs';

const device = JSON.parse(process.argv[2]);
device.token = () => deviceToken(device.identity, device.primaryKey);

const wire = await Wire.session(device);
await wire.subscribe('$iothub/twin/res/#', '$iothub/methods/POST/#');
let samples = [];
let failed = null;

// echo answers each direct method at once.
(async () => {
  for (;;) {
    const request = await wire.publishOn('$iothub/methods/POST/', 2 ** 30);
    wire.send({ cmd: 'publish', topic: `$iothub/methods/res/200/?$rid=${request.topic.split('?$rid=')[1]}`, payload: request.payload, qos: 0 });
  }
})().catch((error) => { failed ??= error.message; });

(async () => {
  for (let i = 0; ; i++) {
    const started = performance.now();
    const reply = await wire.report({ i }, { rid: `b${i}` });
    if (reply.status !== 204) throw new Error(`report got ${reply.status} ${reply.payload}`);
    await wire.publish(`devices/${device.deviceId}/messages/events/`, 'x');
    samples.push(performance.now() - started);
    await new Promise((resolve) => setTimeout(resolve, Math.max(0, 100 - (performance.now() - started))));
  }
})().catch((error) => { failed ??= error.message; });

process.on('message', () => {
  process.send({ samples, failed, ended: wire.ended });
  samples = [];
});
process.on('disconnect', () => process.exit(0));
process.send('ready');
