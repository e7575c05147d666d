#!/usr/bin/env node
// Runs the SDK conformance tests. `make test` calls it; by hand:
//
//   node run.mjs [--jobs N] [--bin PATH] [NAME...]
//
// NAME picks suites by a part of their file name. See README.md for how the
// tests get the name hub.muster.test and the ports 443 and 8883.
import { spawn, spawnSync } from 'node:child_process';
import { cpSync, existsSync, lstatSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import net from 'node:net';
import { exceptions, judge } from './lib/checklist.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const root = join(here, '..', '..');
const names = ['hub.muster.test', 'hub.example.com'];
const ci = Boolean(process.env.CI) && process.env.CI !== 'false';
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { jobs: { type: 'string', default: '3' }, bin: { type: 'string' }, keep: { type: 'boolean', default: false } },
});

const say = (text) => console.log(`sdk: ${text}`);
class Trouble extends Error {}

function must(command, args, settings = {}) {
  const done = spawnSync(command, args, { stdio: 'inherit', ...settings });
  if (done.error) throw new Trouble(`${command} did not start: ${done.error.message}`);
  if (done.status !== 0) throw new Trouble(`${command} ${args.join(' ')} failed with ${done.status ?? done.signal}`);
}

function installPackages() {
  const stamp = join(here, 'node_modules', '.package-lock.json');
  const lock = join(here, 'package-lock.json');
  if (existsSync(stamp) && lstatSync(stamp).mtimeMs >= lstatSync(lock).mtimeMs) return;
  say('installing the npm packages of package-lock.json into test/sdk/node_modules (npm ci)');
  must('npm', ['ci', '--no-audit', '--no-fund'], { cwd: here });
}

function buildHub(tmp) {
  const given = options.bin ?? process.env.MUSTER_BIN;
  if (given) return resolve(given);
  const binary = join(tmp, 'muster');
  say('building the hub (go build)');
  must('go', ['build', '-o', binary, '.'], { cwd: root });
  return binary;
}

// A place is where a hub can have the ports 443 and 8883 and the names:
// { address, wrap(command, args) -> [command, args], parallel, end() }.
async function findPlace(tmp) {
  const reasons = [];
  if (process.platform === 'linux') {
    const sandbox = join(tmp, 'sandbox');
    const hosts = join(tmp, 'hosts');
    writeFileSync(hosts, `127.0.0.1 localhost ${names.join(' ')}\n`);
    must('go', ['build', '-o', sandbox, '.'], { cwd: join(here, 'sandbox') });
    const trial = spawnSync(sandbox, [hosts, process.execPath, '-e', '0'], { encoding: 'utf8' });
    if (trial.status === 0) {
      say(`name and ports: each suite runs in a private network and mount namespace${process.getuid() === 0 ? '' : ' (and a user namespace)'}; nothing on this machine is changed`);
      return { address: '127.0.0.1', wrap: (command, args) => [sandbox, [hosts, command, ...args]], parallel: true, end() {} };
    }
    reasons.push(`private namespaces: ${(trial.stderr || trial.error?.message || `ended with ${trial.status}`).trim()}`);
  } else {
    reasons.push('private namespaces: only on Linux');
  }
  const root = process.getuid?.() === 0;
  if (root && existsSync('/etc/hosts')) {
    const address = await freeLoopback();
    if (address) {
      const before = readFileSync('/etc/hosts');
      const end = () => writeFileSync('/etc/hosts', before);
      writeFileSync('/etc/hosts', `${before}\n${address} ${names.join(' ')} # Muster's SDK tests, removed at their end\n`);
      process.on('exit', end);
      for (const signal of ['SIGINT', 'SIGTERM']) process.on(signal, () => process.exit(1));
      say(`name and ports: ${address}:443 and :8883, and one line in /etc/hosts that is removed at the end`);
      return { address, wrap: (command, args) => [command, args], parallel: false, end };
    }
    reasons.push('/etc/hosts: no address of 127.77.0.0/16 could be bound on ports 443 and 8883');
  } else {
    reasons.push('/etc/hosts: needs root');
  }
  return { reasons };
}

