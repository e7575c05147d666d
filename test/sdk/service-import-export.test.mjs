// Service checklist: import and export jobs, items 99 to 101, by azure-iothub's
// Registry and @azure/storage-blob, against containers of the hub.
import { AnonymousCredential, ContainerClient, newPipeline } from '@azure/storage-blob';
import { suite } from './lib/suite.mjs';
import { assert, assertError, eventually, modulePath, newDevice, newKey, newModule, path, registry, twinPath, uniqueId } from './lib/fixture.mjs';

const version = 'api-version=2021-04-12';
const promised = (call) => new Promise((resolve, reject) => call((error, result) => (error ? reject(error) : resolve(result))));

// newContainer makes a container and opens it with Azure's client.
async function newContainer(service) {
  const made = await service.post('/api/v1/containers', {});
  assert.equal(made.status, 201, made.text);
  const access = await service.post(`/api/v1/containers/${made.json.name}/access`, { expiresIn: '1h' });
  assert.equal(access.status, 200, access.text);
  const client = new ContainerClient(access.json.uri, newPipeline(new AnonymousCredential(), { retryOptions: { maxTries: 1 } }));
  return { name: made.json.name, uri: access.json.uri, client };
}

const put = (container, name, text) => container.client.getBlockBlobClient(name).upload(text, Buffer.byteLength(text));
const get = async (container, name) => (await container.client.getBlobClient(name).downloadToBuffer()).toString('utf8');
const lines = (text) => text.split('\n').filter((line) => line.startsWith('{')).map((line) => JSON.parse(line));

const over = (job) => ['completed', 'failed', 'cancelled'].includes(job.status);
const ended = (client, id) => eventually(`the end of job ${id}`, async () => {
  const job = await promised((done) => client.getJob(id, done));
  return over(job) && job;
}, 30_000);

// free waits until no job is under way: the hub runs one at a time here.
const free = (client) => eventually('no job under way', async () => (await promised((done) => client.listJobs(done))).every(over), 30_000);

