// One hub process under test: start, wait until ready, stop, kill, restart.
// The runner (run.mjs) has made the data directory, so its CA was known when
// this Node process started (Node reads NODE_EXTRA_CA_CERTS only then).
import { spawn, execFile } from 'node:child_process';
import { once } from 'node:events';
import { createWriteStream, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { setTimeout as sleep } from 'node:timers/promises';
import { rest } from './rest.mjs';

const run = promisify(execFile);

export const host = 'hub.muster.test';
// A second name of the same hub; the published signature vectors are for it.
export const alias = 'hub.example.com';
export const address = process.env.MUSTER_TEST_ADDRESS ?? '127.0.0.1';
export const mqttsPort = 8883;
export const httpsPort = 443;

const binary = process.env.MUSTER_BIN;
const data = process.env.MUSTER_TEST_DATA;
const logFile = process.env.MUSTER_TEST_LOG;

// serveArguments is the command line of every hub in these tests.
export function serveArguments(dir = data) {
  return [
    'serve', '--data', dir,
    '--host', host, '--host', alias,
    '--https', `${address}:${httpsPort}`, '--mqtts', `${address}:${mqttsPort}`,
    '--limits', 'azure',
  ];
}

export class Hub {
  constructor(options = {}) {
    this.dir = options.data ?? data;
    this.binary = options.binary ?? binary;
    this.extra = options.extra ?? [];
    this.log = createWriteStream(logFile, { flags: 'a' });
    this.exited = null;
  }

  // start runs the hub and waits until it serves. waitReady: false only waits
  // until it listens, for tests of a hub that is not ready.
  static async start(options = {}) {
    const hub = new Hub(options);
    await hub.start(options);
    if (options.waitReady !== false) await hub.readPolicies();
    return hub;
  }

  // launch starts the process and gives a record that tells when it is gone.
  launch() {
    const state = { gone: null };
    this.process = spawn(this.binary, [...serveArguments(this.dir), ...this.extra], { stdio: ['ignore', 'pipe', 'pipe'] });
    this.process.stdout.pipe(this.log, { end: false });
    this.process.stderr.pipe(this.log, { end: false });
    this.exited = once(this.process, 'exit');
    this.exited.then(([code, signal]) => { state.gone = { code, signal }; });
    return state;
  }

  async start({ waitReady = true, deadline = 30_000 } = {}) {
    const state = this.launch();
    const end = Date.now() + deadline;
    for (;;) {
      if (state.gone) throw new Error(`the hub ended with ${JSON.stringify(state.gone)} while it started; its log ends:\n${this.tail()}`);
      try {
        const reply = await rest({ path: '/readyz', timeout: 2000 });
        if (reply.status === 200 || !waitReady) return;
      } catch (error) {
        if (!['ECONNREFUSED', 'ECONNRESET'].includes(error.code) && Date.now() > end) throw error;
      }
      if (Date.now() > end) throw new Error(`the hub was not ready in ${deadline} ms; its log ends:\n${this.tail()}`);
      await sleep(20);
    }
  }

  // cli runs a muster command against this hub's data directory.
  async cli(...args) {
    const { stdout } = await run(this.binary, [...args, '--data', this.dir]);
    return stdout.trim();
  }

  async readPolicies() {
    this.connectionStrings = {};
    this.keys = {};
    for (const policy of ['iothubowner', 'service', 'device', 'registryRead', 'registryReadWrite']) {
      const text = await this.cli('connection-string', '--policy', policy);
      this.connectionStrings[policy] = text;
      this.keys[policy] = /SharedAccessKey=([^;]+)/.exec(text)[1];
    }
    this.owner = this.connectionStrings.iothubowner;
  }

  // stop ends the hub as an operator does and tells how it ended.
  async stop(signal = 'SIGTERM') {
    if (!this.process || this.process.exitCode !== null || this.process.signalCode !== null) return this.exited;
    this.process.kill(signal);
    return this.exited;
  }

  async restart(signal = 'SIGTERM') {
    await this.stop(signal);
    await this.start();
  }

  // close is for after(): it fails when the hub broke in a way no test saw.
  async close() {
    const [code, signal] = await this.stop();
    const text = readFileSync(logFile, 'utf8');
    const found = /^(panic: |fatal error: |WARNING: DATA RACE).*/m.exec(text);
    if (found) throw new Error(`the hub's log holds "${found[0]}":\n${text.slice(found.index, found.index + 4000)}`);
    if (code !== 0) throw new Error(`the hub ended with code ${code}, signal ${signal} on SIGTERM; its log ends:\n${this.tail()}`);
  }

  tail(lines = 30) {
    try {
      return readFileSync(logFile, 'utf8').split('\n').slice(-lines).join('\n');
    } catch {
      return '(no log)';
    }
  }
}

export const scratch = (name) => join(process.env.MUSTER_TEST_TMP, name);
