// The messages of the wire, as docs/protocol.md has them. test/messages.test.mjs holds them against crates/protocol.

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

/** `early`: the far side sends sound already. `queued`: it has the call, nobody rings yet. */
export type ProgressState = 'trying' | 'ringing' | 'early' | 'queued';

/** Why a registration ended. */
export type UnregisterReason = 'requested' | 'expired' | 'replaced' | 'shutdown';

export type TransferState = 'trying' | 'ringing' | 'completed' | 'failed';
export type ConferenceState = 'joining' | 'active' | 'ended' | 'failed';
export type RecordingState = 'recording' | 'paused' | 'stopped';
export type RecordingAction = 'start' | 'stop' | 'pause' | 'resume';

/** Who called: the far side (`in`) or this side (`out`). */
export type Direction = 'in' | 'out';

/** Milliseconds from `call` to the first 18x and to the answer. */
export interface Timings {
  ringing?: number;
  answered?: number;
}

/** The far side of a call. */
export interface Remote {
  number: string;
  /** Empty when there is none. */
  displayName: string;
}

export interface IceServer {
  urls: string[];
  username?: string;
  credential?: string;
}

/** The browsers' `RTCIceCandidateInit`. */
export interface Candidate {
  candidate: string;
  sdpMid?: string | null;
  sdpMLineIndex?: number | null;
}

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
  muted?: boolean;
  recording?: RecordingState;
  /** Whole seconds since the answer. */
  since: number;
  /** Id of the `call` that it belongs to. */
  request?: string;
}

/** Answer to a {@link Challenge} (RFC 7616, section 3.4). */
export interface DigestAnswer {
  /** When it is not the DN. */
  username?: string;
  realm?: string;
  nonce: string;
  uri?: string;
  response: string;
  algorithm?: string;
  qop?: string;
  cnonce?: string;
  nc?: string;
}

/** Outcome of a registration. */
export interface Registered {
  dn: string;
  /** Seconds. */
  expires: number;
  server: string;
  /** Token with which this session is resumed. */
  session: string;
  protocol: number;
  iceServers: IceServer[];
  /** Live calls of this session, and those that ring at this DN. */
  calls: CallSnapshot[];
}

export interface RegistrationFailed {
  reason: string;
  code: number;
  /** With 429: seconds until the next try is looked at. */
  retryAfter?: number;
}

export interface Challenge {
  realm: string;
  nonce: string;
  algorithm: string;
  qop: string;
  method: string;
  uri: string;
  /** The call whose request was challenged; absent for a registration. */
  callId?: string;
}

export interface Unregistered {
  dn: string;
  reason: UnregisterReason;
}

export interface IncomingCall {
  callId: string;
  from: string;
  /** Empty when there is none. */
  displayName: string;
  /** The offer; without it the answer carries one. */
  sdp?: string;
  to?: string;
  headers?: Record<string, string>;
  diversion?: string;
}

export interface CallProgress {
  callId: string;
  state: ProgressState;
  sdp?: string;
  /** Id of the `call` that it belongs to. */
  request?: string;
}

export interface CallAccepted {
  callId: string;
  sdp: string;
}

export interface CallUpdated {
  callId: string;
  /** On hold by this side. */
  hold: boolean;
  /** On hold by the far side. */
  remoteHold: boolean;
  sdp?: string;
  answerNeeded?: boolean;
  /** Who the far side is now. */
  remote?: Remote;
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
  candidate: Candidate | null;
}

export interface TransferProgress {
  callId: string;
  state: TransferState;
  /** SIP status of the far side's attempt. */
  code?: number;
}

export interface ConferenceUpdated {
  room: string;
  callIds: string[];
  state: ConferenceState;
}

export interface RecordingUpdated {
  callId: string;
  state: RecordingState;
}

export interface TextMessage {
  from: string;
  text: string;
}

export interface ErrorPayload {
  message: string;
  code: number;
  /** Empty when there are none. */
  details: string;
  callId?: string;
  request?: string;
  cause?: number;
  retryable?: boolean;
  /** With 429: seconds until it may succeed. */
  retryAfter?: number;
}

export interface Ack {
  callId?: string;
  /** `rfc4733` as the outcome of `dtmf`: nothing was sent, the browser plays the digits. */
  mode?: string;
}

export interface Notice {
  /** A word: `draining` (connect elsewhere soon), `unreachable` (the SIP server behind this one is silent), `reachable` (it answers again). */
  reason: string;
}

/** Messages about one call that a server sends, by type. */
export interface CallMessages {
  callProgress: CallProgress;
  callAccepted: CallAccepted;
  callUpdated: CallUpdated;
  callEnded: CallEnded;
  iceCandidate: RemoteCandidate;
  transferProgress: TransferProgress;
  recordingUpdated: RecordingUpdated;
}

/** Messages of a server that belong to no call, by type. */
export interface PhoneMessages {
  unregistered: Unregistered;
  conferenceUpdated: ConferenceUpdated;
  message: TextMessage;
  notice: Notice;
}

/** All messages of a server, by type. */
export interface ServerMessages extends CallMessages, PhoneMessages {
  registered: Registered;
  registrationFailed: RegistrationFailed;
  challenge: Challenge;
  incomingCall: IncomingCall;
  error: ErrorPayload;
  ack: Ack;
  pong: object;
}

/** Requests about one call, by type: payload and outcome. */
export interface CallRequests {
  answer: [{ callId: string; sdp: string }, Ack];
  hangup: [{ callId: string; reason?: string }, CallEnded];
  hold: [{ callId: string; hold: boolean }, CallUpdated];
  mute: [{ callId: string; muted: boolean }, Ack];
  dtmf: [{ callId: string; digit: string; duration?: number }, Ack];
  update: [{ callId: string; sdp: string }, CallUpdated];
  transfer: [{ callId: string; to?: string; withCallId?: string }, Ack];
  recording: [{ callId: string; action: RecordingAction }, RecordingUpdated];
}

/** Requests of a client after `register`, by type: payload and outcome. */
export interface Requests extends CallRequests {
  unregister: [object, Unregistered];
  ping: [object, object];
  call: [{ to: string; sdp: string; displayName?: string; headers?: Record<string, string> }, CallAccepted];
  conference: [{ callIds: string[]; room?: string }, Ack];
  digest: [{ callId?: string; digest: DigestAnswer }, Ack];
  message: [{ to: string; text: string }, Ack];
}

/** All messages of a client, by type. */
export type ClientMessages = { [T in keyof Requests]: Requests[T][0] } & {
  register: {
    dn?: string;
    password?: string;
    token?: string;
    digest?: DigestAnswer;
    displayName?: string;
    expires?: number;
    resume?: string;
    last?: number;
  };
  /** Has no outcome. */
  iceCandidate: { callId: string; candidate?: Candidate | null };
};
