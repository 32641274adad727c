import type { Call, CallSnapshot, Phone, PhoneState, RtcJsonError } from './rtc-json.js';

/** What of `Storage` is used. */
export type SessionStorage = Pick<Storage, 'getItem' | 'setItem' | 'removeItem'>;

/**
 * Keeps a phone's session, and with it its calls, through a reload of the page. Call it before `register`.
 *
 * The token of the session is in `storage` from the moment in which one page goes until the next one comes, so neither a copy of
 * the tab nor a later visitor finds it. Without `storage`: `sessionStorage`, which no other tab sees.
 *
 * The next page's phone has the calls again: it opens the microphone and makes a new connection for each; every call is
 * told by the event `call` of the phone, in the state in which it is. Calls that are over meanwhile end here, too.
 */
export function keepSession(phone: Phone, storage?: SessionStorage | null): void {
  const key = `rtc-json ${phone._options.dn}`;
  try {
    storage ??= sessionStorage;
    const kept = storage.getItem(key);
    storage.removeItem(key);
    if (kept) phone.session = JSON.parse(kept);
    globalThis.addEventListener?.('pagehide', () => {
      // (a page that has signed out keeps nothing)
      if (phone.session) storage!.setItem(key, JSON.stringify(phone.session));
    });
  } catch {
    // a browser may forbid storage: then a reload ends the calls
  }
  phone.on('state', (state) => {
    if (state === 'registered') agree(phone);
  });
}

/** What not every browser has of `RTCIceTransport`. */
interface PathTeller {
  getSelectedCandidatePair?(): { local?: RTCIceCandidate } | null;
}

/** Seconds that a server may take for an answer, until it is asked again, and for a new connection. */
const PATIENCE = { answer: 2, again: 5, connect: 8 };

/**
 * Finds another path for every call, and another connection to the server, as soon as the browser is back in a network, or in another
 * one. Of the latter a browser may tell nothing, and its old connection is neither closed nor of any use: so whenever a call has heard
 * nothing for a second, the server is asked for a sign of life. A browser that has two networks changes the path by itself when one of
 * them is gone; not every far side (Asterisk) follows without a new offer.
 */
export function followNetwork(phone: Phone): void {
  let timer: ReturnType<typeof setInterval>;
  let socket: WebSocket | undefined;
  /** Ticks since the server was asked; since the socket is this one. */
  let asked = 0;
  let age = 0;
  /** Packets that a call has heard, the path of those, and which one it was at the last tick. */
  const sounds = new WeakMap<Call, { packets?: number; path?: string; way?: string }>();

  const update = (call: Call) => void call.update().catch(() => {});
  const renew = () => {
    if (!phone.session) return;
    phone._lost();
    phone.register();
    for (const call of phone.calls) if (call.state === 'established') update(call);
  };
  /** Has nothing come since the last tick? */
  const silent = async (call: Call): Promise<boolean> => {
    const { pc } = call;
    const [receiver] = pc.getReceivers();
    // (not its synchronization sources: after a new description Chromium may leave them as they were, while sound comes)
    let packets = 0;
    (await receiver?.getStats().catch(() => undefined))?.forEach((report) => (packets += (report.type === 'inbound-rtp' && report.packetsReceived) || 0));
    if (call.state !== 'established') return false;
    const { packets: last, path, way: before } = sounds.get(call) ?? {};
    const way = (receiver?.transport?.iceTransport as PathTeller | undefined)?.getSelectedCandidatePair?.()?.local?.candidate;
    // (on hold nothing need come)
    const none = !!packets && packets === last && !call.held && !call.remoteHold;
    const changed = none && path && way !== path;
    if (changed) update(call);
    sounds.set(call, { packets, way, path: changed ? undefined : none ? path : before });
    return none || /^[df]/.test(pc.iceConnectionState);
  };
  const tick = async () => {
    const quiet = (await Promise.all([...phone.calls].map(silent))).includes(true);
    if (phone.state === 'closed') return;
    if (socket !== phone._socket) asked = age = 0;
    socket = phone._socket;
    age++;
    if (phone.state === 'reconnecting') {
      // (into a network that swallows it, maybe)
      if (socket?.readyState === 0 && age > PATIENCE.connect) phone._lost();
    } else if (asked) {
      if (asked === PATIENCE.answer && !phone._heard) renew();
      asked = (asked + 1) % PATIENCE.again;
    } else if (quiet) {
      asked = 1;
      phone._heard = 0;
      phone._send('ping');
    }
  };
  const watch = (state: PhoneState) => {
    clearInterval(timer);
    if (state !== 'closed') timer = setInterval(tick, 1000);
  };
  phone.on('state', watch);
  watch(phone.state);
  globalThis.addEventListener?.('online', renew);
}

/** Makes the calls of a phone agree with those of the server. */
function agree(phone: Phone): void {
  const { calls } = phone.registration!;
  for (const call of phone.calls) {
    const snapshot = calls.find(({ callId, request }) => callId === call.id || (request && request === call._request));
    if (!snapshot) {
      // (its end may be among what was missed, and then comes first)
      if (call.id) call.hangup();
    } else {
      call.id ??= snapshot.callId;
      call._set({ remoteHold: snapshot.remoteHold });
      if (/^(trying|ringing|early|queued)$/.test(snapshot.state)) call._setState(snapshot.state as Call['state']);
    }
  }
  const known = new Set([...phone.calls].map(({ id }) => id));
  for (const snapshot of calls) if (!known.has(snapshot.callId)) takeUp(phone, snapshot);
}

/** A call of the page before. */
function takeUp(phone: Phone, snapshot: CallSnapshot): void {
  const { callId, direction, state, from, to, displayName, hold, remoteHold, muted, since } = snapshot;
  const answeredAt = state === 'established' ? Date.now() - since * 1000 : undefined;
  const call = new phone.Call(phone, { id: callId, direction, state, from, to, displayName, held: hold, remoteHold, muted, answeredAt });
  call._name(callId);
  // its connection is gone with the page, and the server's answer to the old offer is of no use
  const fail = (error: RtcJsonError) => {
    call._error = error;
    call.hangup('media_error');
  };
  const connect = (now: Call['state']) => {
    if (now === 'established') call.update().catch(fail);
  };
  call.on('callAccepted', () => call._setState('established'));
  call._openMicrophone().then(() => {
    connect(call.state);
    call.on('state', connect);
  }, fail);
}
