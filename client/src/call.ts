import { Emitter } from './emitter.js';
import { RtcJsonError } from './error.js';
import type { CallEnded, CallMessages, CallSnapshot, Direction, EndReason, IncomingCall, ProgressState, Requests } from './messages.js';
import type { CallOptions, Phone } from './rtc-json.js';

/**
 * Where a call stands. `new`: the microphone is being opened, nothing was sent. `ending`: hung up here, the server has
 * not confirmed it yet; the media is off already.
 */
export type CallState = 'new' | ProgressState | 'established' | 'ending' | 'ended';

/** How a call ended. */
export interface CallEnd extends CallEnded {
  /** The refusal of the server, or the fault on this side, that ended it. */
  error?: RtcJsonError;
}

/** Events of a call: its own, and the server's messages about it after they took effect. */
export interface CallEvents extends Omit<CallMessages, 'callEnded'> {
  state: CallState;
  /** The far side's sound; also in {@link Call.remoteStream}. */
  stream: MediaStream;
  /** Comes exactly once, after the state `ended`. */
  ended: CallEnd;
}

/** Who calls whom. */
type Party = Pick<Call, 'from' | 'to' | 'displayName' | 'headers'>;

/** What a message about a call may carry. */
type CallPayload = Partial<
  Omit<CallEnded & IncomingCall, 'callId'> & {
    state: CallSnapshot['state'];
    answerNeeded: boolean;
    candidate: RTCIceCandidateInit | null;
  }
> & { callId: string };

/**
 * One call. {@link Phone.call} makes outbound calls, the event `call` of {@link Phone} brings inbound ones: `answer` or
 * `hangup` those. Whatever this class does not do about the media can be done on {@link pc}.
 */
export class Call extends Emitter<CallEvents> {
  /** The server's name for the call; empty until the server has given one. */
  id = '';
  readonly from!: string;
  readonly to!: string;
  /** The caller's name, if one was given. */
  readonly displayName?: string;
  /** Header fields of the INVITE that the server lets through. */
  readonly headers?: Readonly<Record<string, string>>;
  state: CallState;
  /** The browser's connection. */
  readonly pc: RTCPeerConnection;
  remoteStream?: MediaStream;
  /** `Date.now()` at the answer. */
  answeredAt?: number;
  /** Resolves when the call is over; never rejects. */
  readonly ended: Promise<CallEnd>;

  /** @internal */
  _phone: Phone;
  /** @internal id of the `call` request */
  _request?: string;
  /** @internal */
  _settleEnded!: (end: CallEnd) => void;
  /** @internal resolves when the server's name for the call is known */
  _known: Promise<void>;
  /** @internal */
  _settleKnown!: () => void;
  /** @internal resolves when the far side needs our candidates and the server can take them */
  _reached: Promise<void>;
  /** @internal */
  _settleReached!: () => void;
  /** @internal the last job on `pc`; the next one waits for it */
  _queue: Promise<unknown> = Promise.resolve();
  /** @internal the microphone, if this call opened it */
  _stream?: MediaStream;
  /** @internal */
  _answering?: Promise<void>;
  /** @internal */
  _error?: RtcJsonError;

  /** @internal `party` becomes part of the call */
  constructor(
    phone: Phone,
    readonly direction: Direction,
    party: Party,
  ) {
    super();
    Object.assign(this, party);
    this._phone = phone;
    this.state = direction === 'in' ? 'ringing' : 'new';
    this.ended = new Promise((settle) => (this._settleEnded = settle));
    this._known = new Promise((settle) => (this._settleKnown = settle));

    this._reached = new Promise((settle) => (this._settleReached = settle));

    const { RTCPeerConnection: Connection = RTCPeerConnection, iceServers = [] } = phone._options;
    const pc = (this.pc = new Connection({ iceServers: [...iceServers, ...(phone.registration?.iceServers ?? [])] }));
    pc.ontrack = ({ streams: [stream], track }) =>
      this._emit('stream', (this.remoteStream = stream ?? new MediaStream([track])));
    pc.onicecandidate = ({ candidate }) =>
      this._reached.then(() => phone._send('iceCandidate', { callId: this.id, candidate }));
    phone.calls.add(this);
  }

  /**
   * Takes an inbound call. Resolves when the server has taken the answer.
   *
   * @throws RtcJsonError without a microphone (the call goes on ringing), or when the server refuses (the call ends)
   */
  answer(): Promise<void> {
    return (this._answering ??= this._answer());
  }

  /**
   * Ends the call, refuses it or takes it back, whatever state it is in. The media stops at once.
   *
   * @param reason `user_hangup`, or for a ringing inbound call `busy` or `declined`
   */
  hangup(reason = 'user_hangup'): Promise<CallEnd> {
    if (!this.id && !this._request) this._end('cancelled');
    else if (!this._over) {
      this._setState('ending');
      this._release();
      this._known
        .then(() => this._phone._request('hangup', { callId: this.id, reason }))
        // the server does not know the call any more
        .catch(() => this._end('normal_clearing'));
    }
    return this.ended;
  }

  /** @internal */
  async _dial(options: CallOptions): Promise<void> {
    try {
      await this._openMicrophone();
      await this._start('call', { ...options, to: this.to });
    } catch (error) {
      this._error = asError(error);
      // a call that has a name gets its `callEnded` as well
      if (!this.id) this._end(this._over ? 'cancelled' : this._error.code ? 'call_rejected' : 'media_error');
    }
  }

