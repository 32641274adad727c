import type { Phone } from './rtc-json.js';

/** Milliseconds that a server has to take the connection: a machine that is gone refuses nothing, it is silent. */
const PATIENCE = 4000;
/** Milliseconds after which what has happened to a call at one server is known to the others. */
const SETTLED = 500;

/**
 * Lets a phone use any of several servers that know each other's agents (`node_secret` of the module). A lost connection is
 * tried again once at the same server, then at the others in turn, where the session and its calls go on. A server that is
 * to become empty (`notice`, `draining`) is left half a second after it said so, when no call is being set up: one that is answered goes with the session.
 */
export function anyNode(phone: Phone, urls: readonly string[]): void {
  let at = -1;
  let stay = false;
  let leaving = false;
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
    if (state === 'registered') {
      stay = true;
      leaving = false;
    }
    if (state === 'closed') {
      clearTimeout(timer);
      leaving = false;
    }
  });
  const leave = () => {
    if (!leaving) return;
    const busy = [...phone.calls].find((call) => call.state !== 'established');
    if (busy) busy.on('state', soon);
    else {
      leaving = stay = false;
      phone._lost();
    }
  };
  const soon = () => setTimeout(leave, SETTLED);
  phone.on('notice', ({ reason }) => {
    if (reason !== 'draining' || urls.length < 2) return;
    leaving = true;
    soon();
  });
}
