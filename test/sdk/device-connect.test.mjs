// Device checklist: CONNECT and authentication, items 12 to 23, 25, 28 and 29.
import mqtt from 'mqtt';
import { once } from 'node:events';
import { suite } from './lib/suite.mjs';
import { alias, host } from './lib/hub.mjs';
import { inSeconds, lowerEscapes, signature, slashesKept, token } from './lib/sas.mjs';
import { Wire, resource, userName } from './lib/wire.mjs';
import { assert, eventually, modulePath, newDevice, newKey, newModule, openClient, patience, transports, twinPath, uniqueId, within } from './lib/fixture.mjs';
import { selfSigned } from './lib/certificates.mjs';

// answer is what a CONNECT gets: the CONNACK code, or 'closed'. After a refusal
// the hub must close the socket; this waits for that.
async function answer(device, options = {}) {
  const { wire, connack } = await Wire.connect(device, options);
  if (connack?.returnCode === 0) {
    await wire.ping();
    await wire.cut();
    return 0;
  }
  await wire.closes();
  return connack?.returnCode ?? 'closed';
}

suite('device: CONNECT and authentication', { concurrency: 6 }, ({ test }) => {
  for (const version of ['2021-04-12', '2020-09-30', '2019-10-01', '2018-06-30', '2016-11-14', '2031-12-31']) {
    test(`device 12: a user name with api-version ${version} is accepted`, async ({ service }) => {
      const one = await newDevice(service);
      assert.equal(await answer(one, { username: userName(one.identity, `api-version=${version}&DeviceClientType=x`) }), 0);
    });
  }

  test('device 12: legacy user names, another case of the host and any order of parameters are accepted', async ({ service }) => {
    const one = await newDevice(service);
    for (const username of [
      `${host}/${one.identity}/api-version=2016-11-14`,
      `${host}/${one.identity}/`,
      `${host}/${one.identity}`,
      `${host.toUpperCase()}/${one.identity}/?api-version=2021-04-12`,
      `${host}/${one.identity}/?DeviceClientType=iothubclient%2f1.15.0%20(native%3b%20Linux)&unknown=1&api-version=2020-09-30`,
      `${host}/${one.identity}/?api-version=2020-09-30&DeviceClientType=bad%zzescape`,
    ]) assert.equal(await answer(one, { username }), 0, username);
  });

  test('device 12: clients of the plain mqtt package connect', async ({ service, defer }) => {
    const one = await newDevice(service);
    for (const url of [`mqtts://${host}:8883`, `wss://${host}/$iothub/websocket`]) {
      const client = mqtt.connect(url, { clientId: one.deviceId, username: userName(one.identity), password: one.token(), protocolVersion: 4, clean: true, reconnectPeriod: 0 });
      defer(() => client.endAsync(true));
      await within(patience, `mqtt package over ${url}`, Promise.race([once(client, 'connect'), once(client, 'error').then(([error]) => { throw error; })]));
      await client.publishAsync(`devices/${one.deviceId}/messages/events/`, 'hello', { qos: 1 });
      await client.endAsync();
    }
  });

  const model = 'dtmi:com:example:Thermostat;1';
  const spellings = [model, model.replaceAll(':', '%3A').replace(';', '%3B'), model.replaceAll(':', '%3a').replace(';', '%3b')];
  for (const [i, spelling] of spellings.entries()) {
    for (const first of [true, false]) {
      test(`device 13: model-id ${['raw', 'with %3A', 'with %3a'][i]} ${first ? 'before' : 'after'} DeviceClientType is the twin's modelId`, async ({ service }) => {
        const one = await newDevice(service);
        const before = await service.get(twinPath(one.deviceId));
        assert.equal(before.json.modelId, '');
        const query = first ? `api-version=2021-04-12&model-id=${spelling}&DeviceClientType=x%2F1` : `api-version=2020-09-30&DeviceClientType=x%2F1&model-id=${spelling}`;
        assert.equal(await answer(one, { username: userName(one.identity, query) }), 0);
        const twin = await eventually('modelId on the twin', async () => {
          const reply = await service.get(twinPath(one.deviceId));
          return reply.json.modelId !== '' && reply;
        });
        assert.equal(twin.json.modelId, model);
      });
    }
  }

  test('device 13: the unmodified SDK\'s modelId option is the twin\'s modelId', async ({ service, defer }) => {
    const one = await newDevice(service);
    const client = await openClient(one, transports.MqttWs, (c) => c.setOptions({ modelId: model }));
    defer(() => client.close());
    const reply = await eventually('modelId on the twin', async () => {
      const r = await service.get(twinPath(one.deviceId));
      return r.json.modelId !== '' && r;
    });
    assert.equal(reply.json.modelId, model);
  });

  // The reference's vectors: fixed key and expiry (2030-01-01), so every byte
  // of the token is known. Two more are for DPS: see EXCEPTIONS.md.
  const vectorKey = 'AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=';
  const vectors = [
    ['hub.example.com%2Fdevices%2Fdev1', 'reBgGA/wBHljQTSQU9PDpSCkDsY+iV4gIYSXx5Q9KEk='],
    ['hub.example.com%2fdevices%2fdev1', 'ukfI89fEH047b9qjjSC5G0MlPKmFhPPu8esGoxPGAkY='],
    ['hub.example.com/devices/dev1', '8CU+CNWlCzulTx+0iwlwKe0YaZuQ3U1lBbxztK78CqE='],
    ['hub.example.com%2Fdevices%2Fdev1%2Fmodules%2Fm1', 'SYarbdwclJayywUahiRxneGmrITcKLKG1gcWGIJDyEk='],
  ];
  test('device 14: the four hub signature vectors open a connection, and one changed letter does not', async ({ service }) => {
    const authentication = { type: 'sas', symmetricKey: { primaryKey: vectorKey, secondaryKey: newKey() } };
    const dev1 = await newDevice(service, { id: 'dev1', authentication });
    assert.equal((await service.put(modulePath('dev1', 'm1'), { deviceId: 'dev1', moduleId: 'm1', authentication })).status, 200);
    for (const [sr, sig] of vectors) {
      assert.equal(signature(sr, 1893456000, vectorKey), sig);
      const identity = sr.endsWith('m1') ? 'dev1/m1' : 'dev1';
      const connect = { clientId: identity, username: `${alias}/${identity}/?api-version=2021-04-12` };
      assert.equal(await answer(dev1, { ...connect, password: `SharedAccessSignature sr=${sr}&sig=${encodeURIComponent(sig)}&se=1893456000` }), 0, sr);
      const wrong = (sig[0] === 'A' ? 'B' : 'A') + sig.slice(1);
      assert.equal(await answer(dev1, { ...connect, password: `SharedAccessSignature sr=${sr}&sig=${encodeURIComponent(wrong)}&se=1893456000` }), 5, sr);
    }
  });

  test('device 15: sr with raw slashes, %2F and %2f connect when signed over that spelling', async ({ service }) => {
    const one = await newDevice(service);
    const raw = `${host}/devices/${one.deviceId}`;
    for (const sr of [raw, raw.replaceAll('/', '%2F'), raw.replaceAll('/', '%2f'), raw.toUpperCase().replace(/\/DEVICES\/.*/, `/devices/${one.deviceId}`)]) {
      assert.equal(await answer(one, { password: token(sr, one.primaryKey) }), 0, sr);
    }
  });

  test('device 16: a token signed over a different spelling than transmitted is refused', async ({ service }) => {
    const one = await newDevice(service);
    const raw = `${host}/devices/${one.deviceId}`;
    const spelled = [raw, raw.replaceAll('/', '%2F'), raw.replaceAll('/', '%2f')];
    for (const sr of spelled) {
      for (const signOver of spelled.filter((other) => other !== sr)) {
        assert.equal(await answer(one, { password: token(sr, one.primaryKey, { signOver }) }), 5, `${sr} signed over ${signOver}`);
      }
    }
  });

  test('device 17: field order sig,se,sr and an empty skn= are accepted', async ({ service }) => {
    const one = await newDevice(service);
    const sr = resource(one.identity);
    assert.equal(await answer(one, { password: token(sr, one.primaryKey, { order: 'sig,se,sr' }) }), 0);
    assert.equal(await answer(one, { password: token(sr, one.primaryKey, { skn: '' }) }), 0);
    assert.equal(await answer(one, { password: token(sr, one.primaryKey, { skn: '', order: 'sr,sig,se,skn' }) }), 0);
    assert.equal(await answer(one, { password: token(sr, one.primaryKey, { skn: '', order: 'sig,se,skn,sr' }) }), 0);
  });

  test('device 18: lower-case escapes inside sig are accepted, and + stands for itself', async ({ service }) => {
    const one = await newDevice(service);
    const sr = resource(one.identity);
    // Search an expiry whose signature has each of + / = in it.
    let se = inSeconds(3600);
    while (!/(?=.*\+)(?=.*\/).*=$/.test(signature(sr, se, one.primaryKey))) se++;
    assert.equal(await answer(one, { password: token(sr, one.primaryKey, { se, escape: lowerEscapes }) }), 0);
    assert.equal(await answer(one, { password: token(sr, one.primaryKey, { se, escape: slashesKept }) }), 0);
    assert.equal(await answer(one, { password: token(sr, one.primaryKey, { se, escape: (text) => text }) }), 0);
    const spaced = await answer(one, { password: token(sr, one.primaryKey, { se, escape: (text) => encodeURIComponent(text).replaceAll('%2B', '%20') }) });
    assert.ok([4, 5].includes(spaced), `a space for a plus got ${spaced}`);
  });

  test('device 19: the secondary key connects', async ({ service }) => {
    const one = await newDevice(service);
    assert.notEqual(one.primaryKey, one.secondaryKey);
    assert.equal(await answer(one, { password: token(resource(one.identity), one.secondaryKey) }), 0);
  });

  test('device 20: a token opens exactly its device or module', async ({ service }) => {
    const id = uniqueId('abc');
    const keys = { type: 'sas', symmetricKey: { primaryKey: newKey(), secondaryKey: newKey() } };
    // All share one key, so that the resource alone can tell them apart.
    const abc = await newDevice(service, { id, authentication: keys });
    const abcd = await newDevice(service, { id: `${id}d`, authentication: keys });
    const m1 = await service.put(modulePath(id, 'm1'), { deviceId: id, moduleId: 'm1', authentication: keys });
    assert.equal(m1.status, 200);
    const module = { identity: `${id}/m1`, token: () => token(resource(`${id}/m1`), keys.symmetricKey.primaryKey) };
    assert.equal(await answer(abc), 0);
    assert.equal(await answer(module), 0);
    assert.equal(await answer(abcd, { password: abc.token() }), 5, 'token of abc opened abcd');
    assert.equal(await answer(abc, { password: abcd.token() }), 5, 'token of abcd opened abc');
    assert.equal(await answer(abc, { password: module.token() }), 5, 'token of the module opened its device');
    assert.equal(await answer(module, { password: abc.token() }), 5, 'token of the device opened its module');
    // A resource that names no device is for policies alone.
    for (const sr of [host, `${host}%2Fdevices`, `${host}%2Fdevices%2F`]) {
      assert.equal(await answer(abc, { password: token(sr, abc.primaryKey) }), 5, sr);
    }
  });

  test('device 21: an expired token gets CONNACK 5', async ({ service }) => {
    const one = await newDevice(service);
    // Beyond any clock drift that a hub may allow.
    assert.equal(await answer(one, { password: one.token({ se: inSeconds(-3600) }) }), 5);
    assert.equal(await answer(one, { password: one.token({ se: 1 }) }), 5);
  });

  test('device 22: a policy token with DeviceConnect opens any device and module; without it gets 5', async ({ service, hub }) => {
    const one = await newDevice(service);
    const module = await newModule(service, one);
    const whole = (policy, sr = host) => token(sr, hub.keys[policy], { skn: policy });
    for (const policy of ['device', 'iothubowner']) {
      assert.equal(await answer(one, { password: whole(policy) }), 0, policy);
      assert.equal(await answer(module, { password: whole(policy) }), 0, policy);
      assert.equal(await answer(one, { password: whole(policy, encodeURIComponent(`${host}/devices/${one.deviceId}`)) }), 0, policy);
      assert.equal(await answer(one, { password: whole(policy, encodeURIComponent(`${host}/devices/other`)) }), 5, `${policy} for another device`);
    }
    for (const policy of ['service', 'registryRead', 'registryReadWrite']) {
      assert.equal(await answer(one, { password: whole(policy) }), 5, policy);
    }
    assert.equal(await answer(one, { password: token(host, hub.keys.device, { skn: 'nosuchpolicy' }) }), 5);
    assert.equal(await answer(one, { password: token(host, hub.keys.service, { skn: 'device' }) }), 5);
  });

  test('device 23: unknown device, disabled device and wrong key get 5, then the socket is closed', async ({ service }) => {
    const one = await newDevice(service);
    const off = await newDevice(service, { status: 'disabled', statusReason: 'test' });
    const unknown = { identity: uniqueId('unknown'), token() { return token(resource(this.identity), one.primaryKey); } };
    for (const via of ['tls', 'ws']) {
      assert.equal(await answer(unknown, { via }), 5, `unknown over ${via}`);
      assert.equal(await answer(off, { via }), 5, `disabled over ${via}`);
      assert.equal(await answer(one, { via, password: token(resource(one.identity), newKey()) }), 5, `wrong key over ${via}`);
    }
    for (const password of ['', 'x', 'SharedAccessSignature', 'SharedAccessSignature sr=a&sig=b&se=c', `${one.token()}&sr=other`]) {
      const code = await answer(one, { password });
      assert.ok([4, 5].includes(code), `password ${JSON.stringify(password)} got ${code}`);
    }
    assert.equal(await answer(one), 0);
  });

  for (const name of ['Mqtt', 'MqttWs']) {
    test(`device 23: the unmodified SDK over ${name} reports a wrong key as unauthorized`, async ({ service }) => {
      const one = await newDevice(service);
      one.primaryKey = newKey();
      const error = await within(patience, 'open with a wrong key', openClient(one, transports[name]).then(() => null, (e) => e));
      assert.equal(error?.name, 'UnauthorizedError', String(error));
    });
  }

  test('device 25: a ClientId that differs from the user name\'s identity is refused', async ({ service }) => {
    const one = await newDevice(service);
    const other = await newDevice(service);
    const module = await newModule(service, one);
    for (const clientId of [other.deviceId, module.identity, one.deviceId.toUpperCase(), `${one.deviceId}x`]) {
      const code = await answer(one, { clientId });
      assert.ok(code === 2 || code === 5, `ClientId ${clientId} got ${code}`);
    }
  });

  test('device 28: a SAS device that presents only a certificate, and an X.509 device that presents only SAS, are refused', async ({ service }) => {
    const own = selfSigned(uniqueId('x509'));
    const sas = await newDevice(service);
    assert.equal(await answer(sas, { password: null, tls: { key: own.key, cert: own.cert } }), 5);
    assert.equal(await answer(sas, { password: '', tls: { key: own.key, cert: own.cert } }), 5);
    assert.equal(await answer(sas, { password: null }), 5);
    const thumbprint = await newDevice(service, { authentication: { type: 'selfSigned', x509Thumbprint: { primaryThumbprint: own.sha256, secondaryThumbprint: own.sha1 } } });
    const authority = await newDevice(service, { authentication: { type: 'certificateAuthority' } });
    for (const device of [thumbprint, authority]) {
      assert.equal(await answer(device, { password: token(resource(device.identity), newKey()) }), 5);
      assert.equal(await answer(device, { password: token(resource(device.identity), newKey()), tls: { key: own.key, cert: own.cert } }), 5);
      assert.equal(await answer(device, { password: token(resource(device.identity), '') }), 5, 'a token signed with an empty key opened an X.509 device');
    }
  });

  test('device 29: protocol level 5 gets an MQTT 3.1.1 CONNACK with code 1, and the socket is closed', async ({ service }) => {
    const one = await newDevice(service);
    for (const via of ['tls', 'ws']) {
      const wire = await Wire.dial({ via });
      // Level 5 has a properties length (0) before the payload.
      const text = (s) => Buffer.concat([Buffer.from([s.length >> 8, s.length & 255]), Buffer.from(s)]);
      const body = Buffer.concat([text('MQTT'), Buffer.from([5, 0xc2, 0, 60, 0]), text(one.deviceId), text(userName(one.identity)), text(one.token())]);
      wire.write(Buffer.concat([Buffer.from([0x10, (body.length & 127) | 128, body.length >> 7]), body]));
      await wire.closes();
      assert.deepEqual([...wire.received], [0x20, 2, 0, 1], via);
    }
  });

  test('device 29: the mqtt package with protocolVersion 5 is told so', async ({ service, defer }) => {
    const one = await newDevice(service);
    const client = mqtt.connect(`mqtts://${host}:8883`, { clientId: one.deviceId, username: userName(one.identity), password: one.token(), protocolVersion: 5, reconnectPeriod: 0 });
    defer(() => client.endAsync(true));
    const connected = await within(patience, 'an answer to protocol level 5', Promise.race([
      once(client, 'connect').then(() => true),
      new Promise((resolve) => { client.on('error', () => resolve(false)); client.on('close', () => resolve(false)); }),
    ]));
    assert.equal(connected, false);
  });
});
