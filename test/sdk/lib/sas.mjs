// Shared access signatures, written out so that a test can get every part of
// one wrong or unusual on purpose.
import { createHmac } from 'node:crypto';

export const inSeconds = (n) => Math.floor(Date.now() / 1000) + n;

// signature is the base64 text over exactly what is transmitted.
export function signature(sr, se, key) {
  return createHmac('sha256', Buffer.from(key, 'base64')).update(`${sr}\n${se}`).digest('base64');
}

// token signs the resource `sr` as spelled. Options: se, skn (undefined = no
// member), order, signOver (another spelling), escape (how sig is escaped).
export function token(sr, key, { se = inSeconds(3600), skn, order = 'sr,sig,skn,se', signOver = sr, escape = encodeURIComponent } = {}) {
  const members = { sr, se: String(se), sig: escape(signature(signOver, se, key)) };
  if (skn !== undefined) members.skn = skn;
  return 'SharedAccessSignature ' + order.split(',').filter((name) => name in members).map((name) => `${name}=${members[name]}`).join('&');
}

// lowerEscapes escapes as the C SDK does: %2b, %2f, %3d.
export const lowerEscapes = (text) => encodeURIComponent(text).replace(/%[0-9A-F]{2}/g, (escape) => escape.toLowerCase());

// slashesKept escapes as the Python SDK does: "/" stays.
export const slashesKept = (text) => encodeURIComponent(text).replaceAll('%2F', '/');
