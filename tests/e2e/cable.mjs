/** A cable between the browser and Kamailio that can be cut: TCP passes through untouched, TLS and all. */
import net from 'node:net';

/** Made by `layCable`. */
export class Cable {
  /** Ends of the connections that are up, both sides of each. @type {Set<net.Socket>} */
  #ends = new Set();
  #server;
  #port;

  /** Whether new connections are reset at once. */
  down = false;

  /** How many connections were tried since the start. */
  tried = 0;

  constructor(target) {
    this.#server = net.createServer((near) => {
      this.tried += 1;
      if (this.down) { near.resetAndDestroy(); return; }
      const far = net.connect({ host: '127.0.0.1', port: target, noDelay: true });
      near.setNoDelay(true);
      for (const [one, other] of [[near, far], [far, near]]) {
        this.#ends.add(one);
        one.pipe(other);
        one.on('error', () => {});
        one.on('close', () => {
          this.#ends.delete(one);
          other.destroy();
        });
      }
    });
  }

  /** Where the browser connects to. */
  get url() { return `wss://127.0.0.1:${this.#port}/`; }

  /** Connections that are up. */
  get connections() { return this.#ends.size / 2; }

  async listen() {
    await new Promise((done, fail) => {
      this.#server.once('error', fail);
      this.#server.listen(0, '127.0.0.1', done);
    });
    this.#port = this.#server.address().port;
    this.#server.unref();
  }

  /** Resets every connection on both sides: no FIN, no close frame. New ones pass unless `down`. */
  cut() {
    for (const end of this.#ends) end.resetAndDestroy();
  }

  close() {
    this.cut();
    this.#server.close();
  }
}

/** @param {number} target port on 127.0.0.1 @returns {Promise<Cable>} */
export async function layCable(target) {
  const cable = new Cable(target);
  await cable.listen();
  return cable;
}
