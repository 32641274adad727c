/** A bare HTTP/1.1 client: what it sends is what it was given, and connections are kept or not as asked. */
import http from 'node:http';
import net from 'node:net';

/**
 * @param {number | string} place port on 127.0.0.1, or `host:port`
 * @param {string} method
 * @param {string} target
 * @param {{ token?: string, headers?: Record<string, string>, body?: string | object, agent?: http.Agent }} [options]
 *   body: an object goes as merge patch; agent: one that keeps connections, else each request has its own
 * @returns {Promise<{ status: number, headers: http.IncomingHttpHeaders, text: string, json: any }>}
 */
export function ask(place, method, target, { token, headers = {}, body, agent = false } = {}) {
  const data = typeof body === 'object' ? JSON.stringify(body) : body;
  const all = {
    ...(token === undefined ? {} : { Authorization: `Bearer ${token}` }),
    ...(typeof body === 'object' ? { 'Content-Type': 'application/merge-patch+json' } : {}),
    ...(data === undefined ? {} : { 'Content-Length': Buffer.byteLength(data) }),
    ...headers,
  };
  const [host, port] = typeof place === 'string' ? place.split(':') : ['127.0.0.1', place];
  return new Promise((done, fail) => {
    const request = http.request({ host, port, method, path: target, headers: all, agent, timeout: 5000 }, (response) => {
      let text = '';
      response.setEncoding('utf8');
      response.on('data', (part) => { text += part; });
      response.on('error', fail);
      response.on('end', () => {
        const isJson = /json$/.test(response.headers['content-type'] ?? '') && text !== '';
        done({ status: response.statusCode, headers: response.headers, text, json: isJson ? JSON.parse(text) : undefined });
      });
    });
    request.on('timeout', () => request.destroy(new Error(`no answer to ${method} ${target}`)));
    request.on('error', fail);
    request.end(data);
  });
}

/** Sends these bytes and gives all that comes until the connection ends, or `ms` are over. @returns {Promise<{ text: string, closed: boolean }>} */
export function raw(port, bytes, { ms = 1000 } = {}) {
  return new Promise((done, fail) => {
    const socket = net.connect(port, '127.0.0.1', () => socket.write(bytes));
    let text = '';
    const end = (closed) => { clearTimeout(timer); socket.destroy(); done({ text, closed }); };
    const timer = setTimeout(() => end(false), ms);
    socket.on('data', (part) => { text += part.toString('utf8'); });
    socket.on('close', () => end(true));
    socket.on('error', (error) => (text ? end(true) : fail(error)));
  });
}
