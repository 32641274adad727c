/** A UDP line that loses packets, doubles them and lets them overtake each other, between Kamailio and a bare SIP endpoint. */
import dgram from 'node:dgram';
import { freePort } from './ports.mjs';

/**
 * Lays the line: what the endpoint says goes through it, and it gives the line's address as its own, so that Kamailio's side does, too.
 * @param {import('../sip/peer.mjs').Peer} peer
 * @param {{ loss?: number, twice?: number, late?: number, delay?: number, random: () => number }} faults shares of all packets; delay:
 *   ms at most that a late one is behind
 */
export async function layLossyLine(peer, { loss = 0, twice = 0, late = 0, delay = 80, random }) {
  const counts = { packets: 0, lost: 0, twice: 0, late: 0 };
  const timers = new Set();
  const [near, far] = [dgram.createSocket('udp4'), dgram.createSocket('udp4')];
  await Promise.all([[near, await freePort()], [far, 0]].map(([socket, port]) => new Promise((done, fail) => {
    socket.once('error', fail);
    socket.bind(port, '127.0.0.1', done);
  })));
  const [kamailio, endpoint] = [peer.server, peer.port];
  let open = true;
  const carry = (data, socket, port) => {
    counts.packets += 1;
    if (random() < loss) { counts.lost += 1; return; }
    const times = random() < twice ? 2 : 1;
    counts.twice += times - 1;
    for (let i = 0; i < times; i += 1) {
      if (random() >= late) { socket.send(data, port, '127.0.0.1'); continue; }
      counts.late += 1;
      const timer = setTimeout(() => { timers.delete(timer); if (open) socket.send(data, port, '127.0.0.1'); }, 1 + random() * delay);
      timers.add(timer);
    }
  };
  near.on('message', (data) => carry(data, far, endpoint));
  far.on('message', (data) => carry(data, near, kamailio));
  peer.server = far.address().port;
  peer.port = near.address().port;
  peer.uri = `sip:127.0.0.1:${peer.port}`;
  return {
    counts,
    async close() {
      open = false;
      for (const timer of timers) clearTimeout(timer);
      await Promise.all([near, far].map((socket) => new Promise((done) => { socket.close(done); })));
    },
  };
}
