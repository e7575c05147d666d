// The two programs that the README shows, run as a reader runs them.
import { execFile, spawn } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { suite } from './lib/suite.mjs';
import { assert, eventually, twinPath, uniqueId } from './lib/fixture.mjs';

const run = promisify(execFile);
const sample = (name) => fileURLToPath(new URL(`samples/${name}`, import.meta.url));

suite('samples of the README', {}, ({ test }) => {
  test('service.js registers a device, device.js runs as it, service.js manages it', async ({ service, hub, defer }) => {
    const id = uniqueId('thermostat');
    const env = { ...process.env, HUB: hub.owner };
    const { stdout: connectionString } = await run(process.execPath, [sample('service.js'), 'register', id], { env });
    assert.match(connectionString, new RegExp(`^HostName=[^;:]+;DeviceId=${id};SharedAccessKey=[A-Za-z0-9+/=]+\\n$`));
    assert.equal(connectionString.trim(), await hub.cli('device', 'connection-string', id));

    const device = spawn(process.execPath, [sample('device.js'), connectionString.trim()], { env, stdio: ['ignore', 'pipe', 'pipe'] });
    defer(() => device.kill('SIGKILL'));
    let output = '';
    for (const stream of [device.stdout, device.stderr]) stream.on('data', (data) => { output += data; });
    const prints = (line) => eventually(`device.js prints ${line}; it printed:\n${output}`, () => output.split('\n').includes(line), 8000);
    await prints('connected');
    await prints('reported {"firmware":"1.0.0"}');
    await prints('telemetry accepted');

    const { stdout: managed } = await run(process.execPath, [sample('service.js'), 'manage', id], { env });
    assert.equal(managed, 'firmware is 1.0.0\ninterval asked for\nreboot answered {"status":200,"payload":{"rebootingIn":3}}\n');
    await prints('reboot called with {"delay":3}');
    await prints('interval is to be 5');
    await prints('reported {"interval":5}');
    const { json: twin } = await service.get(twinPath(id));
    assert.equal(twin.tags.site, 'attic');
    assert.equal(twin.properties.reported.interval, 5);
  });
});
