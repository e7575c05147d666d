// suite runs tests against one hub of their own.
import { after, before, describe, it } from 'node:test';
import { Hub } from './hub.mjs';
import { Service } from './rest.mjs';

// An SDK client that lost its hub in a test may go on trying for four minutes;
// the process does not wait for it. The exit code is node:test's.
let ending;
const endSoon = () => { ending = setTimeout(() => process.exit(), 20_000).unref(); };

// suite declares tests in `define({ test, context })`; each gets the hub, the
// owner's Service and defer(), which undoes things in reverse order at its end.
// concurrency: how many run at a time; each makes its own devices, so they
// don't meet.
export function suite(name, { concurrency = 1, timeout = 120_000, ...hubOptions } = {}, define) {
  const context = {};
  describe(name, { concurrency }, () => {
    before(async () => {
      clearTimeout(ending);
      context.hub = await Hub.start(hubOptions);
      context.service = new Service(context.hub);
    });
    after(async () => {
      endSoon();
      await context.hub?.close();
    });
    define({
      context,
      test: (title, body, options = {}) => it(title, { timeout, ...options }, async (t) => {
        const cleanups = [];
        const on = { ...context, t, defer: (f) => cleanups.push(f) };
        try {
          await body(on);
        } finally {
          for (const cleanup of cleanups.reverse()) {
            try { await cleanup(); } catch { /* the connection is gone already */ }
          }
        }
      }),
    });
  });
}