  /** @internal */
  async _answer(): Promise<void> {
    try {
      await this._openMicrophone();
    } catch (error) {
      // it may be plugged in yet
      this._answering = undefined;
      throw error;
    }
    try {
      await this._start('answer', { callId: this.id });
      this._setState('established');
    } catch (error) {
      throw this._fail(error);
    }
  }

  /** @internal a message of the server about this call; they take effect in the order in which they came */
  _receive(type: keyof CallEvents | 'callEnded' | 'incomingCall', payload: CallPayload): void {
    this.id ||= payload.callId;
    this._settleKnown();
    this._run(async () => {
      const { pc } = this;
      const { sdp, candidate, answerNeeded } = payload;
      if (type === 'callEnded') return this._end(payload.reason!, payload);
      if (this._over) return;
      const offer = answerNeeded || type === 'incomingCall';
      // (a snapshot or a retry can bring an answer a second time)
      if (sdp && (offer || /local-offer|pranswer/.test(pc.signalingState))) {
        await pc.setRemoteDescription({ type: offer ? 'offer' : type === 'callProgress' ? 'pranswer' : 'answer', sdp });
      }
      this._trickle();
      if (answerNeeded) this._start('answer', { callId: this.id }).catch((error) => this._fail(error));
      // one bad candidate is no reason to lose the call
      if (candidate) await pc.addIceCandidate(candidate).catch(() => {});
      if (type === 'callAccepted') this._setState('established');
      if (type === 'callProgress' && this.state !== 'established') this._setState(payload.state as ProgressState);
      this._emit(type as keyof CallEvents, payload as never);
    }).catch((error) => this._fail(error));
  }

  /** @internal */
  _end(reason: EndReason, payload?: object): void {
    if (this.state === 'ended') return;
    this._release();
    this._phone.calls.delete(this);
    this._emit('state', (this.state = 'ended'));
    const duration = ((Date.now() - this.answeredAt!) / 1000) | 0;
    const error = this._error;
    const end: CallEnd = { callId: this.id, reason, duration, code: error?.code, ...payload, error };
    this._emit('ended', end);
    this._settleEnded(end);
  }

  /** @internal the media cannot work */
  _fail(cause: unknown): RtcJsonError {
    this._error ??= asError(cause);
    this.hangup('media_error');
    return this._error;
  }

  /** @internal */
  get _over(): boolean {
    return /^end/.test(this.state);
  }

  /** @internal */
  _setState(state: CallState): void {
    if (this._over || this.state === state) return;
    this._emit('state', (this.state = state));
    if (state === 'established') this.answeredAt = Date.now();
  }

  /** @internal one job after the other: a description must be in place before the next message acts on it */
  _run<T>(job: () => Promise<T>): Promise<T> {
    const result = this._queue.then(job);
    this._queue = result.catch(() => {});
    return result;
  }

  /** @internal */
  async _openMicrophone(): Promise<void> {
    const { audio = true, codecs } = this._phone._options;
    const { pc } = this;
    let stream = audio as MediaStream;
    if (!stream.getTracks) {
      try {
        const constraints = { audio: audio as MediaTrackConstraints };
        stream = this._stream = await navigator.mediaDevices.getUserMedia(constraints);
      } catch (cause) {
        throw new RtcJsonError('no microphone', { cause, details: (cause as Error).name });
      }
    }
    this._mustLive();
    for (const track of stream.getAudioTracks()) pc.addTrack(track, stream);
    if (codecs) {
      const wanted = RTCRtpReceiver.getCapabilities('audio')!.codecs.filter((codec) => codecs.includes(codec.mimeType));
      pc.getTransceivers().forEach((transceiver) => transceiver.setCodecPreferences(wanted));
    }
  }

  /**
   * @internal sends our description, an answer if there is an offer. It leaves as soon as it is there: the server does
   * without our candidates, so nothing waits for their gathering.
   */
  async _start<T extends 'call' | 'answer'>(type: T, payload: Omit<Requests[T][0], 'sdp'>): Promise<void> {
    const { pc } = this;
    await this._run(() => pc.setLocalDescription());
    this._mustLive();
    this._request = this._phone._newId();
    const outcome = this._phone._request(type, { ...payload, sdp: pc.localDescription!.sdp } as Requests[T][0], this._request);
    this._trickle();
    await outcome;
  }

  /**
   * @internal a media server finds us by our checks. A far side that shows no address of its own, but the server's
   * placeholder only, is a browser like us, and one of the two must tell the other where it is.
   */
  _trickle(): void {
    const { trickle } = this._phone._options;
    const { remoteDescription } = this.pc;
    const hidden = remoteDescription && !/a=candidate:(?!.* 0\.0\.0\.0 9 )/.test(remoteDescription.sdp);
    if (this._request && (trickle ?? hidden)) this._known.then(this._settleReached);
  }

  /** @internal a call that was hung up while we waited must not be placed, nor keep the microphone */
  _mustLive(): void {
    if (this._over) {
      this._release();
      throw new RtcJsonError('call ended');
    }
  }

  /** @internal */
  _release(): void {
    this.pc.close();
    this._stream?.getTracks().forEach((track) => track.stop());
    // a job on a closed connection never ends (WebRTC 1.0, section 4.4.1.2): nothing may wait for it
    this._queue = Promise.resolve();
  }
}

function asError(cause: unknown): RtcJsonError {
  return cause instanceof RtcJsonError ? cause : new RtcJsonError(`${cause}`, { cause });
}
