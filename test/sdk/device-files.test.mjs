// Device checklist: file upload, item 99, by raw requests, by azure-iot-device
// with both transports, and by the storage client that it brings.
import { createHash, randomBytes } from 'node:crypto';
import { Readable } from 'node:stream';
import device from 'azure-iot-device';
import common from 'azure-iot-common';
import httpTransport from 'azure-iot-device-http';
import { AnonymousCredential, BlockBlobClient, newPipeline } from '@azure/storage-blob';
import { suite } from './lib/suite.mjs';
import { rest } from './lib/rest.mjs';
import { host } from './lib/hub.mjs';
import { assert, eventually, newDevice, newModule, path, transports, within } from './lib/fixture.mjs';

const { Http } = httpTransport;
const version = 'api-version=2021-04-12';
const all = { Http, ...transports };
const MiB = 1 << 20;

const call = (one, method, where, { headers = {}, ...more } = {}) => rest({ method, path: where, headers: { Authorization: one.token(), ...headers }, ...more });
const begin = (one, blobName, tail = '/files') => call(one, 'POST', `${path(one.deviceId)}${tail}?${version}`, { body: { blobName } });
const notify = (one, body, tail = '') => call(one, 'POST', `${path(one.deviceId)}/files/notifications${tail}?${version}`, { body });
const blobUrl = (answer, more = '') => `/${answer.containerName}/${answer.blobName.split('/').map(encodeURIComponent).join('/')}${answer.sasToken}${more}`;
const put = (answer, body, { more = '', headers = { 'x-ms-blob-type': 'BlockBlob' } } = {}) => rest({ method: 'PUT', path: blobUrl(answer, more), body, headers });
const block = (answer, id, body) => put(answer, body, { more: `&comp=block&blockid=${encodeURIComponent(Buffer.from(id).toString('base64'))}`, headers: {} });
const list = (ids) => `<?xml version="1.0" encoding="utf-8"?><BlockList>${ids.map((id) => `<Latest>${Buffer.from(id).toString('base64')}</Latest>`).join('')}</BlockList>`;
const commit = (answer, ids) => put(answer, list(ids), { more: '&comp=blocklist', headers: { 'Content-Type': 'application/xml' } });
const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

const fileUrl = (one, name, tail = '') => `/api/v1${path(one.deviceId)}/files/${encodeURIComponent(name)}${tail}`;
async function kept(service, one, name) {
  const reply = await service.get(fileUrl(one, name));
  assert.equal(reply.status, 200, reply.text);
  return reply.json;
}
const begun = async (one, name) => {
  const reply = await begin(one, name);
  assert.equal(reply.status, 200, reply.text);
  return reply.json;
};

// open is a client of the SDK, which also its transports for messages need.
function open(one, transport, defer) {
  const client = device.Client.fromConnectionString(one.connectionString, transport);
  client.setRetryPolicy(new common.NoRetry());
  defer(() => client.close());
  return client;
}

async function refusedXml(reply, status, code) {
  assert.equal(reply.status, status, reply.text);
  assert.equal(reply.headers['x-ms-error-code'], code, reply.text);
  assert.match(reply.headers['content-type'], /application\/xml/);
  assert.match(reply.text, new RegExp(`<Code>${code}</Code><Message>`));
  assert.match(reply.headers['x-ms-request-id'], /./);
}

