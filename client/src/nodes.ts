import type { Phone } from './rtc-json.js';

/** Milliseconds that a server has to take the connection: a machine that is gone refuses nothing, it is silent. */
const PATIENCE = 4000;

/**
 * Lets a phone use any of several servers that know each other's agents (`node_secret` of the module). A lost connection is
 * tried again once at the same server, then at the others in turn, where the session and its calls go on. A server that is
 * to become empty (`notice`, `draining`) is left at once.
 */
export function anyNode(phone: Phone, urls: readonly string[]): void {
  let at = -1;
  let stay = false;
  let timer: ReturnType<typeof setTimeout>;
  phone._options = Object.defineProperty({ ...phone._options }, 'url', {
    // read for each connection
    get() {
      if (!stay) at = (at + 1) % urls.length;
      stay = false;
      clearTimeout(timer);
      timer = setTimeout(() => phone._socket?.readyState === 0 && phone._lost(), PATIENCE);
      return urls[at];
    },
  });
  phone.on('state', (state) => {
    if (state === 'registered') stay = true;
    if (state === 'closed') clearTimeout(timer);
  });
  phone.on('notice', ({ reason }) => {
    if (reason !== 'draining' || urls.length < 2) return;
    stay = false;
    phone._lost();
  });
}
