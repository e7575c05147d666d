// Makes the data directory that every suite gets a copy of: starts the hub
// once, waits until it is ready, and stops it as an operator would.
// Usage: node prepare.mjs (MUSTER_BIN, MUSTER_TEST_DATA, MUSTER_TEST_LOG set).
import https from 'node:https';
import { existsSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Hub, host } from './hub.mjs';

const ca = join(process.env.MUSTER_TEST_DATA, 'tls', 'ca.pem');

function ready() {
  return new Promise((resolve) => {
    if (!existsSync(ca)) { resolve(false); return; }
    const request = https.get({ host, path: '/readyz', ca: readFileSync(ca), agent: false }, (response) => {
      response.resume();
      resolve(response.statusCode === 200);
    });
    request.on('error', () => resolve(false));
  });
}

const hub = new Hub();
const started = performance.now();
const launched = hub.launch();
for (;;) {
  if (await ready()) break;
  if (launched.gone) throw new Error(`the hub ended with ${JSON.stringify(launched.gone)} at its first start:\n${hub.tail()}`);
  if (performance.now() - started > 60_000) throw new Error(`the hub was not ready within 60 s at its first start:\n${hub.tail()}`);
  await sleep(50);
}
console.log(`first start: ready after ${Math.round(performance.now() - started)} ms`);
await hub.stop();
process.exit(0);