suite('device: files', { concurrency: 4, extra: ['--file-notifications'] }, ({ test }) => {
  test('device 99: /files and /files/ answer all five members, and nothing that is no JSON object or no name', async ({ service }) => {
    const one = await newDevice(service);
    for (const tail of ['/files', '/files/', '//files']) {
      const reply = await begin(one, 'logs/today.txt', tail);
      assert.equal(reply.status, 200, reply.text);
      assert.match(reply.headers['content-type'], /application\/json/);
      assert.deepEqual(Object.keys(reply.json), ['correlationId', 'hostName', 'containerName', 'blobName', 'sasToken']);
      const { hostName, blobName, sasToken, correlationId } = reply.json;
      assert.deepEqual([hostName, blobName], [host, `${one.deviceId}/logs/today.txt`]);
      assert.ok(sasToken.startsWith('?'));
      const ended = await notify(one, { isSuccess: false, statusCode: 0, statusDescription: 'given up' }, `/${correlationId}`);
      assert.equal(ended.status, 204, ended.text);
    }
    for (const [status, body] of [[400, {}], [400, { blobName: '' }], [400, '[]'], [400, '{'], [400, { blobName: 5 }], [413, { blobName: 'x'.repeat(9000) }]]) {
      const reply = await call(one, 'POST', `${path(one.deviceId)}/files?${version}`, { body });
      assert.equal(reply.status, status, `${JSON.stringify(body).slice(0, 40)}: ${reply.text}`);
      assert.match(reply.json.Message, /^ErrorCode:\w+;./);
    }
    assert.equal((await call(one, 'GET', `${path(one.deviceId)}/files?${version}`)).headers.allow, 'POST');
  });

  test('device 99: names that try a way out are refused with a reason', async ({ service }) => {
    const one = await newDevice(service);
    for (const name of ['..', '../x', 'a/../../etc/passwd', './a', '/abs', 'a//b', 'a/', 'a\\b', '%2e%2e/x', 'a%2fb', 'a\u0000b', 'a\nb', 'a?b', 'a#b', 'x\u202egpj.exe', 'a\u200bb', ' ', 'n'.repeat(1025), 'a/'.repeat(70) + 'a']) {
      const reply = await begin(one, name);
      assert.equal(reply.status, 400, `${JSON.stringify(name)}: ${reply.text}`);
      assert.match(reply.json.Message, /^ErrorCode:ArgumentInvalid;blobName has/);
    }
    for (const name of ['grüße/日本.txt', 'a b', '...', 'a..b', 'n'.repeat(1024), "it's+100&ok=yes"]) {
      const answer = await begun(one, name);
      const reply = await put(answer, name);
      assert.equal(reply.status, 201, `${name}: ${reply.text}`);
      assert.equal((await notify(one, { correlationId: answer.correlationId, isSuccess: true, statusCode: 201, statusDescription: 'Created' })).status, 204);
      assert.equal((await kept(service, one, name)).name, name);
    }
  });

  test('device 99: PUT of a blob, notified with the id in the body, is the file; the same again is 204, another id is refused', async ({ service }) => {
    const one = await newDevice(service);
    const answer = await begun(one, 'a.txt');
    const body = randomBytes(1000);
    const reply = await put(answer, body, { headers: { 'x-ms-blob-type': 'BlockBlob', 'x-ms-blob-content-type': 'text/x-log', 'Content-MD5': createHash('md5').update(body).digest('base64'), 'x-ms-client-request-id': 'mine' } });
    assert.equal(reply.status, 201, reply.text);
    for (const name of ['etag', 'last-modified', 'x-ms-request-id', 'x-ms-version', 'content-md5', 'date']) assert.ok(reply.headers[name], `no ${name}`);
    assert.equal(reply.headers['x-ms-client-request-id'], 'mine');
    assert.equal((await service.get(fileUrl(one, 'a.txt'))).status, 404);
    const done = { correlationId: answer.correlationId, isSuccess: true, statusCode: 201, statusDescription: '' };
    for (const round of [1, 2]) assert.equal((await notify(one, done)).status, 204, `round ${round}`);
    const file = await kept(service, one, 'a.txt');
    assert.deepEqual([file.size, file.sha256, file.contentType], [1000, sha256(body), 'text/x-log']);
    for (const [id, name] of [['nothing', 'InvalidFileUploadCorrelationId'], [answer.correlationId.slice(1), 'InvalidFileUploadCorrelationId']]) {
      const refused = await notify(one, { ...done, correlationId: id });
      assert.equal(refused.status, 400);
      assert.match(refused.json.Message, new RegExp(`^ErrorCode:${name};`));
    }
    await refusedXml(await put(answer, 'late'), 404, 'BlobNotFound');
  });

  test('device 99: blocks in the order of their list, notified with the id in the path; unknown blocks, bad lists and bad ids are refused', async ({ service }) => {
    const one = await newDevice(service);
    const answer = await begun(one, 'b.bin');
    const parts = { b1: randomBytes(70_000), b2: randomBytes(3), b3: randomBytes(100_000) };
    for (const id of ['b2', 'b3', 'b1']) assert.equal((await block(answer, id, parts[id])).status, 201);
    await refusedXml(await commit(answer, ['b1', 'b4']), 400, 'InvalidBlockList');
    await refusedXml(await put(answer, '<BlockList><Latest>?</Latest></BlockList>', { more: '&comp=blocklist', headers: {} }), 400, 'InvalidBlockId');
    await refusedXml(await put(answer, '<!DOCTYPE a [<!ENTITY b "c">]><BlockList/>', { more: '&comp=blocklist', headers: {} }), 400, 'InvalidXmlDocument');
    await refusedXml(await put(answer, 'x', { more: '&comp=block&blockid=%3F%3F', headers: {} }), 400, 'InvalidQueryParameterValue');
    await refusedXml(await put(answer, 'x', { more: '&comp=metadata' }), 400, 'InvalidQueryParameterValue');
    for (const round of [1, 2]) assert.equal((await commit(answer, ['b1', 'b2', 'b3'])).status, 201, `round ${round}`);
    assert.equal((await notify(one, { isSuccess: true, statusCode: 201, statusDescription: '' }, `/${encodeURIComponent(answer.correlationId)}`)).status, 204);
    const file = await kept(service, one, 'b.bin');
    assert.equal(file.sha256, sha256(Buffer.concat([parts.b1, parts.b2, parts.b3])));
  });

  test('device 99: a token opens its own blob for writing, and nothing else', async ({ service }) => {
    const [one, other] = [await newDevice(service), await newDevice(service)];
    const [mine, second, theirs] = [await begun(one, 'x'), await begun(one, 'y'), await begun(other, 'x')];
    await refusedXml(await put({ ...mine, blobName: theirs.blobName }, 'x'), 403, 'AuthenticationFailed');
    await refusedXml(await put({ ...mine, blobName: second.blobName }, 'x'), 403, 'AuthenticationFailed');
    await refusedXml(await put({ ...mine, blobName: `${one.deviceId}/../${theirs.blobName}` }, 'x'), 403, 'AuthenticationFailed');
    await refusedXml(await put({ ...mine, sasToken: mine.sasToken.replace(/se=[^&]+/, 'se=2099-01-01T00%3A00%3A00Z') }, 'x'), 403, 'AuthenticationFailed');
    await refusedXml(await put({ ...mine, sasToken: '?' }, 'x'), 403, 'AuthenticationFailed');
    await refusedXml(await rest({ method: 'PUT', path: `/${mine.containerName}/${mine.blobName}`, headers: { Authorization: one.token(), 'x-ms-blob-type': 'BlockBlob' }, body: 'x' }), 403, 'AuthenticationFailed');
    for (const method of ['GET', 'DELETE', 'POST']) await refusedXml(await rest({ method, path: blobUrl(mine) }), 403, 'AuthorizationPermissionMismatch');
    await refusedXml(await put(mine, 'x', { headers: {} }), 400, 'MissingRequiredHeader');
    await refusedXml(await put(mine, 'x', { headers: { 'x-ms-blob-type': 'PageBlob' } }), 400, 'InvalidHeaderValue');
    await refusedXml(await put(mine, 'x', { headers: { 'x-ms-blob-type': 'BlockBlob', 'x-ms-copy-source': 'http://127.0.0.1/' } }), 400, 'InvalidHeaderValue');
    await refusedXml(await put(mine, 'x', { headers: { 'x-ms-blob-type': 'BlockBlob', 'Content-MD5': 'A'.repeat(22) + '==' } }), 400, 'Md5Mismatch');
    const empty = await notify(one, { correlationId: mine.correlationId, isSuccess: true, statusCode: 201, statusDescription: '' });
    assert.equal(empty.status, 400);
    assert.match(empty.json.Message, /^ErrorCode:InvalidStorageEndpointOrBlob;/);
    const foreign = await notify(other, { correlationId: mine.correlationId, isSuccess: false, statusCode: 0, statusDescription: '' });
    assert.equal(foreign.status, 400, foreign.text);
    assert.equal((await put(mine, 'x')).status, 201);
    assert.equal((await service.delete(path(one.deviceId), { ifMatch: '*' })).status, 204);
    await eventually('the upload of a deleted device is refused', async () => [403, 404].includes((await put(mine, 'x')).status));
  });

  test('device 99: ten uploads of a device may be under way, the eleventh gets 403 until one has ended; modules have none', async ({ service }) => {
    const one = await newDevice(service);
    const answers = [];
    for (let i = 0; i < 10; i++) answers.push(await begun(one, `f${i}`));
    const refused = await begin(one, 'f10');
    assert.equal(refused.status, 403, refused.text);
    assert.match(refused.json.Message, /^ErrorCode:DeviceMaximumActiveFileUploadLimitExceeded;/);
    assert.equal((await notify(one, { correlationId: answers[3].correlationId, isSuccess: false, statusCode: 500, statusDescription: 'x' })).status, 204);
    assert.equal((await begin(one, 'f10')).status, 200);
    const module = await newModule(service, one);
    const reply = await call(module, 'POST', `/devices/${one.deviceId}/modules/m1//files?${version}`, { body: { blobName: 'x' } });
    assert.equal(reply.status, 400);
    assert.match(reply.json.Message, /modules/);
  });

  for (const [name, transport] of Object.entries(all)) {
    test(`device 99: azure-iot-device over ${name}: uploadToBlob with a small stream and with one of several blocks`, async ({ service, defer }) => {
      const one = await newDevice(service);
      const client = open(one, transport, defer);
      await client.open();
      for (const size of [5, 4 * MiB, 9 * MiB + 7]) {
        const bytes = randomBytes(size);
        await within(60_000, `upload of ${size} bytes`, client.uploadToBlob(`dump/${size}.bin`, Readable.from(bytes.length > 100 ? [bytes.subarray(0, 100), bytes.subarray(100)] : [bytes]), size));
        const file = await kept(service, one, `dump/${size}.bin`);
        assert.deepEqual([file.size, file.sha256], [size, sha256(bytes)]);
      }
      const part = await service.get(fileUrl(one, 'dump/5.bin', '/content'), { headers: { Range: 'bytes=1-3' } });
      assert.equal(part.status, 206);
      assert.equal(part.headers['content-range'], 'bytes 1-3/5');
    });
  }

  test('device 99: azure-iot-device: getBlobSharedAccessSignature, the storage client, notifyBlobUploadStatus', async ({ service, defer }) => {
    const one = await newDevice(service, { id: `odd#?%41-${process.pid}` });
    const client = open(one, transports.Mqtt, defer);
    const info = await client.getBlobSharedAccessSignature('by hand.txt');
    const blob = new BlockBlobClient(`https://${info.hostName}/${info.containerName}/${info.blobName}${info.sasToken}`, newPipeline(new AnonymousCredential(), { retryOptions: { maxTries: 1 } }));
    const uploaded = await blob.upload('hello', 5, { blobHTTPHeaders: { blobContentType: 'text/plain' } });
    assert.equal(uploaded._response.status, 201);
    assert.ok(uploaded.etag && uploaded.lastModified instanceof Date && uploaded.requestId && uploaded.version);
    await client.notifyBlobUploadStatus(info.correlationId, true, 201, 'Created');
    assert.deepEqual([(await kept(service, one, 'by hand.txt')).contentType, (await service.get(fileUrl(one, 'by hand.txt', '/content'))).text], ['text/plain', 'hello']);
    const failed = await client.getBlobSharedAccessSignature('never.txt');
    await client.notifyBlobUploadStatus(failed.correlationId, false, 500, 'it did not work');
    assert.equal((await service.get(fileUrl(one, 'never.txt'))).status, 404);
    await assert.rejects(client.getBlobSharedAccessSignature('../x'));
    const denied = new BlockBlobClient(`https://${info.hostName}/${info.containerName}/${info.blobName}x${info.sasToken}`, newPipeline(new AnonymousCredential(), { retryOptions: { maxTries: 1 } }));
    await assert.rejects(denied.upload('x', 1), { statusCode: 403, code: 'AuthenticationFailed' });
    await assert.rejects(blob.download(), { statusCode: 404 });
  });

  test('device 99: an application is told of a file: receive, abandon, complete, each with the members of IoT Hub', async ({ service, context }) => {
    const one = await newDevice(service);
    const where = '/messages/serviceBound/filenotifications';
    const answer = await begun(one, 'told/it.bin');
    assert.equal((await put(answer, 'told')).status, 201);
    assert.equal((await notify(one, { correlationId: answer.correlationId, isSuccess: true, statusCode: 201, statusDescription: '' })).status, 204);
    let lock;
    const mine = await eventually('the notification', async () => {
      const reply = await service.get(where);
      if (reply.status !== 200) return false;
      lock = reply.headers.etag.slice(1, -1);
      if (reply.json.deviceId === one.deviceId) return reply.json;
      await service.delete(`${where}/${lock}`);
      return false;
    }, 30_000, 5);
    assert.deepEqual([mine.blobName, mine.blobSizeInBytes], [`${one.deviceId}/told/it.bin`, 4]);
    for (const name of ['blobUri', 'lastUpdatedTime', 'enqueuedTimeUtc']) assert.ok(mine[name], `no ${name}`);
    const download = await service.get(new URL(mine.blobUri).pathname);
    assert.equal(download.text, 'told');
    assert.equal((await service.post(`${where}/${lock}/abandon`)).status, 204);
    await eventually('the notification again', async () => {
      const reply = await service.get(where);
      if (reply.status !== 200) return false;
      lock = reply.headers.etag.slice(1, -1);
      assert.equal((await service.delete(`${where}/${lock}`)).status, 204);
      return reply.json.deviceId === one.deviceId;
    }, 30_000, 5);
    assert.equal((await service.delete(`${where}/${lock}`)).status, 412);
  });

  test('device 99: events, deletion by an operator, and no file of a device that is made again', async ({ service }) => {
    const one = await newDevice(service);
    for (const name of ['a', 'b']) {
      const answer = await begun(one, name);
      assert.equal((await put(answer, name)).status, 201);
      assert.equal((await notify(one, { correlationId: answer.correlationId, isSuccess: true, statusCode: 201, statusDescription: '' })).status, 204);
    }
    assert.equal((await service.delete(fileUrl(one, 'a'))).status, 204);
    assert.equal((await service.delete(fileUrl(one, 'a'))).status, 404);
    const events = await service.get(`/api/v1/events?cursor=start&kind=file.*&limit=1000&device=${one.deviceId}`);
    assert.deepEqual(events.json.events.map((event) => [event.kind, event.data.name]), [['file.uploaded', 'a'], ['file.uploaded', 'b'], ['file.deleted', 'a']]);
    assert.equal((await service.delete(path(one.deviceId), { ifMatch: '*' })).status, 204);
    await newDevice(service, { id: one.deviceId });
    const list = await service.get(`/api/v1${path(one.deviceId)}/files`);
    assert.deepEqual([list.status, list.json.items], [200, []]);
  });
});

