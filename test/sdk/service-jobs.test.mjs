// Service checklist: jobs, items 86 to 98, with Microsoft's unmodified JobClient
// and devices that connect by azure-iot-device-mqtt.
import iothub from 'azure-iothub';
import { suite } from './lib/suite.mjs';
import { assert, assertError, eventually, newDevice, openClient, patience, sleep, timestamp, twinPath, uniqueId, within } from './lib/fixture.mjs';

const jobPath = (id) => `/jobs/v2/${encodeURIComponent(id)}`;
const jobClient = (hub, policy = 'iothubowner') => iothub.JobClient.fromConnectionString(hub.connectionStrings[policy]);
const final = ['completed', 'failed', 'cancelled'];

// ended waits for a job's end with Microsoft's client.
const ended = (jobs, id) => eventually(`${id} ends`, async () => {
  const { jobStatus } = await jobs.getJob(id);
  return final.includes(jobStatus.status) && jobStatus;
}, 20_000, 50);

// fleet makes so many devices with a tag of their own.
async function fleet(service, count) {
  const tag = uniqueId('fleet');
  const devices = [];
  for (let i = 0; i < count; i++) {
    const device = await newDevice(service);
    const reply = await service.patch(twinPath(device.deviceId), { tags: { fleet: tag, n: i, remove: { me: true, stay: 1 } } });
    assert.equal(reply.status, 200, reply.text);
    devices.push(device);
  }
  return { tag, devices, where: `tags.fleet = '${tag}'` };
}

const rowsOf = async (service, id) => {
  const reply = await service.post('/devices/query', { query: `SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '${id}'` });
  assert.equal(reply.status, 200, reply.text);
  return reply;
};

const twinOf = async (service, device) => (await service.get(twinPath(device.deviceId))).json;

// noNulls finds members that are null, at any depth.
function nulls(value, at = '$') {
  if (value === null) return [at];
  if (typeof value !== 'object') return [];
  return Object.entries(value).flatMap(([key, member]) => nulls(member, `${at}.${key}`));
}

