import type { Call } from './rtc-json.js';

/** How a call sounds. */
export interface CallStats {
  /** Seconds from here to the far side and back; undefined until the far side has reported. */
  roundTripTime?: number;
  /** Seconds by which packets come too early or too late. */
  jitter: number;
  /** Share of the packets that did not come, 0 to 1, since the call before of `stats` for this call (else since its beginning). */
  loss: number;
  packetsReceived: number;
  packetsSent: number;
  /** Share of the packets sent that the far side says it did not get. */
  remoteLoss?: number;
  /** Estimated mean opinion score by the E-model (ITU-T G.107) with PCMU: 1 (bad) to 4.4 (as good as a telephone gets). */
  mos: number;
}

const before = new WeakMap<Call, { lost: number; received: number }>();

/** What the browser has measured of a call; undefined until sound has come. */
export async function stats(call: Call): Promise<CallStats | undefined> {
  let inbound: RTCInboundRtpStreamStats | undefined;
  let remote: { roundTripTime?: number; fractionLost?: number } | undefined;
  let pair: RTCIceCandidatePairStats | undefined;
  let packetsSent = 0;
  (await call.pc.getStats()).forEach((report) => {
    if (report.type === 'inbound-rtp') inbound = report;
    if (report.type === 'remote-inbound-rtp') remote = report;
    if (report.type === 'outbound-rtp') ({ packetsSent } = report);
    if (report.type === 'candidate-pair' && report.nominated) pair = report;
  });
  if (!inbound) return undefined;
  const { packetsLost: lost = 0, packetsReceived: received = 0, jitter = 0 } = inbound;
  const last = before.get(call) ?? { lost: 0, received: 0 };
  before.set(call, { lost, received });
  const missing = Math.max(0, lost - last.lost);
  const loss = missing / (missing + received - last.received || 1);
  const roundTripTime = remote?.roundTripTime ?? pair?.currentRoundTripTime;
  return {
    roundTripTime,
    jitter,
    loss,
    packetsReceived: received,
    packetsSent,
    remoteLoss: remote?.fractionLost,
    mos: mos({ roundTripTime, jitter, loss }),
  };
}

/**
 * Mean opinion score by the E-model (ITU-T G.107): the delay factor as Cole and Rosenbluth have put it (2001), the loss
 * factor of G.113 for G.711 with loss concealment (Ie 0, Bpl 25.1), random loss.
 */
export function mos({ roundTripTime = 0, jitter, loss }: Pick<CallStats, 'roundTripTime' | 'jitter' | 'loss'>): number {
  // one way, in milliseconds; a jitter buffer holds about twice the jitter, and a packet 20 ms
  const delay = roundTripTime * 500 + jitter * 2000 + 20;
  const delayFactor = 0.024 * delay + 0.11 * Math.max(0, delay - 177.3);
  const percent = loss * 100;
  const lossFactor = (95 * percent) / (percent + 25.1);
  const rating = Math.min(100, Math.max(0, 93.2 - delayFactor - lossFactor));
  return Math.min(4.5, Math.max(1, 1 + 0.035 * rating + 7e-6 * rating * (rating - 60) * (100 - rating)));
}
