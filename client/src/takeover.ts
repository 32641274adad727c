import type { Call } from './rtc-json.js';

/**
 * Gives a call a new connection where the offer comes from another far side, which its fingerprint tells. The old one would
 * go on sending DTLS along the path to the far side that has left, for some seconds, until it gives that path up (Chromium).
 */
export function takeOver(call: Call, sdp: string): void {
  const { pc: old } = call;
  const known = old.remoteDescription?.sdp;
  const [print] = /a=fingerprint:\S+ \S+/.exec(sdp) ?? [''];
  if (!known || known.includes(print)) return;
  const pc = new RTCPeerConnection(old.getConfiguration());
  pc.ontrack = old.ontrack;
  pc.onicecandidate = old.onicecandidate;
  pc.oniceconnectionstatechange = old.oniceconnectionstatechange;
  for (const { track } of old.getSenders()) if (track) pc.addTrack(track, call._stream!);
  old.close();
  Object.assign(call, { pc });
}
