// Devices, SDK clients and assertions that the suites share.
import assert from 'node:assert/strict';
import { randomBytes } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import device from 'azure-iot-device';
import { Mqtt, MqttWs } from 'azure-iot-device-mqtt';
import common from 'azure-iot-common';
import iothub from 'azure-iothub';
import { host } from './hub.mjs';
import { deviceToken, patience } from './wire.mjs';

export const transports = { Mqtt, MqttWs };

let count = 0;
export const uniqueId = (prefix = 'dev') => `${prefix}-${process.pid}-${++count}`;
export const newKey = (bytes = 32) => randomBytes(bytes).toString('base64');
export const path = (id) => `/devices/${encodeURIComponent(id)}`;
export const modulePath = (id, module) => `${path(id)}/modules/${encodeURIComponent(module)}`;
export const twinPath = (id, module) => `/twins/${encodeURIComponent(id)}${module === undefined ? '' : `/modules/${encodeURIComponent(module)}`}`;

// Identity is a device ("d") or module ("d/m") with its keys.
export class Identity {
  constructor(record) {
    this.deviceId = record.deviceId;
    this.moduleId = record.moduleId;
    this.identity = record.moduleId === undefined ? record.deviceId : `${record.deviceId}/${record.moduleId}`;
    this.record = record;
    this.primaryKey = record.authentication?.symmetricKey?.primaryKey;
    this.secondaryKey = record.authentication?.symmetricKey?.secondaryKey;
  }

  token(options) { return deviceToken(this.identity, this.primaryKey, options); }

  get connectionString() {
    return `HostName=${host};DeviceId=${this.deviceId};${this.moduleId === undefined ? '' : `ModuleId=${this.moduleId};`}SharedAccessKey=${this.primaryKey}`;
  }
}

// newDevice creates a device through the service API.
export async function newDevice(service, { id = uniqueId(), ...more } = {}) {
  const reply = await service.put(path(id), { deviceId: id, ...more });
  assert.equal(reply.status, 200, `create ${id}: ${reply.text}`);
  return new Identity(reply.json);
}

export async function newModule(service, parent, moduleId = 'm1') {
  const reply = await service.put(modulePath(parent.deviceId, moduleId), { deviceId: parent.deviceId, moduleId });
  assert.equal(reply.status, 200, `create ${parent.deviceId}/${moduleId}: ${reply.text}`);
  return new Identity(reply.json);
}

// openClient is Microsoft's device or module client, connected.
export async function openClient(identity, transport = Mqtt, prepare) {
  const Client = identity.moduleId === undefined ? device.Client : device.ModuleClient;
  const client = Client.fromConnectionString(identity.connectionString, transport);
  client.setRetryPolicy(new common.NoRetry());
  if (prepare) await prepare(client);
  await client.open();
  return client;
}

// serviceClient is azure-iothub's Client, without its minutes of retries.
export function serviceClient(hub) {
  const client = iothub.Client.fromConnectionString(hub.owner);
  client.setRetryPolicy(new common.NoRetry());
  return client;
}

export const registry = (hub, policy = 'iothubowner') => iothub.Registry.fromConnectionString(hub.connectionStrings[policy]);

// updateReported is twin.properties.reported.update as a promise.
export const updateReported = (twin, patch) => new Promise((resolve, reject) => {
  twin.properties.reported.update(patch, (error) => (error ? reject(error) : resolve()));
});

// eventually asks again until `probe` gives a truthy value.
export async function eventually(what, probe, timeout = patience, pause = 20) {
  const end = Date.now() + timeout;
  for (;;) {
    const value = await probe();
    if (value) return value;
    if (Date.now() > end) throw new Error(`not within ${timeout} ms: ${what}`);
    await sleep(pause);
  }
}

// within fails when a promise takes longer.
export async function within(timeout, what, promise) {
  let timer;
  const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`not within ${timeout} ms: ${what}`)), timeout); });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

// nested reads the error form of direct methods: JSON text inside Message.
export function nested(reply) {
  assert.equal(typeof reply.json?.Message, 'string', `no Message in ${reply.text}`);
  return JSON.parse(reply.json.Message);
}

// assertError checks a service API error: status, header, and E1 body.
export function assertError(reply, status, name) {
  assert.equal(reply.status, status, reply.text);
  assert.equal(reply.headers['iothub-errorcode'], name, reply.text);
  assert.ok(reply.json, `the body of ${status} is not JSON: ${reply.text}`);
  assert.match(reply.headers['content-type'], /application\/json/);
  assert.ok(reply.json.Message.startsWith(`ErrorCode:${name};`), reply.text);
}

export const never = /^0001-01-01T00:00:00Z?$/;
export const timestamp = /^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,7})?Z$/;

export { assert, patience, sleep };
