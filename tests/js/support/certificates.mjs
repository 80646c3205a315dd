// Authorities and certificates, made by openssl.

import { execFileSync } from 'node:child_process';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { temporaryFolder } from './processes.mjs';

const KEYS = {
  ec: ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1'],
  rsa: ['-newkey', 'rsa:2048'],
};

let made = 0;

const openssl = (...args) => execFileSync('openssl', args, { stdio: ['ignore', 'pipe', 'pipe'] });

/**
 * An authority: `file` and `pem` are its certificate. `issue({key, days, form})` answers a certificate for this machine,
 * with its key: `{cert, key, certFile, keyFile, serial}`. `form` is that of the key's file: `'pkcs8'`, or `'traditional'`
 * for PKCS#1 and SEC1.
 */
export function createAuthority() {
  const folder = temporaryFolder('certificates');
  const path = (name) => join(folder, name);
  const ca = ['-keyout', path('ca.key'), '-out', path('ca.pem'), '-subj', '/CN=Test authority', '-days', '3'];
  openssl('req', '-x509', ...KEYS.ec, '-nodes', ...ca);

  const issue = ({ key = 'ec', days = 2, form = 'pkcs8' } = {}) => {
    made += 1;
    const [keyFile, request, certFile, extensions] = ['key', 'csr', 'pem', 'ext'].map((type) => path(`${made}.${type}`));
    openssl('req', '-new', ...KEYS[key], '-nodes', '-keyout', keyFile, '-out', request, '-subj', '/CN=localhost');
    writeFileSync(extensions, 'subjectAltName=DNS:localhost,IP:127.0.0.1\nbasicConstraints=critical,CA:FALSE\n');
    const by = ['-CA', path('ca.pem'), '-CAkey', path('ca.key'), '-set_serial', String(made)];
    openssl('x509', '-req', '-in', request, ...by, '-days', String(days), '-extfile', extensions, '-out', certFile);
    if (form === 'traditional') openssl(key, '-in', keyFile, '-out', keyFile, ...(key === 'rsa' ? ['-traditional'] : []));
    const [cert, keyText] = [certFile, keyFile].map((file) => readFileSync(file, 'utf8'));
    return { cert, key: keyText, certFile, keyFile, serial: made };
  };
  return { file: path('ca.pem'), pem: readFileSync(path('ca.pem'), 'utf8'), issue };
}
