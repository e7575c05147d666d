// A node:test reporter: one JSON line per finished test, for run.mjs to count.
export default async function* report(source) {
  for await (const event of source) {
    if (event.type !== 'test:pass' && event.type !== 'test:fail') continue;
    const { name, nesting, skip, todo, file, details } = event.data;
    if (details?.type === 'suite') continue;
    if (nesting === 0 && name === file) continue;
    const error = details?.error?.cause ?? details?.error;
    let state = event.type === 'test:pass' ? 'passed' : 'failed';
    if (skip !== undefined || todo !== undefined) state = 'skipped';
    yield `${JSON.stringify({ name, state, milliseconds: Math.round(details?.duration_ms ?? 0), error: error ? String(error.stack ?? error.message ?? error).slice(0, 4000) : undefined })}\n`;
  }
}