suite('service: jobs', {}, ({ test }) => {
  test('service 86: a job is queued with its id, and the same id again gets 409 JobAlreadyExists', async ({ service, hub }) => {
    const { where } = await fleet(service, 1);
    const jobs = jobClient(hub);
    const id = uniqueId('job');
    const { jobStatus } = await jobs.scheduleTwinUpdate(id, where, { etag: '*', tags: { a: 1 } }, new Date(), 60);
    assert.equal(jobStatus.jobId, id);
    assert.equal(jobStatus.status, 'queued');
    assert.equal(jobStatus.type, 'scheduleUpdateTwin');
    await assert.rejects(jobs.scheduleTwinUpdate(id, where, { etag: '*', tags: { a: 2 } }), (error) => error.response.statusCode === 409);
    assertError(await service.put(jobPath(id), { jobId: id, type: 'scheduleUpdateTwin', queryCondition: '*', updateTwin: { etag: '*', tags: { a: 1 } } }), 409, 'JobAlreadyExists');
    await ended(jobs, id);
    const upper = `JOBSAMPLE${uniqueId('X')}`; // as C#'s tests name theirs
    const named = await service.put(jobPath(upper), { jobId: upper, type: 'ScheduleUpdateTwin', queryCondition: where, updateTwin: { etag: '*', tags: { a: 1 } } });
    assert.equal(named.status, 200, named.text);
    await ended(jobs, upper);
    assertError(await service.put(jobPath(uniqueId('job')), { jobId: 'other', type: 'scheduleUpdateTwin', queryCondition: '*', updateTwin: { etag: '*', tags: {} } }), 400, 'ArgumentInvalid');
  });

  test('service 87: an unknown job is of type and status unknown; to cancel it gets 404 JobNotFound', async ({ service, hub }) => {
    const id = uniqueId('nothing');
    const reply = await service.get(jobPath(id));
    assert.equal(reply.status, 200, reply.text);
    assert.deepEqual(reply.json, { type: 'unknown', status: 'unknown' });
    assert.equal((await jobClient(hub).getJob(id)).jobStatus.status, 'unknown');
    assertError(await service.post(`${jobPath(id)}/cancel`), 404, 'JobNotFound');
    await assert.rejects(jobClient(hub).cancelJob(id), (error) => error.response.statusCode === 404);
  });

  test('service 88: * is every device, a condition those that match it when the job runs', async ({ service, hub }) => {
    const jobs = jobClient(hub);
    const { devices, where, tag } = await fleet(service, 3);
    const late = await newDevice(service);
    const id = uniqueId('job');
    await jobs.scheduleTwinUpdate(id, where, { etag: '*', properties: { desired: { mark: id } } }, new Date(Date.now() + 3000), 60);
    assert.equal((await service.patch(twinPath(late.deviceId), { tags: { fleet: tag } })).status, 200);
    assert.equal((await service.patch(twinPath(devices[0].deviceId), { tags: { fleet: null } })).status, 200);
    const job = await ended(jobs, id);
    assert.equal(job.status, 'completed', JSON.stringify(job));
    assert.equal(job.deviceJobStatistics.deviceCount, 3);
    assert.equal((await twinOf(service, late)).properties.desired.mark, id);
    assert.equal((await twinOf(service, devices[0])).properties.desired.mark, undefined);
    const all = uniqueId('job');
    await jobs.scheduleTwinUpdate(all, '*', { etag: '*', tags: { seen: all } });
    const whole = await ended(jobs, all);
    const { json: count } = await service.get('/statistics/devices');
    assert.equal(whole.deviceJobStatistics.succeededCount, count.totalDeviceCount);
    assert.equal((await twinOf(service, devices[0])).tags.seen, all);
  });

  test('service 89: an etag other than * gets 400; nulls remove keys at any depth', async ({ service, hub }) => {
    const { devices, where } = await fleet(service, 2);
    for (const updateTwin of [{ tags: { a: 1 } }, { etag: 'AAAA', tags: { a: 1 } }, { etag: '', tags: { a: 1 } }, { etag: null, tags: { a: 1 } }, null]) {
      const reply = await service.put(jobPath(uniqueId('job')), { type: 'scheduleUpdateTwin', queryCondition: where, updateTwin });
      assert.equal(reply.status, 400, reply.text);
    }
    const id = uniqueId('job');
    // As C# sends it: what is not set is null.
    const reply = await service.put(jobPath(id), {
      jobId: id, type: 'scheduleUpdateTwin', cloudToDeviceMethod: null, queryCondition: where, startTime: new Date().toISOString(), maxExecutionTimeInSeconds: 60,
      updateTwin: { deviceId: null, moduleId: null, etag: '*', version: null, status: null, tags: { remove: { me: null }, added: [1] }, properties: { desired: { fan: { speed: 3 } }, reported: null } },
    });
    assert.equal(reply.status, 200, reply.text);
    assert.equal((await ended(jobClient(hub), id)).deviceJobStatistics.succeededCount, 2);
    for (const device of devices) {
      const twin = await twinOf(service, device);
      assert.deepEqual(twin.tags.remove, { stay: 1 });
      assert.deepEqual(twin.tags.added, [1]);
      assert.equal(twin.properties.desired.fan.speed, 3);
    }
  });

  test('service 89: a device that is connected hears of its new desired properties', async ({ service, hub, defer }) => {
    const { devices: [one], where } = await fleet(service, 1);
    const client = await openClient(one);
    defer(() => client.close());
    const twin = await new Promise((resolve, reject) => { client.getTwin((error, result) => (error ? reject(error) : resolve(result))); });
    const told = new Promise((resolve) => { twin.on('properties.desired', (delta) => { if (delta.interval === 7) resolve(delta); }); });
    const id = uniqueId('job');
    await jobClient(hub).scheduleTwinUpdate(id, where, { etag: '*', properties: { desired: { interval: 7 } } });
    await within(patience, 'desired properties', told);
    assert.equal((await ended(jobClient(hub), id)).status, 'completed');
  });

  test('service 90: of two devices one is offline: the job completes, failedCount is 1, its row has an error code', async ({ service, hub, defer }) => {
    const { devices: [there, away, refuses], where } = await fleet(service, 3);
    const seen = [];
    for (const [device, status] of [[there, 200], [refuses, 503]]) {
      const client = await openClient(device);
      defer(() => client.close());
      client.onDeviceMethod('reboot', (request, response) => { seen.push(request.payload); response.send(status, { by: device.deviceId }, () => {}); });
    }
    await sleep(500);
    const jobs = jobClient(hub);
    const id = uniqueId('job');
    await jobs.scheduleDeviceMethod(id, where, { methodName: 'reboot', payload: { delay: 5 }, responseTimeoutInSeconds: 10 }, new Date(), 60);
    const job = await ended(jobs, id);
    assert.equal(job.status, 'completed', JSON.stringify(job));
    assert.deepEqual(job.deviceJobStatistics, { deviceCount: 3, failedCount: 1, succeededCount: 2, runningCount: 0, pendingCount: 0 });
    assert.deepEqual(seen, [{ delay: 5 }, { delay: 5 }]);
    const { json: rows } = await rowsOf(service, id);
    const row = (device) => rows.find((one) => one.deviceId === device.deviceId);
    assert.equal(row(there).status, 'completed');
    assert.deepEqual(row(there).outcome.deviceMethodResponse, { status: 200, payload: { by: there.deviceId } });
    assert.deepEqual(row(refuses).outcome.deviceMethodResponse, { status: 503, payload: { by: refuses.deviceId } });
    assert.equal(row(away).status, 'failed');
    assert.ok(row(away).error.code, JSON.stringify(row(away)));
    assert.ok(row(away).error.description, JSON.stringify(row(away)));
  });

  test('service 91: a condition that can\'t be read is accepted, and the job fails with a reason', async ({ hub }) => {
    const jobs = jobClient(hub);
    const id = uniqueId('job');
    const { jobStatus } = await jobs.scheduleTwinUpdate(id, 'this is no condition', { etag: '*', tags: { a: 1 } });
    assert.equal(jobStatus.status, 'queued');
    const job = await ended(jobs, id);
    assert.equal(job.status, 'failed');
    assert.ok(job.failureReason, JSON.stringify(job));
    assert.ok(job.endTime);
  });

  test('service 92: startTime null runs now, 169 h ahead gets 400, a future job is scheduled and can be canceled, a completed one not', async ({ service, hub }) => {
    const jobs = jobClient(hub);
    const { devices: [one], where } = await fleet(service, 1);
    const patch = { etag: '*', tags: { a: 1 } };
    const now = uniqueId('job');
    await jobs.scheduleTwinUpdate(now, where, patch, null); // Node sends null
    assert.equal((await ended(jobs, now)).status, 'completed');
    assert.equal((await twinOf(service, one)).tags.a, 1);
    const far = new Date(Date.now() + 169 * 3600_000);
    await assert.rejects(jobs.scheduleTwinUpdate(uniqueId('job'), where, patch, far), (error) => error.response.statusCode === 400);
    const later = uniqueId('job');
    await jobs.scheduleTwinUpdate(later, where, { etag: '*', tags: { a: 2 } }, new Date(Date.now() + 3600_000));
    await eventually('it is scheduled', async () => (await jobs.getJob(later)).jobStatus.status === 'scheduled');
    const { jobStatus: canceled } = await jobs.cancelJob(later);
    assert.equal(canceled.jobId, later);
    assert.equal(canceled.status, 'cancelled');
    assert.equal((await ended(jobs, later)).status, 'cancelled');
    assert.equal((await twinOf(service, one)).tags.a, 1);
    assertError(await service.post(`${jobPath(now)}/cancel`), 405, 'OperationNotAllowedInCurrentState');
    assertError(await service.post(`${jobPath(later)}/cancel`, {}), 405, 'OperationNotAllowedInCurrentState');
    for (const startTime of ['tomorrow', 5, {}]) {
      assert.equal((await service.put(jobPath(uniqueId('job')), { type: 'scheduleUpdateTwin', queryCondition: where, updateTwin: patch, startTime })).status, 400);
    }
  });

  test('service 93: one more job than there are slots gets 429 ThrottlingMaxActiveJobCountExceeded', async ({ service, hub }) => {
    const jobs = jobClient(hub);
    const held = [];
    let refused;
    for (let i = 0; i < 12 && refused === undefined; i++) {
      const id = uniqueId('slot');
      const reply = await service.put(jobPath(id), { type: 'scheduleUpdateTwin', queryCondition: '*', updateTwin: { etag: '*', tags: { a: 1 } }, startTime: new Date(Date.now() + 3600_000).toISOString() });
      if (reply.status === 200) held.push(id);
      else refused = reply;
    }
    assert.equal(held.length, 10);
    assertError(refused, 429, 'ThrottlingMaxActiveJobCountExceeded');
    for (const id of held) assert.equal((await jobs.cancelJob(id)).jobStatus.status, 'cancelled');
    for (const id of held) await ended(jobs, id);
    const id = uniqueId('slot');
    await jobs.scheduleTwinUpdate(id, 'tags.none = 1', { etag: '*', tags: { a: 1 } });
    await ended(jobs, id);
  });

  test('service 94: deviceJobStatistics sum up to deviceCount at the end', async ({ service, hub }) => {
    const jobs = jobClient(hub);
    const { where } = await fleet(service, 7);
    const id = uniqueId('job');
    await jobs.scheduleTwinUpdate(id, where, { etag: '*', properties: { desired: { x: 'y' } } });
    const { deviceJobStatistics: n } = await ended(jobs, id);
    assert.deepEqual(n, { deviceCount: 7, failedCount: 0, succeededCount: 7, runningCount: 0, pendingCount: 0 });
    const none = uniqueId('job');
    await jobs.scheduleTwinUpdate(none, "tags.fleet = 'nobody'", { etag: '*', tags: { a: 1 } });
    const empty = await ended(jobs, none);
    assert.equal(empty.status, 'completed');
    assert.equal(empty.deviceJobStatistics.deviceCount, 0);
  });

  test('service 95: jobs are listed by type and status in either case, as an array of JobResponse, page by page', async ({ service, hub }) => {
    const jobs = jobClient(hub);
    const { where } = await fleet(service, 1);
    const made = [];
    for (let i = 0; i < 3; i++) {
      made.push(uniqueId('list'));
      await jobs.scheduleTwinUpdate(made[i], where, { etag: '*', tags: { i } });
      await ended(jobs, made[i]);
    }
    const camel = await service.get('/jobs/v2/query?jobType=scheduleUpdateTwin&jobStatus=completed');
    const pascal = await service.get('/jobs/v2/query?jobType=ScheduleUpdateTwin&jobStatus=Completed');
    assert.equal(camel.status, 200, camel.text);
    assert.ok(Array.isArray(camel.json));
    assert.deepEqual(camel.json, pascal.json);
    assert.ok(camel.rawHeaders.includes('x-ms-item-type'));
    assert.equal(camel.headers['x-ms-item-type'], 'JobResponse');
    const query = jobs.createQuery('scheduleUpdateTwin', 'completed', 2);
    const seen = [];
    while (query.hasMoreResults) {
      const { result } = await query.next(query.continuationToken);
      assert.ok(result.length <= 2);
      seen.push(...result.map((job) => job.jobId));
    }
    assert.deepEqual(seen.slice(0, 3), made.toReversed());
    assert.equal(new Set(seen).size, seen.length);
    assert.deepEqual(seen.toSorted(), camel.json.map((job) => job.jobId).toSorted());
    const other = await jobs.createQuery('scheduleDeviceMethod', 'failed').next();
    assert.ok(other.result.every((job) => job.type === 'scheduleDeviceMethod' && job.status === 'failed'));
    assertError(await service.get('/jobs/v2/query?jobType=nonsense'), 400, 'ArgumentInvalid');
    assertError(await service.get('/jobs/v2/query?jobStatus=nonsense'), 400, 'ArgumentInvalid');
    assertError(await service.get('/jobs/v2/query', { headers: { 'x-ms-continuation': 'garbage' } }), 400, 'ArgumentInvalid');
    assertError(await service.get('/jobs/v2/query', { headers: { 'x-ms-max-item-count': '0' } }), 400, 'ArgumentInvalid');
  });

  test('service 96, 97: no member is null, a date has one spelling, and what was asked for is echoed', async ({ service, hub }) => {
    const jobs = jobClient(hub);
    const { where } = await fleet(service, 1);
    const twin = uniqueId('job');
    const updateTwin = { etag: '*', tags: { a: { b: 1 } }, properties: { desired: { c: 1.5 } } };
    await jobs.scheduleTwinUpdate(twin, where, updateTwin, new Date(), 120);
    const method = uniqueId('job');
    await jobs.scheduleDeviceMethod(method, where, { methodName: 'm', payload: { p: [1] }, responseTimeoutInSeconds: 15 }, new Date(), 90);
    for (const [id, echoed] of [[twin, { type: 'scheduleUpdateTwin', updateTwin, maxExecutionTimeInSeconds: 120 }], [method, { type: 'scheduleDeviceMethod', maxExecutionTimeInSeconds: 90 }]]) {
      for (const moment of ['at once', 'at the end']) {
        if (moment === 'at the end') await ended(jobs, id);
        const { json: job, text } = await service.get(jobPath(id));
        assert.deepEqual(nulls(job), [], text);
        assert.equal(job.createdDateTimeUtc, undefined);
        assert.equal(job.startTimeUtc, undefined);
        assert.match(job.createdTime, timestamp);
        assert.match(job.startTime, timestamp);
        assert.equal(job.queryCondition, where);
        for (const [name, value] of Object.entries(echoed)) assert.deepEqual(job[name], value, text);
      }
    }
    const { json: called } = await service.get(jobPath(method));
    assert.deepEqual(called.cloudToDeviceMethod, { methodName: 'm', payload: { p: [1] }, responseTimeoutInSeconds: 15, connectTimeoutInSeconds: 0 });
    assert.equal(called.updateTwin, undefined);
    assert.match(called.endTime, timestamp);
  });

  test('service 98: FROM devices.jobs has a row for each device, with all its dates', async ({ service, hub }) => {
    const jobs = jobClient(hub);
    const { devices, where } = await fleet(service, 4);
    const id = uniqueId('job');
    await jobs.scheduleTwinUpdate(id, where, { etag: '*', tags: { a: 1 } });
    await ended(jobs, id);
    const reply = await rowsOf(service, id);
    assert.equal(reply.headers['x-ms-item-type'], 'DeviceJob');
    assert.deepEqual(reply.json.map((row) => row.deviceId).toSorted(), devices.map((one) => one.deviceId).toSorted());
    for (const row of reply.json) {
      assert.equal(row.jobId, id);
      assert.equal(row.jobType, 'scheduleUpdateTwin');
      assert.equal(row.type, undefined);
      assert.equal(row.status, 'completed');
      for (const name of ['startTimeUtc', 'endTimeUtc', 'createdDateTimeUtc', 'lastUpdatedDateTimeUtc']) assert.match(row[name], timestamp, `${name} of ${JSON.stringify(row)}`);
    }
    const registry = iothub.Registry.fromConnectionString(hub.owner);
    const query = registry.createQuery(`SELECT * FROM devices.jobs WHERE devices.jobs.jobId = '${id}' AND devices.jobs.status = 'completed' AND devices.jobs.createdTimeUtc > '2026-01-01'`, 3);
    const rows = [];
    while (query.hasMoreResults) rows.push(...(await query.next(query.continuationToken)).result);
    assert.equal(rows.length, 4);
  });

  test('service 98: jobs of a policy without ServiceConnect are refused', async ({ service, hub }) => {
    await assert.rejects(jobClient(hub, 'registryRead').getJob('x'), (error) => error.response.statusCode === 401);
    await assert.rejects(jobClient(hub, 'registryRead').scheduleTwinUpdate(uniqueId('job'), '*', { etag: '*', tags: { a: 1 } }), (error) => error.response.statusCode === 401);
  });
});
