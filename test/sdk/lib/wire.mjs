// A bare MQTT 3.1.1 peer over TLS or WebSocket. It does nothing by itself: no
// PUBACK, no ping, no reconnect, so a test sees exactly what the hub sends.
import tls from 'node:tls';
import { once } from 'node:events';
import mqttPacket from 'mqtt-packet';
import { WebSocket } from 'ws';
import { host, address, mqttsPort } from './hub.mjs';
import { token } from './sas.mjs';

// patience is how long, in ms, a test waits for what must come while it says
// nothing of the time: a disk that halts for seconds, as those of virtual
// machines do, fails no test. A test of a deadline names its own.
export const patience = 20_000;

export const websocketPath = '/$iothub/websocket';

// userName is what Node's SDK sends.
export const userName = (identity, query = 'api-version=2021-04-12&DeviceClientType=azure-iot-device%2F1.18.4') => `${host}/${identity}/?${query}`;

// resource is the signed resource of a device or module ("d" or "d/m").
export function resource(identity) {
  const [device, module] = identity.split('/');
  return encodeURIComponent(`${host}/devices/${device}${module === undefined ? '' : `/modules/${module}`}`);
}

export class Wire {
  constructor() {
    this.inbox = [];
    this.waiting = [];
    this.received = Buffer.alloc(0);
    this.ended = false;
    this.parser = mqttPacket.parser({ protocolVersion: 4 });
    this.parser.on('packet', (packet) => this.#deliver(packet));
    this.parser.on('error', (error) => this.#end(error));
    this.closed = new Promise((resolve) => { this.resolveClosed = resolve; });
    this.nextId = 1;
  }

  // dial opens the byte stream only. Options: via ('tls' or 'ws'), tls (options
  // of tls.connect), path and protocols of the WebSocket.
  static async dial({ via = 'tls', tls: tlsOptions = {}, path = websocketPath, protocols = ['mqtt'] } = {}) {
    const wire = new Wire();
    if (via === 'ws') {
      const socket = new WebSocket(`wss://${host}${path}`, protocols, { perMessageDeflate: false, ...tlsOptions });
      wire.websocket = socket;
      wire.write = (bytes) => socket.send(bytes, { binary: true }, () => {});
      wire.destroy = () => socket.terminate();
      socket.on('message', (data) => wire.#take(data));
      socket.on('close', () => wire.#end());
      socket.on('error', (error) => wire.#end(error));
      await once(socket, 'open');
    } else {
      const socket = tls.connect({ host: address, port: mqttsPort, servername: host, ...tlsOptions });
      wire.socket = socket;
      wire.write = (bytes) => socket.write(bytes, () => {});
      wire.destroy = () => socket.destroy();
      socket.on('data', (data) => wire.#take(data));
      socket.on('close', () => wire.#end());
      socket.on('error', (error) => wire.#end(error));
      await once(socket, 'secureConnect');
      socket.setNoDelay(true);
    }
    return wire;
  }

  // connect dials, sends CONNECT for a device and gives { wire, connack }, with
  // connack undefined when the hub closed the connection without one.
  static async connect(device, { via, tls: tlsOptions, path, protocols, ...connect } = {}) {
    const wire = await Wire.dial({ via, tls: tlsOptions, path, protocols });
    wire.sendConnect(device, connect);
    const connack = await wire.packetOrClose('connack');
    return { wire, connack };
  }

  // session is connect that insists on being accepted.
  static async session(device, options = {}) {
    const { wire, connack } = await Wire.connect(device, options);
    if (connack?.returnCode !== 0) throw new Error(`CONNECT of ${device.identity} was answered with ${connack ? `code ${connack.returnCode}` : 'a closed connection'}`);
    wire.sessionPresent = connack.sessionPresent;
    return wire;
  }

  // sendConnect sends CONNECT as the SDK does; password null = without one.
  sendConnect(device, { clientId = device.identity, username = userName(device.identity), password = device.token(), clean = false, keepalive = 180, will, protocolVersion = 4 } = {}) {
    this.send({ cmd: 'connect', protocolId: 'MQTT', protocolVersion, clientId, clean, keepalive, username, password: password === null ? undefined : Buffer.from(password), will });
  }

  #take(data) {
    this.received = this.received.length > 65536 ? data : Buffer.concat([this.received, data]);
    this.parser.parse(data);
  }

  #deliver(packet) {
    packet.at = performance.now();
    const index = this.waiting.findIndex((one) => one.matches(packet));
    if (index >= 0) this.waiting.splice(index, 1)[0].resolve(packet);
    else this.inbox.push(packet);
  }

  #end(error) {
    if (this.ended) return;
    this.ended = true;
    this.error = error;
    this.closedAt = performance.now();
    for (const one of this.waiting.splice(0)) one.gone();
    this.resolveClosed(this.closedAt);
  }

  send(packet) {
    this.write(mqttPacket.generate(packet, { protocolVersion: 4 }));
  }

  // packet waits for the next packet that matches: a command name or a
  // predicate. Packets that came before and were not taken are looked at first.
  packet(wanted, timeout = patience) {
    const matches = typeof wanted === 'function' ? wanted : (packet) => packet.cmd === wanted;
    const index = this.inbox.findIndex(matches);
    if (index >= 0) return Promise.resolve(this.inbox.splice(index, 1)[0]);
    return new Promise((resolve, reject) => {
      if (this.ended) {
        reject(new Error(`the hub closed the connection before ${wanted}`));
        return;
      }
      const timer = setTimeout(() => {
        this.waiting.splice(this.waiting.indexOf(one), 1);
        reject(new Error(`no ${wanted} within ${timeout} ms; untaken packets: ${JSON.stringify(this.inbox.map((p) => p.topic ?? p.cmd))}`));
      }, timeout);
      const one = {
        matches,
        resolve: (packet) => { clearTimeout(timer); resolve(packet); },
        gone: () => { clearTimeout(timer); reject(new Error(`the hub closed the connection before ${wanted}`)); },
      };
      this.waiting.push(one);
    });
  }

  async packetOrClose(wanted, timeout = patience) {
    try {
      return await this.packet(wanted, timeout);
    } catch (error) {
      if (this.ended) return undefined;
      throw error;
    }
  }

  // publishOn waits for a PUBLISH whose topic starts with a text.
  publishOn(prefix, timeout = patience) {
    return this.packet(Object.assign((packet) => packet.cmd === 'publish' && packet.topic.startsWith(prefix), { toString: () => `PUBLISH on ${prefix}` }), timeout);
  }

  async subscribe(...filters) {
    const messageId = this.nextId++;
    const subscriptions = filters.map((filter) => (typeof filter === 'string' ? { topic: filter, qos: 0 } : filter));
    this.send({ cmd: 'subscribe', messageId, subscriptions });
    const suback = await this.packet((packet) => packet.cmd === 'suback' && packet.messageId === messageId);
    return suback.granted;
  }

  // publish sends one message and, at QoS 1, waits for its PUBACK.
  async publish(topic, payload = '', { qos = 1, ...more } = {}) {
    const messageId = qos > 0 ? this.nextId++ : undefined;
    this.send({ cmd: 'publish', topic, payload, qos, messageId, retain: false, dup: false, ...more });
    if (qos === 1) await this.packet((packet) => packet.cmd === 'puback' && packet.messageId === messageId);
    return messageId;
  }

  // ping proves that the connection still works: whatever was sent before has
  // been handled, since the hub takes packets in order.
  async ping(timeout = patience) {
    this.send({ cmd: 'pingreq' });
    await this.packet('pingresp', timeout);
  }

  async twin(body = ' ', rid = `r${this.nextId++}`) {
    this.send({ cmd: 'publish', topic: `$iothub/twin/GET/?$rid=${rid}`, payload: body, qos: 0 });
    const reply = await this.packet(Object.assign((packet) => packet.cmd === 'publish' && packet.topic.startsWith('$iothub/twin/res/') && packet.topic.includes(`$rid=${rid}`), { toString: () => `answer to twin GET ${rid}` }));
    return { topic: reply.topic, payload: reply.payload.toString(), json: parse(reply.payload) };
  }

  async report(body, { rid = `r${this.nextId++}`, more = '' } = {}) {
    this.send({ cmd: 'publish', topic: `$iothub/twin/PATCH/properties/reported/?$rid=${rid}${more}`, payload: typeof body === 'string' || Buffer.isBuffer(body) ? body : JSON.stringify(body), qos: 0 });
    const reply = await this.packet(Object.assign((packet) => packet.cmd === 'publish' && packet.topic.startsWith('$iothub/twin/res/') && packet.topic.includes(`$rid=${rid}`), { toString: () => `answer to reported PATCH ${rid}` }));
    return { topic: reply.topic, status: Number(reply.topic.split('/')[3]), payload: reply.payload.toString(), json: parse(reply.payload), at: reply.at };
  }

  // closes waits until the hub has closed the connection.
  async closes(timeout = patience) {
    let timer;
    const late = new Promise((_, reject) => { timer = setTimeout(() => reject(new Error(`the hub did not close the connection within ${timeout} ms`)), timeout); });
    try {
      return await Promise.race([this.closed, late]);
    } finally {
      clearTimeout(timer);
    }
  }

  async disconnect() {
    if (this.ended) return;
    this.send({ cmd: 'disconnect' });
    await this.closes();
  }

  // cut drops the connection without DISCONNECT.
  async cut() {
    this.destroy();
    await this.closed;
  }
}

function parse(payload) {
  try { return JSON.parse(payload.toString()); } catch { return undefined; }
}

// deviceToken is a token for "d" or "d/m" with that identity's key.
export const deviceToken = (identity, key, options) => token(resource(identity), key, options);
