// Raw HTTPS requests: what the SDKs cannot send or do not show.
import https from 'node:https';
import { token } from './sas.mjs';
import { host, alias, address } from './hub.mjs';

export const apiVersion = '2021-04-12';

const agent = new https.Agent({ keepAlive: true, maxSockets: 64, timeout: 60_000 });

// rest sends one request and gives { status, headers, rawHeaders, text, json }.
// `query` is appended as it stands; no api-version is added.
export function rest({ method = 'GET', path, headers = {}, body, timeout = 30_000, agent: other = agent }) {
  return new Promise((resolve, reject) => {
    const request = https.request({ host, port: 443, method, path, headers: { ...headers }, agent: other, timeout }, (response) => {
      const chunks = [];
      response.on('data', (chunk) => chunks.push(chunk));
      response.on('error', reject);
      response.on('end', () => {
        const text = Buffer.concat(chunks).toString('utf8');
        let json;
        try { json = JSON.parse(text); } catch { json = undefined; }
        resolve({ status: response.statusCode, headers: response.headers, rawHeaders: response.rawHeaders, text, json });
      });
    });
    request.on('timeout', () => request.destroy(new Error(`no answer to ${method} ${path} in ${timeout} ms`)));
    request.on('error', reject);
    if (body !== undefined) {
      const bytes = Buffer.isBuffer(body) ? body : Buffer.from(typeof body === 'string' ? body : JSON.stringify(body));
      if (!Object.keys(headers).some((name) => name.toLowerCase() === 'content-type')) request.setHeader('Content-Type', 'application/json; charset=utf-8');
      request.setHeader('Content-Length', bytes.length);
      request.end(bytes);
    } else {
      request.end();
    }
  });
}

// Service is the service REST API called as one shared access policy.
export class Service {
  constructor(hub, policy = 'iothubowner') {
    this.hub = hub;
    this.policy = policy;
  }

  token() {
    return token(host, this.hub.keys[this.policy], { skn: this.policy });
  }

  // call adds the token and, unless the path has one, the api-version.
  call(method, path, { body, headers = {}, ifMatch, timeout, version = apiVersion } = {}) {
    const all = { Authorization: this.token(), ...headers };
    if (ifMatch !== undefined) all['If-Match'] = ifMatch;
    const full = path.includes('api-version=') ? path : `${path}${path.includes('?') ? '&' : '?'}api-version=${version}`;
    return rest({ method, path: full, headers: all, body, timeout });
  }

  get(path, options) { return this.call('GET', path, options); }
  put(path, body, options) { return this.call('PUT', path, { body, ...options }); }
  patch(path, body, options) { return this.call('PATCH', path, { body, ...options }); }
  post(path, body, options) { return this.call('POST', path, { body, ...options }); }
  delete(path, options) { return this.call('DELETE', path, options); }
}

export { host, alias, address };
