import type { Phone } from './rtc-json.js';

/**
 * Sends descriptions without the lines that a telephone's far side has no use for: RTP header extensions, reports for bandwidth
 * estimation, names of tracks. They are half of what a browser writes.
 */
export function lean(phone: Phone): void {
  const send = phone._send.bind(phone);
  phone._send = (type, payload: { sdp?: string } = {}) => {
    const sdp = payload.sdp?.replace(/^a=(ext|ms|rtcp(:|-[^m])|ssrc).*\r\n/gm, '');
    return send(type, sdp ? { ...payload, sdp } : payload);
  };
}