suite('service: import and export', {}, ({ test }) => {
  test('service 99: an export writes devices.txt with modules on lines of their own; excludeKeys nulls keys', async ({ service, hub }) => {
    const one = await newDevice(service);
    await newModule(service, one, 'm1');
    await service.patch(twinPath(one.deviceId), { tags: { site: 'lyon' }, properties: { desired: { a: { b: 1 } } } });
    const client = registry(hub);
    await free(client);
    const box = await newContainer(service);
    for (const excludeKeys of [false, true]) {
      const created = await promised((done) => client.exportDevicesToBlob(box.uri, excludeKeys, done));
      assert.equal(created.type, 'export');
      assert.match(created.status, /^(enqueued|running)$/);
      const job = await ended(client, created.jobId);
      assert.equal(job.status, 'completed', JSON.stringify(job));
      assert.equal(job.progress, 100);
      assert.equal(job.failureReason, null);
      assert.equal(job.excludeKeysInExport, excludeKeys);
      assert.equal(job.outputBlobContainerUri, '', 'an address holds a token');
      const all = lines(await get(box, 'devices.txt')).filter((line) => line.id === one.deviceId);
      assert.deepEqual(all.map((line) => line.moduleId), [undefined, 'm1']);
      const [device] = all;
      assert.equal(device.status, 'enabled');
      assert.ok(device.eTag && device.twinETag);
      assert.deepEqual(device.tags, { site: 'lyon' });
      assert.deepEqual(device.properties.desired.a, { b: 1 });
      assert.ok(device.properties.desired.$metadata.a.b.$lastUpdated);
      assert.equal(typeof device.properties.reported.$version, 'number');
      const key = excludeKeys ? null : one.primaryKey ?? device.authentication.symmetricKey.primaryKey;
      for (const line of all) {
        assert.equal(line.authentication.type, 'sas');
        assert.equal(line.authentication.symmetricKey.primaryKey === null, excludeKeys);
        assert.equal(line.authentication.symmetricKey.secondaryKey === null, excludeKeys);
      }
      assert.equal(device.authentication.symmetricKey.primaryKey, key);
    }
    const names = [];
    for await (const blob of box.client.listBlobsFlat()) names.push(blob.name);
    assert.deepEqual(names, ['devices.txt']);
  });

  test('service 99: what one export holds an import makes again, with its keys, twin and stamps', async ({ service, hub }) => {
    const one = await newDevice(service);
    await service.patch(twinPath(one.deviceId), { tags: { site: 'lyon' }, properties: { desired: { fw: '2.0' } } });
    await newModule(service, one, 'm1');
    const before = [(await service.get(path(one.deviceId))).json, (await service.get(twinPath(one.deviceId))).json];
    const client = registry(hub);
    await free(client);
    const box = await newContainer(service);
    await ended(client, (await promised((done) => client.exportDevicesToBlob(box.uri, false, done))).jobId);
    await service.delete(path(one.deviceId), { ifMatch: '*' });
    const job = await ended(client, (await promised((done) => client.importDevicesFromBlob(box.uri, box.uri, done))).jobId);
    assert.equal(job.status, 'completed', JSON.stringify(job));
    assert.equal(await get(box, 'importErrors.log'), '');
    const after = [(await service.get(path(one.deviceId))).json, (await service.get(twinPath(one.deviceId))).json];
    assert.deepEqual(after[0].authentication, before[0].authentication);
    assert.notEqual(after[0].generationId, before[0].generationId);
    assert.deepEqual(after[1].tags, before[1].tags);
    assert.deepEqual(after[1].properties.desired, before[1].properties.desired, 'with $metadata and $version');
    assert.equal((await service.get(modulePath(one.deviceId, 'm1'))).status, 200);
  });

  test('service 100: an import with bad lines ends completed, failureReason null, and importErrors.log has a JSON line each', async ({ service, hub }) => {
    const client = registry(hub);
    await free(client);
    const box = await newContainer(service);
    const there = await newDevice(service);
    const [good, spelt, missing] = [uniqueId('good'), uniqueId('spelt'), uniqueId('missing')];
    await put(box, 'devices.txt', [
      JSON.stringify({ id: good, status: 'enabled', importMode: 'CREATE', authentication: { type: 'sas', symmetricKey: { primaryKey: newKey(), secondaryKey: newKey() } } }),
      JSON.stringify({ id: there.deviceId, status: 'enabled', importMode: 'create' }),
      JSON.stringify({ id: spelt, status: 'enabled', authentication: { type: 'SELF_SIGNED' } }),
      JSON.stringify({ id: missing, status: 'enabled', importMode: 'updateTwin', tags: { a: 1 } }),
      JSON.stringify({ id: uniqueId('nostatus') }),
      '{"id":"cut',
    ].join('\n'));
    const job = await ended(client, (await promised((done) => client.importDevicesFromBlob(box.uri, box.uri, done))).jobId);
    assert.equal(job.status, 'completed', JSON.stringify(job));
    assert.equal(job.failureReason, null);
    const errors = lines(await get(box, 'importErrors.log'));
    assert.deepEqual(errors.map((line) => [line.deviceId, line.errorCode]), [
      [there.deviceId, 409001], [spelt, 400012], [missing, 404001], [errors[3].deviceId, 400005], [undefined, 400012],
    ]);
    for (const line of errors) assert.equal(typeof line.errorStatus, 'string');
    assert.match(errors[1].errorStatus, /^Invalid device format in line: /);
    assert.equal((await service.get(path(good))).status, 200);
    assert.equal((await service.get(path(spelt))).status, 404);
  });

  test('service 100: a file of many blocks is put by uploadStream and read in parts', async ({ service, hub }) => {
    const client = registry(hub);
    await free(client);
    const box = await newContainer(service);
    const prefix = uniqueId('many');
    const text = Array.from({ length: 3000 }, (_, i) => JSON.stringify({ id: `${prefix}-${i}`, status: 'enabled', tags: { n: i, text: 'x'.repeat(300) } })).join('\n');
    await box.client.getBlockBlobClient('many.txt').uploadData(Buffer.from(text), { blockSize: 256 * 1024, maxSingleShotSize: 256 * 1024, concurrency: 4 });
    assert.equal(await get(box, 'many.txt'), text);
    const part = await box.client.getBlobClient('many.txt').download(10, 20);
    assert.equal(part.contentLength, 20);
    const created = await service.post(`/jobs/create?${version}`, { type: 'import', inputBlobContainerUri: box.uri, inputBlobName: 'many.txt', outputBlobContainerUri: box.uri });
    assert.equal(created.status, 200, created.text);
    const job = await ended(client, created.json.jobId);
    assert.equal(job.status, 'completed', JSON.stringify(job));
    assert.equal(await get(box, 'importErrors.log'), '');
    assert.deepEqual((await service.get(twinPath(`${prefix}-2999`))).json.tags.n, 2999);
    await box.client.deleteBlob('many.txt');
    assert.equal(await box.client.getBlobClient('many.txt').exists(), false);
    assert.equal(await box.client.exists(), true);
  });

  test('service 101: a second job is refused with JobQuotaExceeded; unknown ids get JobNotFound; DELETE takes If-Match', async ({ service, hub }) => {
    const client = registry(hub);
    await free(client);
    const box = await newContainer(service);
    const prefix = uniqueId('long');
    await put(box, 'devices.txt', Array.from({ length: 60_000 }, (_, i) => `{"id":"${prefix}-${i}","status":"enabled","importMode":"updateTwin"}`).join('\n'));
    const first = await promised((done) => client.importDevicesFromBlob(box.uri, box.uri, done));
    await assert.rejects(promised((done) => client.exportDevicesToBlob(box.uri, false, done)), (error) => {
      assert.match(error.responseBody ?? error.message, /JobQuotaExceeded/);
      return true;
    });
    const cancelled = await service.delete(`/jobs/${first.jobId}?${version}`, { ifMatch: `"${first.jobId}"` });
    assert.equal(cancelled.status, 204, cancelled.text);
    assert.equal((await ended(client, first.jobId)).status, 'cancelled');
    assert.equal((await service.delete(`/jobs/${first.jobId}?${version}`, { ifMatch: `"${first.jobId}"` })).status, 204, 'once more');
    const nobody = uniqueId('job');
    assertError(await service.get(`/jobs/${nobody}?${version}`), 404, 'JobNotFound');
    assertError(await service.delete(`/jobs/${nobody}?${version}`), 404, 'JobNotFound');
    await assert.rejects(promised((done) => client.getJob(nobody, done)));
    const jobs = await promised((done) => client.listJobs(done));
    assert.ok(jobs.some((job) => job.jobId === first.jobId));
  });

  test('service 101: a container of somebody else, or one that can not be used, is refused at once', async ({ service, hub }) => {
    const client = registry(hub);
    await free(client);
    const box = await newContainer(service);
    for (const uri of ['https://account.blob.core.windows.net/box?sv=2019&sr=c&sig=x', box.uri.replace(box.name, 'other'), box.uri.replace(/sig=[^&]*/, 'sig=AAAA'), 'no address']) {
      const reply = await service.post(`/jobs/create?${version}`, { type: 'import', inputBlobContainerUri: uri, outputBlobContainerUri: uri });
      assertError(reply, 400, 'BlobContainerValidationError');
    }
    const missing = await service.post(`/jobs/create?${version}`, { type: 'import', inputBlobContainerUri: box.uri, outputBlobContainerUri: box.uri });
    assertError(missing, 400, 'BlobContainerValidationError');
  });
});
