#!/usr/bin/env node
/**
 * A static file server for the pages, over HTTP or HTTPS.
 *
 *     node scripts/serve.mjs --port 8443 --cert cert.pem --key key.pem [--host 127.0.0.1] DIR...
 *
 * Folders are searched in the order given. Files are read anew for every request, so an edited page shows at once.
 */
import fs from 'node:fs';
import http from 'node:http';
import https from 'node:https';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const types = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8', '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8', '.json': 'application/json', '.map': 'application/json', '.svg': 'image/svg+xml',
  '.png': 'image/png', '.ico': 'image/x-icon', '.wav': 'audio/wav', '.mp3': 'audio/mpeg', '.ogg': 'audio/ogg',
};

/** The file that a request path means, or undefined. Nothing outside of the folders, no dot files. */
function find(dirs, pathname) {
  let wanted;
  try { wanted = decodeURIComponent(pathname); } catch { return undefined; }
  if (wanted.includes('\0') || wanted.split('/').some((part) => part.startsWith('.'))) return undefined;
  for (const dir of dirs) {
    for (const name of wanted.endsWith('/') ? [`${wanted}index.html`, `${wanted}index-custom.html`] : [wanted]) {
      const file = path.join(dir, name);
      if (fs.statSync(file, { throwIfNoEntry: false })?.isFile()) return file;
    }
  }
  return undefined;
}

/**
 * @param {{ dirs: string[], port?: number, host?: string, tls?: { key: string, cert: string }, headers?: Record<string, string> }} options
 *   port: 0 for any free one; tls: PEM texts, HTTPS when given; headers: added to every answer
 * @returns {Promise<{ url: string, origin: string, port: number, close(): Promise<void> }>}
 */
export function serveFolder({ dirs, port = 0, host = '127.0.0.1', tls, headers = {} }) {
  const roots = dirs.map((dir) => path.resolve(dir));
  const answer = (request, response) => {
    for (const [name, value] of Object.entries(headers)) response.setHeader(name, value);
    if (request.method !== 'GET' && request.method !== 'HEAD') { response.writeHead(405).end(); return; }
    const file = find(roots, new URL(request.url, 'http://any').pathname);
    if (!file) { response.writeHead(404).end('not found\n'); return; }
    response.writeHead(200, {
      'content-type': types[path.extname(file)] ?? 'application/octet-stream', 'cache-control': 'no-store',
    });
    if (request.method === 'HEAD') response.end();
    else fs.createReadStream(file).on('error', () => response.destroy()).pipe(response);
  };
  const server = tls ? https.createServer(tls, answer) : http.createServer(answer);
  return new Promise((done, fail) => {
    server.once('error', fail);
    server.listen(port, host, () => {
      const bound = server.address().port;
      const origin = `${tls ? 'https' : 'http'}://${host.includes(':') ? `[${host}]` : host}:${bound}`;
      done({
        url: `${origin}/`,
        origin,
        port: bound,
        close: () => new Promise((closed) => { server.close(() => closed()); server.closeAllConnections(); }),
      });
    });
  });
}

if (process.argv[1] && fs.realpathSync(process.argv[1]) === fileURLToPath(import.meta.url)) {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: { port: { type: 'string' }, host: { type: 'string' }, cert: { type: 'string' }, key: { type: 'string' } },
  });
  const tls = values.cert && values.key
    ? { cert: fs.readFileSync(values.cert, 'utf8'), key: fs.readFileSync(values.key, 'utf8') } : undefined;
  const server = await serveFolder({ dirs: positionals.length ? positionals : ['.'], port: Number(values.port ?? 0), host: values.host, tls });
  console.log(server.url);
  for (const name of ['SIGINT', 'SIGTERM']) process.on(name, () => server.close().then(() => process.exit(0)));
}
