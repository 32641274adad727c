/**
 * A bare client of the JSON protocol: sends what it is told, right or wrong, and remembers every message in order.
 */
import net from 'node:net';
import { Duplex } from 'node:stream';
import tls from 'node:tls';
import WebSocket from 'ws';
import { recordLog } from './record.mjs';

/**
 * @typedef {{ type: string, payload: any, id: string }} Message
 * @typedef {{ dir: 'in' | 'out', at: number, raw: string | Buffer, message?: Message }} Entry
 */

// messages that carry a request's id on the way to its outcome
const intermediate = new Set(['callProgress']);

// Ids are unique over all clients: in a session that goes on with another client, an id used before would be a retry.
let lastId = 0;

/** One WebSocket. Made by `connect`. */
export class Client {
  /** @type {Entry[]} everything that went over the wire, in order */
  log = [];
  /** @type {{ code: number, reason: string } | undefined} set once the connection is gone */
  closed;
  /** Was it dropped from this side without a word? The server may not have noticed yet. */
  dropped = false;

  #socket;
  #ws;
  #used = new Set();
  #waiting = new Set();
  #closing;

  /**
   * @param {WebSocket} ws
   * @param {net.Socket} socket the TCP socket below it, also below TLS
   */
  constructor(ws, socket) {
    this.#ws = ws;
    this.#socket = socket;
    recordLog(this.log);
    ws.on('message', (data, binary) => {
      const raw = binary ? data : data.toString();
      this.#remember('in', raw);
    });
    ws.on('error', () => {}); // 'close' follows and tells all there is to know
    this.#closing = new Promise((done) => {
      ws.on('close', (code, reason) => {
        this.closed = { code, reason: reason.toString() };
        for (const waiter of [...this.#waiting]) waiter.closed();
        done(this.closed);
      });
    });
  }

  /** All messages that came, in order. @returns {Message[]} */
  get received() { return this.log.filter((e) => e.dir === 'in' && e.message).map((e) => e.message); }

  /** The local address of the TCP connection, as the server sees it. */
  get localAddress() { return `${this.#socket.localAddress}:${this.#socket.localPort}`; }

  /**
   * Sends one message and does not wait. `id` is made up when left out.
   * @param {string} type
   * @param {object} [payload]
   * @param {{ id?: string }} [options]
   * @returns {string} the id
   */
  send(type, payload = {}, { id = `r-${++lastId}` } = {}) {
    this.sendRaw(JSON.stringify({ type, payload, id }));
    return id;
  }

  /**
   * Sends a frame as it is: a text frame for a string, a binary one for a Buffer.
   * @param {string | Buffer} data
   * @param {object} [options] of ws: `fin`, `binary`, …
   */
  sendRaw(data, options = {}) {
    this.#remember('out', data);
    this.#ws.send(data, { binary: Buffer.isBuffer(data), ...options });
  }

  /**
   * Sends a request and gives its outcome: the first message with its id that ends it, `error` among them.
   * @param {string} type
   * @param {object} [payload]
   * @param {{ id?: string, ms?: number }} [options]
   * @returns {Promise<Message>}
   */
  request(type, payload = {}, { id, ms = 5000 } = {}) {
    const sent = this.send(type, payload, { id });
    return this.#take((m) => m.id === sent && !intermediate.has(m.type), ms, `outcome of ${type} ${sent}`);
  }

  /**
   * Like `request`, and throws unless the outcome is of the wanted type.
   * @param {string} type
   * @param {object} payload
   * @param {string} wanted
   * @param {{ id?: string, ms?: number }} [options]
   * @returns {Promise<any>} its payload
   */
  async expect(type, payload, wanted, options) {
    const outcome = await this.request(type, payload, options);
    if (outcome.type !== wanted) {
      throw new Error(`${type}: wanted ${wanted}, got ${JSON.stringify(outcome)}\n${this.transcript()}`);
    }
    return outcome.payload;
  }

  /**
   * Registers as an agent of the test database (password `pw` + DN) and gives the payload of `registered`.
   * @param {string} dn
   * @param {object} [more] further fields of the payload
   */
  register(dn, more = {}) {
    return this.expect('register', { dn, password: `pw${dn}`, displayName: `Agent ${dn}`, ...more }, 'registered');
  }

  /**
   * The first message of this type (and for which `accept` holds) that nobody has been given yet, also one that came
   * earlier. Each message is given out once.
   * @param {string} type
   * @param {(payload: any, message: Message) => boolean} [accept]
   * @param {number} [ms]
   * @returns {Promise<any>} its payload
   */
  async waitFor(type, accept = () => true, ms = 5000) {
    const message = await this.#take((m) => m.type === type && accept(m.payload, m), ms, type);
    return message.payload;
  }

