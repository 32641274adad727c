/** Why a call ended. */
export type EndReason =
  | 'normal_clearing'
  | 'user_busy'
  | 'no_answer'
  | 'call_rejected'
  | 'cancelled'
  | 'answered_elsewhere'
  | 'unallocated_number'
  | 'transferred'
  | 'media_error'
  | 'network_error'
  | 'timeout'
  | 'not_acceptable'
  | 'service_unavailable'
  | 'session_expired'
  | 'internal_error';

/** Milliseconds from `call` to the first 18x and to the answer. */
export interface Timings {
  ringing?: number;
  answered?: number;
}

/** Who called: the far side (`in`) or this side (`out`). */
export type Direction = 'in' | 'out';

/** A live call as the server knows it, told to a browser that comes back. */
export interface CallSnapshot {
  callId: string;
  direction: Direction;
  /** `incoming`: inbound, rings. */
  state: ProgressState | 'incoming' | 'established';
  from: string;
  to: string;
  displayName?: string;
  /** Offer of a ringing inbound call, answer of an outbound one once there is one. */
  sdp?: string;
  hold: boolean;
  remoteHold: boolean;
  /** Whole seconds since the answer. */
  since: number;
  /** Id of the `call` that it belongs to. */
  request?: string;
}

/** Outcome of a registration. */
export interface Registered {
  dn: string;
  /** Seconds. */
  expires: number;
  server: string;
  /** Token with which this session is resumed. */
  session?: string;
  protocol?: number;
  iceServers?: RTCIceServer[];
  /** Live calls of this session, and those that ring at this DN. */
  calls?: CallSnapshot[];
}

export interface IncomingCall {
  callId: string;
  from: string;
  displayName?: string;
  sdp?: string;
  to?: string;
  headers?: Record<string, string>;
  diversion?: string;
}

/** `early`: the far side sends sound already. `queued`: it has the call, nobody rings yet. */
export type ProgressState = 'trying' | 'ringing' | 'early' | 'queued';

export interface CallProgress {
  callId: string;
  state: ProgressState;
  sdp?: string;
  /** Id of the `call` that it belongs to. */
  request?: string;
}

export interface CallAccepted {
  callId: string;
  sdp?: string;
}

export interface CallUpdated {
  callId: string;
  hold?: boolean;
  remoteHold?: boolean;
  sdp?: string;
  answerNeeded?: boolean;
  /** New identity of the far side. */
  remote?: { number: string; displayName: string };
}

export interface CallEnded {
  callId: string;
  reason: EndReason;
  /** Whole seconds since the answer, 0 if there was none. */
  duration: number;
  /** SIP status. */
  code?: number;
  /** Q.850 cause. */
  cause?: number;
  timings?: Timings;
}

export interface RemoteCandidate {
  callId: string;
  /** `null`: there are no more. */
  candidate: RTCIceCandidateInit | null;
}

export interface ErrorPayload {
  message: string;
  code: number;
  details?: unknown;
  callId?: string;
  request?: string;
  cause?: number;
  retryable?: boolean;
}

export interface Unregistered {
  dn: string;
  reason: 'requested' | 'expired' | 'replaced' | 'shutdown';
}

export interface Notice {
  reason: string;
}

export interface TextMessage {
  from: string;
  text: string;
}

/** Messages about one call that a server sends, by type. */
export interface CallMessages {
  callProgress: CallProgress;
  callAccepted: CallAccepted;
  callUpdated: CallUpdated;
  callEnded: CallEnded;
  iceCandidate: RemoteCandidate;
}

/** Messages of a server that belong to no call, by type. */
export interface PhoneMessages {
  unregistered: Unregistered;
  message: TextMessage;
  notice: Notice;
}

/** Requests of a client, by type: payload and outcome. */
export interface Requests {
  unregister: [object, Unregistered];
  ping: [object, object];
  call: [{ to: string; sdp: string; displayName?: string; headers?: Record<string, string> }, CallAccepted];
  answer: [{ callId: string; sdp: string }, { callId: string }];
  hangup: [{ callId: string; reason: string }, CallEnded];
}