async function freeLoopback() {
  for (let i = 1; i < 20; i++) {
    const address = `127.77.${process.pid % 250}.${i}`;
    if (await canBind(address, 443) && await canBind(address, 8883)) return address;
  }
  return null;
}

function canBind(address, port) {
  return new Promise((settle) => {
    const server = net.createServer();
    server.once('error', () => settle(false));
    server.listen(port, address, () => server.close(() => settle(true)));
  });
}

function execute(place, args, environment) {
  return new Promise((settle) => {
    const [command, all] = place.wrap(process.execPath, args);
    const child = spawn(command, all, { cwd: here, env: { ...process.env, ...environment }, stdio: ['ignore', 'pipe', 'pipe'] });
    const output = [];
    child.stdout.on('data', (data) => output.push(data));
    child.stderr.on('data', (data) => output.push(data));
    const limit = setTimeout(() => child.kill('SIGTERM'), 300_000);
    child.on('close', (code, signal) => {
      clearTimeout(limit);
      settle({ code: code ?? signal, output: Buffer.concat(output).toString() });
    });
  });
}

async function runSuite(place, file, tmp, binary, template) {
  const name = file.replace('.test.mjs', '');
  const dir = join(tmp, name);
  const data = join(dir, 'data');
  mkdirSync(dir, { recursive: true });
  cpSync(template, data, { recursive: true, preserveTimestamps: true, filter: (path) => !lstatSync(path).isSocket() });
  const started = performance.now();
  const { code, output } = await execute(place, [
    '--test', '--test-reporter=spec', '--test-reporter-destination=stdout',
    '--test-reporter=./lib/reporter.mjs', `--test-reporter-destination=${join(dir, 'results.jsonl')}`,
    file,
  ], {
    MUSTER_BIN: binary,
    MUSTER_TEST_DATA: data,
    MUSTER_TEST_TMP: dir,
    MUSTER_TEST_LOG: join(dir, 'hub.log'),
    MUSTER_TEST_ADDRESS: place.address,
    NODE_EXTRA_CA_CERTS: join(data, 'tls', 'ca.pem'),
  });
  const seconds = (performance.now() - started) / 1000;
  let results = [];
  try {
    results = readFileSync(join(dir, 'results.jsonl'), 'utf8').split('\n').filter(Boolean).map((line) => ({ suite: name, ...JSON.parse(line) }));
  } catch { /* the suite did not come that far; its code tells */ }
  return { name, code, output, seconds, results, log: code === 0 ? '' : warnings(join(dir, 'hub.log')) };
}

// warnings are the last lines of a hub's log that are worth a look.
function warnings(log) {
  if (!existsSync(log)) return '';
  const lines = readFileSync(log, 'utf8').split('\n').filter((line) => /\b(WARN|ERROR)\b|panic/.test(line)).slice(-20);
  return lines.length === 0 ? '' : `the hub's last warnings:\n${lines.join('\n')}\n`;
}

