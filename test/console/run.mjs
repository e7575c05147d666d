#!/usr/bin/env node
// Looks at the hub's pages with Chromium: what the status page shows, without a
// token, with a wrong one, on a narrow screen, in the dark, and while the hub is
// away; and the form of a pattern, up to the run that its command begins.
// `make test` calls it; by hand:
//
//   MUSTER_BIN=./muster CHROMIUM=$(command -v chromium) node test/console/run.mjs
//
// Ends with "console: N tests, N failed".
import assert from 'node:assert/strict';
import { spawn, spawnSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { delimiter, dirname, join, resolve } from 'node:path';
import { chromium } from 'playwright-core';

const binary = process.env.MUSTER_BIN;
const tmp = mkdtempSync(join(tmpdir(), 'muster-console-'));
const data = join(tmp, 'data');
const devices = 8;

function muster(...args) {
  const done = spawnSync(binary, [...args, '--data', data], { encoding: 'utf8' });
  assert.equal(done.status, 0, `muster ${args.join(' ')}: ${done.stderr}`);
  return done.stdout;
}

// hostile is a pattern whose author would like to be markup, and long.
const hostile = `return pattern {
  name = "hostile", version = "1.0.0", title = "<b>Title</b>", summary = "<img src=x onerror=alert(1)> " .. ("long"):rep(60),
  params = {
    word = { type = "string", title = "<script>alert(1)</script>", description = "<a href='javascript:alert(1)'>x</a>", default = "'\\"><b>" },
    list = { type = "string", enum = { "<i>one</i>", "two $(three)" }, default = "<i>one</i>" },
    ["not"] = { type = "boolean" }, deep = { type = "object", default = { a = { b = { c = 1 } } } },
  },
  needs = { "twin:read" },
  run = function(dev, p) return p.word end,
}
`;

// shell runs a command as somebody does who has copied it.
function shell(command) {
  const done = spawnSync('sh', ['-c', command], { encoding: 'utf8', env: { ...process.env, MUSTER_DATA: data, PATH: dirname(resolve(binary)) + delimiter + process.env.PATH } });
  assert.equal(done.status, 0, `${command}: ${done.stderr}`);
  return done.stdout;
}

// startHub resolves with the process and the link of its banner.
function startHub(http = '127.0.0.1:0') {
  const child = spawn(binary, ['serve', '--data', data, '--https', '127.0.0.1:0', '--mqtts', '127.0.0.1:0', '--http', http, '--drain', '0s'],
    { env: { ...process.env, MUSTER_BANNER: '1' }, stdio: ['ignore', 'pipe', 'pipe'] });
  return new Promise((resolve, reject) => {
    let text = '';
    const late = setTimeout(() => reject(new Error(`no banner within 30 s: ${text}`)), 30000);
    const take = (part) => {
      text += part;
      const link = /http:\/\/\S+#\S+/.exec(text);
      if (link && text.includes('ready in')) {
        clearTimeout(late);
        resolve({ child, link: link[0] });
      }
    };
    child.stdout.on('data', take);
    child.stderr.on('data', take);
    child.on('exit', (code) => reject(new Error(`the hub ended with ${code}: ${text}`)));
  });
}

const stop = (child, signal = 'SIGTERM') => new Promise((resolve) => {
  if (child.exitCode !== null) return resolve();
  child.removeAllListeners('exit');
  child.on('exit', resolve);
  child.kill(signal);
});

let passed = 0;
let failed = 0;
async function check(name, f) {
  try {
    await f();
    passed++;
    console.log(`console: ok   ${name}`);
  } catch (error) {
    failed++;
    console.log(`console: FAIL ${name}\n${error.stack}`);
  }
}

// open gives f a fresh page and fails on anything that the browser complains of.
async function open(browser, url, settings, f) {
  const context = await browser.newContext({ viewport: { width: 1100, height: 800 }, ...settings });
  const page = await context.newPage();
  const complaints = [];
  page.on('pageerror', (error) => complaints.push(`error: ${error.message}`));
  page.on('console', (message) => {
    if (message.type() === 'error' && !/Failed to load resource/.test(message.text())) complaints.push(`console: ${message.text()}`);
  });
  try {
    await page.goto(url);
    await f(page);
    assert.deepEqual(complaints, []);
  } finally {
    await context.close();
  }
}

const text = (page, selector) => page.locator(selector).innerText();
const waits = (page, selector, pattern) => page.locator(selector).filter({ hasText: pattern }).waitFor({ timeout: 15000 });

async function contrast(page) {
  return page.evaluate(() => {
    const light = (color) => {
      const parts = color.match(/[\d.]+/g).slice(0, 3).map((v) => {
        const c = Number(v) / 255;
        return c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
      });
      return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
    };
    const solid = (e) => {
      for (let n = e; n; n = n.parentElement) {
        const c = getComputedStyle(n).backgroundColor;
        if (c !== 'rgba(0, 0, 0, 0)' && c !== 'transparent') return c;
      }
      return 'rgb(255, 255, 255)';
    };
    let worst = { ratio: 21, what: '' };
    for (const e of document.querySelectorAll('h1, h1 span, h2, h3, dt, dd, td, th, small, .badge, .empty, a, label, legend, button, .help, .wrong, .required, pre, footer p')) {
      if (!e.offsetParent || !e.textContent.trim()) continue;
      const [a, b] = [light(getComputedStyle(e).color), light(solid(e))].sort((x, y) => y - x);
      const ratio = (a + 0.05) / (b + 0.05);
      if (ratio < worst.ratio) worst = { ratio, what: `${e.tagName}.${e.className} ${e.textContent.trim().slice(0, 30)}` };
    }
    return worst;
  });
}

async function main() {
  let hub = await startHub();
  const fleet = spawn(binary, ['demo', '--data', data, '--devices', String(devices), '--quiet'], { stdio: 'ignore' });
  const browser = await chromium.launch({ executablePath: process.env.CHROMIUM || undefined, args: ['--no-sandbox', '--disable-dev-shm-usage'] });
  const base = hub.link.split('#')[0];
  try {
    muster('device', 'create', 'quiet-<b>1'.replace(/[<>]/g, '!'));
    await check('shows the fleet', () => open(browser, hub.link, {}, async (page) => {
      await waits(page, '#health', 'ready');
      await page.waitForFunction((n) => document.querySelectorAll('#devices tbody tr').length >= n, devices - 3, { timeout: 30000 });
      assert.equal(await text(page, '#total'), String(devices + 1));
      assert.match(await text(page, '#changes tbody'), /demo-/);
      assert.ok(Number(await text(page, '#connected')) >= devices - 3);
      assert.equal(page.url(), base, 'the token must leave the address bar');
      await page.reload();
      await waits(page, '#health', 'ready');
    }));
    await check('follows a change within a few seconds', () => open(browser, hub.link, {}, async (page) => {
      await waits(page, '#health', 'ready');
      muster('twin', 'patch', 'quiet-!b!1', 'desired.interval=5');
      await page.waitForFunction(() => document.querySelector('#changes tbody').innerText.includes('quiet-!b!1'), null, { timeout: 10000 });
    }));
    await check('filters devices', () => open(browser, hub.link, {}, async (page) => {
      await page.waitForFunction(() => document.querySelectorAll('#devices tbody tr').length > 1, null, { timeout: 30000 });
      await page.getByLabel('Filter by id').fill('no such device');
      await waits(page, '#devices-more', 'No connected device');
    }));
    await check('tables and landmarks are named', () => open(browser, hub.link, {}, async (page) => {
      await page.waitForFunction(() => document.querySelectorAll('#devices tbody tr').length > 1, null, { timeout: 30000 });
      await page.getByRole('region', { name: 'Connected devices' }).first().waitFor();
      assert.ok(await page.getByRole('columnheader').count() >= 8);
      assert.ok(await page.getByRole('rowheader').count() >= 1);
      assert.equal(await page.locator('[aria-live=polite]').count(), 1);
      assert.equal(await page.getByRole('main').count(), 1);
    }));
    for (const colorScheme of ['light', 'dark']) {
      await check(`can be read in the ${colorScheme}`, () => open(browser, hub.link, { colorScheme }, async (page) => {
        await waits(page, '#health', 'ready');
        const worst = await contrast(page);
        assert.ok(worst.ratio >= 4.5, `contrast ${worst.ratio.toFixed(2)} at ${worst.what}`);
      }));
    }
    await check('fits a screen of 360 pixels', () => open(browser, hub.link, { viewport: { width: 360, height: 740 } }, async (page) => {
      await waits(page, '#health', 'ready');
      const wide = await page.evaluate(() => document.documentElement.scrollWidth);
      assert.ok(wide <= 360, `the page is ${wide} pixels wide`);
    }));
    await check('says what to do without a token', () => open(browser, base, {}, async (page) => {
      await waits(page, '#message', 'no token');
      assert.match(await text(page, '#message'), /link that the hub printed/);
    }));
    await check('says what to do with a token that is not allowed', () => open(browser, `${base}#sr=localhost&sig=AAAA&se=1&skn=status`, {}, async (page) => {
      await waits(page, '#message', 'expired or is not allowed');
    }));
    mkdirSync(join(tmp, 'hostile'));
    writeFileSync(join(tmp, 'hostile', 'pattern.lua'), hostile);
    muster('pattern', 'install', join(tmp, 'hostile'), '--unsigned', '--unchecked', '--yes');
    const form = (name) => `${base}patterns?name=${name}#${hub.link.split('#')[1]}`;
    await check('lists the patterns, and leads from one page to the other', () => open(browser, hub.link, {}, async (page) => {
      await page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Patterns' }).click();
      await page.getByRole('rowheader', { name: 'reboot' }).waitFor();
      assert.match(await page.getByRole('row', { name: /reboot/ }).innerText(), /1\.\d+\.\d+\s+enabled/);
      await page.getByRole('link', { name: 'reboot' }).click();
      await page.getByRole('heading', { name: /reboot 1/ }).waitFor();
      await page.getByRole('link', { name: 'Status' }).click();
      await waits(page, '#health', 'ready');
    }));
    await check('says by the field what the hub finds wrong', () => open(browser, form('reboot'), {}, async (page) => {
      const delay = page.getByLabel('Delay in seconds');
      assert.equal(await delay.inputValue(), '0');
      assert.equal(await delay.getAttribute('max'), '3600');
      assert.equal(await page.getByLabel('Back within').inputValue(), '10m');
      await delay.fill('3601');
      await page.getByLabel('Back within').fill('soon');
      await page.getByLabel('Or by a condition').fill('tags.site ==');
      await page.getByRole('button', { name: 'Check' }).click();
      await waits(page, '#wrong', '3 things are not right');
      for (const [label, pattern] of [['Delay in seconds', /found 3601; expected at most 3600/], ['Back within', /duration/], ['Or by a condition', /column/]]) {
        const control = page.getByLabel(label);
        assert.equal(await control.getAttribute('aria-invalid'), 'true', label);
        const described = (await control.getAttribute('aria-describedby')).split(' ');
        assert.match(await text(page, `#${described[1]}`), pattern);
      }
      assert.equal(await page.evaluate(() => document.activeElement.id), 'target-where', 'the first that is wrong has the focus');
      assert.equal(await page.locator('#result').isVisible(), false);
    }));
    await check('gives the command that begins the run, by the keyboard alone', () => open(browser, form('reboot'), {}, async (page) => {
      await page.getByLabel('By id').focus();
      await page.keyboard.type('quiet-!b!1');
      await page.keyboard.press('Tab');
      await page.keyboard.press('Tab');
      await page.keyboard.press('ControlOrMeta+A');
      await page.keyboard.type('7');
      await page.keyboard.press('Enter');
      await waits(page, '#command', 'muster pattern run reboot');
      assert.deepEqual(JSON.parse(await text(page, '#params')), { delay: 7, online: '1h', within: '10m' });
      assert.match(await text(page, '#request-path'), /^POST \/api\/v1\/runs$/);
      const command = await page.locator('#command').textContent();
      const run = JSON.parse(shell(`${command} --no-watch -o json`));
      assert.equal(run.deviceId, 'quiet-!b!1');
      assert.deepEqual(run.params, { delay: 7, online: '1h', within: '10m' });
      assert.equal(JSON.parse(muster('run', 'show', run.runId, '-o', 'json')).pattern, 'reboot');
      await page.getByLabel('Delay in seconds').fill('8');
      assert.equal(await page.locator('#result').isVisible(), false, 'what was changed has no command yet');
    }));
    await check('shows the texts of a hostile pattern as texts', () => open(browser, form('hostile'), {}, async (page) => {
      await page.getByLabel('<script>alert(1)</script>').waitFor();
      assert.equal(await page.locator('main b, main img, main i, main script, #fields a').count(), 0);
      await page.getByLabel('list').selectOption({ label: 'two $(three)' });
      await page.getByLabel('By id').fill('quiet-!b!1');
      await page.getByRole('button', { name: 'Check' }).click();
      await waits(page, '#command', 'hostile');
      const run = JSON.parse(shell(`${await page.locator('#command').textContent()} --no-watch -o json`));
      assert.deepEqual(run.params, { word: `'"><b>`, list: 'two $(three)', deep: { a: { b: { c: 1 } } } });
    }));
    for (const colorScheme of ['light', 'dark']) {
      await check(`a form can be read in the ${colorScheme}, and fits 360 pixels`, () => open(browser, form('hostile'), { colorScheme, viewport: { width: 360, height: 740 } }, async (page) => {
        await page.getByLabel('not').waitFor();
        await page.getByRole('button', { name: 'Check' }).click();
        await waits(page, '#wrong', 'not right');
        for (const filled of [false, true]) {
          if (filled) {
            await page.getByLabel('Or by a condition').fill('*');
            await page.getByRole('button', { name: 'Check' }).click();
            await waits(page, '#command', 'hostile');
          }
          const worst = await contrast(page);
          assert.ok(worst.ratio >= 4.5, `contrast ${worst.ratio.toFixed(2)} at ${worst.what}`);
          const wide = await page.evaluate(() => document.documentElement.scrollWidth);
          assert.ok(wide <= 360, `the page is ${wide} pixels wide`);
        }
        await page.getByRole('link', { name: 'All patterns' }).click();
        await page.getByRole('rowheader', { name: 'hostile' }).waitFor();
        assert.ok(await page.evaluate(() => document.documentElement.scrollWidth) <= 360);
      }));
    }
    await check('says what to do without a token, and of no such pattern', async () => {
      await open(browser, `${base}patterns`, {}, (page) => waits(page, '#message', 'no token'));
      await open(browser, form('none'), {}, (page) => waits(page, '#message', 'no such pattern'));
    });
    await check('survives a restart of the hub', () => open(browser, hub.link, {}, async (page) => {
      await waits(page, '#health', 'ready');
      await stop(hub.child, 'SIGKILL');
      await waits(page, '#health', 'no answer');
      hub = await startHub(new URL(hub.link).host);
      await page.locator('#health').filter({ hasText: /^ready$/ }).waitFor({ timeout: 60000 });
    }));
  } finally {
    await browser.close();
    await stop(fleet, 'SIGINT');
    await stop(hub.child);
    rmSync(tmp, { recursive: true, force: true });
  }
}

try {
  await main();
} catch (error) {
  failed++;
  console.error(`console: ${error.stack}`);
}
console.log(`console: ${passed + failed} tests, ${failed} failed`);
process.exitCode = failed === 0 ? 0 : 1;
