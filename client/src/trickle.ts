import type { Call, Phone } from './rtc-json.js';

/**
 * Exchanges ICE candidates. Not needed toward a media server, which finds a browser by the browser's own checks; needed
 * where the far side is a browser, too: one of the two must tell the other where it is.
 *
 * @param always Send candidates to every far side. By default only to one that shows no address of its own, but the
 *   placeholder that the server puts in.
 */
export function trickle(phone: Phone, always = false): () => boolean {
  return phone.on('call', (call) => exchange(phone, call, always));
}

function exchange(phone: Phone, call: Call, always: boolean): void {
  // as long as there is no description of theirs, nobody can tell whether they need ours
  const waiting: (RTCIceCandidate | null)[] = [];
  let needed: boolean | undefined = always || undefined;
  const send = () => {
    if (!call.id || needed === undefined) return;
    for (const candidate of waiting.splice(0)) if (needed) phone._send('iceCandidate', { callId: call.id, candidate });
  };
  // (a property, so that a connection that takes the place of this one gets it, too)
  call.pc.onicecandidate = ({ candidate }) => {
    waiting.push(candidate);
    send();
  };
  // (the description as it came: that of the browser has, after a while, the candidates that came by themselves, too)
  const learn = ({ sdp }: { sdp?: string }) => {
    if (sdp) needed = always || !/a=candidate:(?!.* 0\.0\.0\.0 9 )/.test(sdp);
    send();
  };
  for (const name of ['incomingCall', 'callProgress', 'callAccepted', 'callUpdated'] as const) call.on(name, learn);
  // one bad candidate is no reason to lose the call
  call.on('iceCandidate', ({ candidate }) => void (candidate && call.pc.addIceCandidate(candidate).catch(() => {})));
}