  /**
   * Throws if a message of this type comes within `ms`.
   * @param {string} type
   * @param {number} ms
   * @param {(payload: any) => boolean} [accept]
   */
  async never(type, ms, accept = () => true) {
    let message;
    try { message = await this.#take((m) => m.type === type && accept(m.payload), ms, type); } catch { return; }
    throw new Error(`unwanted ${JSON.stringify(message)}\n${this.transcript()}`);
  }

  /** Closes in good order, and waits for it. */
  async close(code = 1000, reason = '') {
    this.#ws.close(code, reason);
    return this.#closing;
  }

  /** Waits until the connection is gone. @returns {Promise<{ code: number, reason: string }>} */
  whenClosed(ms = 5000) {
    return Promise.race([this.#closing, new Promise((_, fail) => {
      setTimeout(() => fail(new Error(`still open after ${ms} ms\n${this.transcript()}`)), ms).unref();
    })]);
  }

  /** Drops the connection with a TCP RST: no WebSocket close, no FIN. */
  rst() {
    this.dropped = true;
    this.#socket.resetAndDestroy();
    this.#ws.terminate();
  }

  /** Drops the connection with a FIN, without a WebSocket close. */
  terminate() {
    this.dropped = true;
    this.#ws.terminate();
  }

  /** Stops or starts again reading from the socket, as a frozen tab does. */
  pause() { this.#ws.pause(); }

  resume() { this.#ws.resume(); }

  /** The log as text, for error messages. SDP is shortened, passwords are left out. */
  transcript() {
    return this.log.map((e) => {
      const text = e.message
        ? JSON.stringify(e.message, (key, value) => (key === 'password' ? '…' : key === 'sdp' && value ? `<sdp ${value.length}>` : value))
        : String(e.raw).slice(0, 200);
      return `${e.dir === 'in' ? '<' : '>'} ${text}`;
    }).concat(this.closed ? [`closed ${this.closed.code} ${this.closed.reason}`] : []).join('\n');
  }

  #remember(dir, raw) {
    let message;
    try { message = JSON.parse(raw.toString()); } catch { /* a broken frame is kept as it is */ }
    const entry = { dir, at: performance.now(), raw, message };
    this.log.push(entry);
    if (dir !== 'in' || !message) return;
    // the first who waits for it gets it; those who wait have seen all earlier ones
    for (const waiter of this.#waiting) {
      if (waiter.offer(entry)) return;
    }
  }

  #take(accept, ms, what) {
    return new Promise((done, fail) => {
      const waiter = {
        offer: (entry) => {
          if (this.#used.has(entry) || !accept(entry.message)) return false;
          end();
          this.#used.add(entry);
          done(entry.message);
          return true;
        },
        closed: () => {
          end();
          fail(new Error(`${what}: the connection closed first\n${this.transcript()}`));
        },
      };
      const timer = setTimeout(() => {
        end();
        fail(new Error(`${what}: not within ${ms} ms\n${this.transcript()}`));
      }, ms);
      const end = () => {
        clearTimeout(timer);
        this.#waiting.delete(waiter);
      };
      for (const entry of this.log) {
        if (entry.dir === 'in' && entry.message && waiter.offer(entry)) return;
      }
      if (this.closed) waiter.closed();
      else this.#waiting.add(waiter);
    });
  }
}

/**
 * Opens a WebSocket (any certificate is accepted) and gives the client once it is open.
 * @param {string} url ws:// or wss://
 * @param {{ origin?: string, protocols?: string[], headers?: Record<string, string>, localAddress?: string, ms?: number }} [options]
 * @returns {Promise<Client>} fails with `error.status` when the handshake is answered with another HTTP status
 */
export function connect(url, { origin, protocols = ['sip'], headers = {}, localAddress, ms = 5000 } = {}) {
  const { hostname, port, protocol } = new URL(url);
  const socket = net.connect({ host: hostname, port: Number(port), localAddress, noDelay: true });
  const secure = protocol === 'wss:';
  const ws = new WebSocket(url, protocols, {
    origin,
    headers,
    handshakeTimeout: ms,
    perMessageDeflate: false,
    createConnection: () => (secure ? tls.connect({ socket: asStream(socket), rejectUnauthorized: false }) : socket),
  });
  const client = new Client(ws, socket);
  return new Promise((done, fail) => {
    ws.once('open', () => done(client));
    ws.once('error', fail);
    ws.once('unexpected-response', (request, response) => {
      fail(Object.assign(new Error(`handshake: HTTP ${response.statusCode}`), { status: response.statusCode }));
      request.destroy();
    });
    socket.once('error', fail);
  });
}

/**
 * The socket behind a plain stream. TLS would take a socket's handle over, and then it cannot be reset any more.
 * @param {net.Socket} socket
 */
function asStream(socket) {
  const stream = new Duplex({
    read() { socket.resume(); },
    write(chunk, encoding, done) { socket.write(chunk, encoding, done); },
    final(done) { socket.end(done); },
    destroy(error, done) { socket.destroy(); done(error); },
  });
  socket.on('data', (chunk) => { if (!stream.push(chunk)) socket.pause(); });
  socket.on('end', () => stream.push(null));
  socket.on('error', (error) => stream.destroy(error));
  socket.on('close', () => stream.destroy());
  return stream;
}
