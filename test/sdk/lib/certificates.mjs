// Client certificates for tests, made by openssl in the suite's directory.
import { execFileSync } from 'node:child_process';
import { readFileSync } from 'node:fs';
import { X509Certificate } from 'node:crypto';
import { scratch } from './hub.mjs';

// selfSigned gives { key, cert, sha1, sha256 } for a common name.
export function selfSigned(name) {
  const key = scratch(`${name}.key`);
  const cert = scratch(`${name}.pem`);
  execFileSync('openssl', ['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-days', '2', '-subj', `/CN=${name}`, '-keyout', key, '-out', cert], { stdio: 'ignore' });
  return read(key, cert);
}

// chained gives a leaf signed by a CA that the hub has never seen; cert holds
// the leaf and the CA.
export function chained(name) {
  const authority = selfSigned(`${name}-authority`);
  const key = scratch(`${name}.key`);
  const request = scratch(`${name}.csr`);
  const cert = scratch(`${name}.pem`);
  execFileSync('openssl', ['req', '-new', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes', '-subj', `/CN=${name}`, '-keyout', key, '-out', request], { stdio: 'ignore' });
  execFileSync('openssl', ['x509', '-req', '-in', request, '-CA', scratch(`${name}-authority.pem`), '-CAkey', scratch(`${name}-authority.key`), '-set_serial', '7', '-days', '2', '-out', cert], { stdio: 'ignore' });
  const leaf = read(key, cert);
  return { ...leaf, cert: leaf.cert + authority.cert };
}

function read(keyFile, certFile) {
  const cert = readFileSync(certFile, 'utf8');
  const parsed = new X509Certificate(cert);
  return { key: readFileSync(keyFile, 'utf8'), cert, sha1: parsed.fingerprint.replaceAll(':', ''), sha256: parsed.fingerprint256.replaceAll(':', '') };
}
