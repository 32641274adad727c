/** A self-signed certificate for 127.0.0.1 and localhost, made once and kept. */
import { execFileSync } from 'node:child_process';
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const dir = fileURLToPath(new URL('../../run/certificate/', import.meta.url));

/** Paths of the certificate and its key. @returns {{ certFile: string, keyFile: string }} */
export function certificateFiles() {
  execFileSync(fileURLToPath(new URL('../../scripts/certificate.sh', import.meta.url)), [dir]);
  return { certFile: path.join(dir, 'cert.pem'), keyFile: path.join(dir, 'key.pem') };
}

/** The same as PEM texts. @returns {{ cert: string, key: string }} */
export function certificate() {
  const { certFile, keyFile } = certificateFiles();
  return { cert: fs.readFileSync(certFile, 'utf8'), key: fs.readFileSync(keyFile, 'utf8') };
}