suite('device: files and a killed hub', {}, ({ test }) => {
  test('device 99: after kill -9 the blocks and files that were acknowledged are there', async ({ service, hub }) => {
    const one = await newDevice(service);
    const [whole, parts] = [await begun(one, 'whole'), await begun(one, 'parts')];
    const bytes = randomBytes(2 * MiB);
    assert.equal((await put(whole, bytes)).status, 201);
    assert.equal((await notify(one, { correlationId: whole.correlationId, isSuccess: true, statusCode: 201, statusDescription: '' })).status, 204);
    assert.equal((await block(parts, 'p1', bytes)).status, 201);
    const cut = block(parts, 'p2', randomBytes(8 * MiB)).catch(() => ({ status: 0 }));
    await hub.restart('SIGKILL');
    await cut;
    assert.equal((await kept(service, one, 'whole')).sha256, sha256(bytes));
    assert.equal((await block(parts, 'p2', 'end')).status, 201);
    assert.equal((await commit(parts, ['p1', 'p2'])).status, 201);
    assert.equal((await notify(one, { correlationId: parts.correlationId, isSuccess: true, statusCode: 201, statusDescription: '' })).status, 204);
    assert.equal((await kept(service, one, 'parts')).sha256, sha256(Buffer.concat([bytes, Buffer.from('end')])));
  });
});