async function main() {
  const tmp = mkdtempSync(join(tmpdir(), 'muster-sdk-'));
  const started = performance.now();
  let place;
  try {
    installPackages();
    place = await findPlace(tmp);
    if (place.reasons) {
      const text = `The SDK tests cannot have the name ${names[0]} and the ports 443 and 8883 here:\n  ${place.reasons.join('\n  ')}\n`
        + 'To run them: run as root, or permit user namespaces (sysctl kernel.unprivileged_userns_clone=1 or\n'
        + 'kernel.apparmor_restrict_unprivileged_userns=0), or, in a container, start it with --cap-add SYS_ADMIN.';
      if (ci) throw new Trouble(text);
      console.log(`\n*** SDK CONFORMANCE TESTS SKIPPED: NOTHING BELOW WAS CHECKED ***\n${text}\n`);
      return 0;
    }
    const binary = buildHub(tmp);
    const template = join(tmp, 'template');
    const first = await execute(place, ['lib/prepare.mjs'], {
      MUSTER_BIN: binary, MUSTER_TEST_DATA: template, MUSTER_TEST_LOG: join(tmp, 'template.log'), MUSTER_TEST_TMP: tmp, MUSTER_TEST_ADDRESS: place.address,
    });
    if (first.code !== 0) throw new Trouble(`the hub's first start failed:\n${first.output}`);
    say(first.output.trim());

    const all = readdirSync(here).filter((file) => file.endsWith('.test.mjs'));
    const files = all.filter((file) => positionals.length === 0 || positionals.some((part) => file.includes(part)));
    if (files.length === 0) throw new Trouble(`no suite matches ${positionals.join(', ')}; there are: ${all.join(', ')}`);
    // The longest first, so that the end is not one suite alone; the abuse
    // suite measures latency and has the machine for itself.
    const alone = files.filter((file) => file.startsWith('abuse'));
    const queue = files.filter((file) => !alone.includes(file)).sort((a, b) => Number(b.includes('patience')) - Number(a.includes('patience')));
    const finished = [];
    const worker = async () => {
      for (let file = queue.shift(); file; file = queue.shift()) {
        const done = await runSuite(place, file, tmp, binary, template);
        finished.push(done);
        const failed = done.results.filter((result) => result.state !== 'passed').length;
        say(`${done.code === 0 ? 'ok  ' : 'FAIL'} ${done.name}: ${done.results.length - failed} passed, ${failed} failed, ${done.seconds.toFixed(1)} s`);
        // Of a suite that passed only what its tests measured.
        // Of one that failed also what its hub had to say last.
        const shown = done.code === 0 ? done.output.split('\n').filter((line) => line.startsWith('  ℹ ')).map((line) => `       ${line.slice(4)}\n`).join('').trimEnd() : `${done.output}${done.log}`;
        if (shown) console.log(shown);
      }
    };
    await Promise.all(Array.from({ length: place.parallel ? Number(options.jobs) : 1 }, worker));
    queue.push(...alone);
    await worker();

    return conclude(finished, positionals.length === 0, (performance.now() - started) / 1000);
  } finally {
    place?.end?.();
    if (options.keep) say(`kept ${tmp}`);
    else rmSync(tmp, { recursive: true, force: true });
  }
}

function conclude(finished, complete, seconds) {
  const results = finished.flatMap((suite) => suite.results);
  const rows = exceptions(readFileSync(join(here, 'EXCEPTIONS.md'), 'utf8'));
  const items = judge(results, rows);
  for (const list of ['device', 'service']) {
    const of = items.filter((item) => item.list === list);
    const count = (state) => of.filter((item) => item.state === state).length;
    say(`${list} checklist: ${count('passed')} of ${of.length} items proved, ${count('failed')} failed, ${count('excepted')} excepted${complete ? `, ${count('missing')} without a test` : ''}`);
  }
  const bad = results.filter((result) => result.state !== 'passed');
  for (const one of bad) say(`${one.state.toUpperCase()} ${one.suite}: ${one.name}${one.error ? `, ${one.error.split('\n')[0]}` : ''}`);
  const missing = items.filter((item) => item.state === 'missing');
  if (complete) for (const one of missing) say(`NO TEST for ${one.item}`);
  const broken = finished.filter((suite) => suite.code !== 0);
  for (const one of broken) if (one.results.every((result) => result.state === 'passed')) say(`FAILED ${one.name}: the suite ended with ${one.code}`);
  say(`${results.length} tests in ${finished.length} suites, ${bad.length} not passed, ${seconds.toFixed(0)} s`);
  return bad.length === 0 && broken.length === 0 && (!complete || missing.length === 0) ? 0 : 1;
}

try {
  process.exitCode = await main();
} catch (error) {
  if (!(error instanceof Trouble)) throw error;
  console.error(`sdk: ${error.message}`);
  process.exitCode = 1;
}
