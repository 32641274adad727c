import { Emitter } from './emitter.js';
import { asError, type RtcJsonError } from './error.js';
import type { CallEnded, CallMessages, CallRequests, Direction, EndReason, IncomingCall, ProgressState, Remote, Requests } from './messages.js';
import type { Phone, RequestOptions } from './rtc-json.js';

/**
 * Where a call stands. `new`: the microphone is being opened, nothing was sent. `ending`: hung up here, the server has
 * not confirmed it yet; the media is off already.
 */
export type CallState = 'new' | ProgressState | 'established' | 'ending' | 'ended';

/** How a call ended. */
export interface CallEnd extends Omit<CallEnded, 'duration'>, Partial<Pick<CallEnded, 'duration'>> {
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
  /** @internal for those who are there when the call comes to be */
  incomingCall: IncomingCall;
}

const sleep = (ms: number) => new Promise((settle) => setTimeout(settle, ms));

/** What a message about a call may carry. */
type CallPayload = { [key: string]: any };

/** Which sound to send: what to ask the microphone for, or a sound that is there already (it is cloned). */
export type Microphone = boolean | MediaTrackConstraints | MediaStream;

/**
 * One call. {@link Phone.call} makes outbound calls, the event `call` of {@link Phone} brings inbound ones: `answer` or
 * `hangup` those. Whatever this class does not do about the media can be done on {@link pc}, and then told by
 * {@link update}.
 */
export class Call extends Emitter<CallEvents> {
  declare state: CallState;
  declare readonly direction: Direction;
  /** The server's name for the call, once it has given one. */
  declare id?: string;
  declare readonly from: string;
  declare readonly to: string;
  /** The caller's name, if one was given. */
  declare readonly displayName?: string;
  /** Header fields of the INVITE that the server lets through. */
  declare readonly headers?: Readonly<Record<string, string>>;
  /** Who sent the call on to here. */
  declare readonly diversion?: string;
  /** Who the far side is, once that is another one than at first. */
  declare remote?: Remote;
  /** On hold by this side, by the far side. */
  declare held?: boolean;
  declare remoteHold?: boolean;
  declare muted?: boolean;
  /** The browser's connection. */
  declare readonly pc: RTCPeerConnection;
  declare remoteStream?: MediaStream;
  /** `Date.now()` at the answer. */
  declare answeredAt?: number;
  /** Resolves when the call is over; never rejects. */
  readonly ended = new Promise<CallEnd>((settle) => this.on('ended', settle));

  /** @internal */
  declare _phone: Phone;
  /** @internal id of the last request that carried a description */
  declare _request?: string;
  /** @internal */
  declare _name: (id: string) => void;
  /** @internal */
  _named = new Promise<string>((settle) => (this._name = settle));
  /** @internal outcome of that request */
  declare _outcome: Promise<unknown>;
  /** @internal the last job on `pc`; the next one waits for it */
  declare _queue?: Promise<unknown>;
  /** @internal the microphone */
  declare _stream?: MediaStream;
  /** @internal */
  declare _answering?: Promise<void>;
  /** @internal */
  declare _timer?: ReturnType<typeof setTimeout>;
  /** @internal */
  declare _error?: RtcJsonError;

  /** @internal `party` becomes part of the call; `options` of one that is to be made, with its number in them */
  constructor(phone: Phone, party: object, options?: RequestOptions & { to: string }) {
    super();
    Object.assign(this, party);
    this._phone = phone;
    // (the browser opens the microphone while it makes the connection)
    if (options) this._start('call', options).catch(() => {});
    // (the registration brings `iceServers`)
    const pc = (this.pc = new RTCPeerConnection({ ...phone.registration, ...phone._options.rtc }));
    pc.ontrack = ({ track }) => this._emit('stream', (this.remoteStream = new MediaStream([track])));
    // the path is lost: after a while, unless it comes back, another one is looked for. (Another connection may have taken the place of this.)
    pc.oniceconnectionstatechange = () => {
      clearTimeout(this._timer);
      this._timer = setTimeout(() => {
        if (/^[df]/.test(this.pc.iceConnectionState) && this.state === 'established') this.update().catch(() => {});
      }, 2000);
    };
    phone.calls.add(this);
    phone._emit('call', this);
  }

  /**
   * Takes an inbound call. Resolves when the server has taken the answer. Hangs up when `signal` aborts before.
   *
   * @throws RtcJsonError without a microphone (the call goes on ringing), or when the server refuses (the call ends)
   */
  answer(options?: RequestOptions): Promise<void> {
    return (this._answering ??= this._start('answer', options));
  }

  /**
   * Ends the call, refuses it or takes it back, whatever state it is in. The media stops at once.
   *
   * @param reason `user_hangup`, or for a ringing inbound call `busy` or `declined`
   */
  hangup(reason?: string): Promise<CallEnd> {
    if (this.state === 'new') this._end('cancelled');
    if (!this._over) {
      super._setState('ending');
      this._release();
      // (an error: the server does not know the call any more)
      this.request('hangup', { reason }).catch(() => this._end('normal_clearing'));
    }
    return this.ended;
  }

  /** Puts the far side on hold, or takes it back; the microphone is off meanwhile. */
  hold(hold = true): Promise<Requests['hold'][1]> {
    this._set({ held: hold });
    return this.request('hold', { hold }).catch((error) => {
      this._set({ held: !hold });
      throw error;
    });
  }

  mute(muted = true): Promise<Requests['mute'][1]> {
    this._set({ muted });
    return this.request('mute', { muted });
  }

  /** Sends digits. @param duration milliseconds of each tone */
  async dtmf(digit: string, duration?: number): Promise<void> {
    const { mode } = await this.request('dtmf', { digit, duration });
    const dtmf = this.pc.getSenders()[0]!.dtmf;
    // (what has not been played of digits before it goes on)
    if (mode) dtmf!.insertDTMF(dtmf!.toneBuffer + digit, duration);
  }

  /** Makes a new offer with an ICE restart; by itself where the network path was lost. */
  async update(): Promise<unknown> {
    try {
      return await this._offer('update');
    } catch (error: any) {
      // (else another description has taken its place)
      if (error.request === this._request) this._receive('', { answerNeeded: false });
      if (!error.retryable || this._over) throw error;
      // such as 491: an offer of the far side has crossed ours, and goes first
      await sleep(Math.random() * 2000);
      return this.update();
    }
  }

  /** Sends a request about this call and gives its outcome. */
  async request<T extends keyof CallRequests>(type: T, payload: Omit<Requests[T][0], 'callId'>, options?: RequestOptions): Promise<Requests[T][1]> {
    return this._phone.request(type, { callId: await this._named, ...payload } as Requests[T][0], options);
  }

  /** @internal */
  async _start(type: 'call' | 'answer', { signal, ...payload }: RequestOptions = {}): Promise<void> {
    try {
      await this._openMicrophone();
      await this._offer(type, payload, { signal });
      await this._run(() => this._setState('established'));
    } catch (cause) {
      this._answering = undefined;
      const error = asError(cause);
      // a call that rings here goes on without a microphone, which may be plugged in yet
      if (this._stream || !this.id) this._error = error;
      if (!this.id) this._end(error.code ? 'call_rejected' : 'media_error');
      // (an outbound call that the server has refused gets its `callEnded`)
      else if (this._stream && (type === 'answer' || !error.code)) this.hangup();
      throw error;
    }
  }

  /** @internal */
  async _openMicrophone(): Promise<void> {
    const { audio = true, codecs = /PCMU|telephone/ } = this._phone._options;
    const stream = (this._stream = await ((audio as MediaStream).clone?.() ??
      navigator.mediaDevices.getUserMedia({ audio } as MediaStreamConstraints)));
    this._set({});
    // hung up while the browser asked: nothing may keep the microphone. (A closed connection takes no track.)
    if (this._over) this._release();
    this.pc.addTrack(stream.getTracks()[0]!, stream);
    this.pc.getTransceivers()[0]!.setCodecPreferences?.(
      RTCRtpReceiver.getCapabilities('audio')!.codecs.filter((codec) => codecs.test(codec.mimeType)),
    );
  }

  /** @internal a message of the server about this call; they take effect in the order in which they came */
  _receive(type: string, payload: CallPayload): void {
    const { pc } = this;
    const { sdp, answerNeeded } = payload;
    this._name((this.id ??= payload.callId)!);
    this._run(async () => {
      if (type === 'callEnded') return this._end(payload.reason, payload);
      if (this._over) return;
      const stable = /stable/.test(pc.signalingState);
      if (sdp) {
        const offer = answerNeeded || type === 'incomingCall';
        // the server has offered again what we said last, or the answer follows an early one
        if (stable && !offer) await pc.setLocalDescription();
        // (by an offer of theirs, one of ours that is open is rolled back)
        await pc.setRemoteDescription({ type: offer ? 'offer' : 'answer', sdp });
      } else if (answerNeeded === false && !stable) await pc.setLocalDescription({ type: 'rollback' });
      if (answerNeeded) await this._describe('answer');
      if (type === 'callUpdated') this._set({ held: payload.hold, remoteHold: payload.remoteHold, remote: payload.remote ?? this.remote });
      if (type === 'callProgress') this._setState(payload.state);
      this._emit(type as keyof CallEvents, payload as never);
    }).catch((cause) => {
      // the media cannot work
      this._error = asError(cause);
      this.hangup('media_error');
    });
  }

  /** @internal */
  _end(reason: EndReason, payload?: object): void {
    if (this.state === 'ended') return;
    this._release();
    this._phone.calls.delete(this);
    super._setState('ended');
    this._emit('ended', { callId: this.id!, reason, code: this._error?.code, ...payload, error: this._error });
  }

  /** @internal */
  get _over(): boolean {
    return /end/.test(this.state);
  }

  /** @internal what comes late cannot bring an earlier state back */
  override _setState(state: CallState): void {
    if (this._over || this.state === 'established') return;
    if (state === 'established') this.answeredAt ??= Date.now();
    super._setState(state);
  }

  /** @internal who holds a call wants to hear nothing of the other side */
  _set(flags: Partial<Call>): void {
    Object.assign(this, flags);
    this._tracks((track) => (track.enabled = !(this.held || this.remoteHold || this.muted)));
  }

  /** @internal one job after the other: a description must be in place before the next message acts on it */
  _run(job: () => unknown): Promise<unknown> {
    return (this._queue = Promise.resolve(this._queue).then(job, job));
  }

  /** @internal */
  async _offer(type: 'call' | 'answer' | 'update', payload?: object, options?: RequestOptions): Promise<unknown> {
    await this._run(() => this._describe(type, payload, options));
    return this._outcome;
  }

  /**
   * @internal a job: our next description, an answer if there is an offer, and the request that carries it. It leaves as
   * soon as it is there: the server does without our candidates, so it waits neither for their gathering nor for the
   * browser to make its connection ready.
   *
   * An ICE restart waits for the answer, but not for long: a far side that does not know of it yet would answer the first checks as
   * those of the session before, and Chromium keeps to a path that works already.
   */
  async _describe(type: 'call' | 'answer' | 'update', payload?: object, options?: RequestOptions): Promise<void> {
    const { pc } = this;
    const update = type === 'update';
    // another exchange is under way
    if (update && !/stable/.test(pc.signalingState)) throw { retryable: true };
    // (every offer after the first is one for another path)
    const description = await (/remote/.test(pc.signalingState) ? pc.createAnswer() : pc.createOffer({ iceRestart: true }));
    this._setState('trying');
    this._outcome = this._phone.request(type, { callId: this.id, ...payload, sdp: description.sdp } as never, options);
    this._request = this._phone._id;
    this._outcome.catch(() => {});
    if (update) await Promise.race([this._outcome, sleep(2000)]);
    await pc.setLocalDescription(description);
  }

  /** @internal */
  _tracks(action = (track: MediaStreamTrack): unknown => track.stop()): void {
    this._stream?.getTracks().forEach(action);
  }

  /** @internal */
  _release(): void {
    // (first: where the settings of the connection are bad, there is none)
    this._tracks();
    this.pc.close();
    // a job on a closed connection never ends (WebRTC 1.0, section 4.4.1.2): nothing may wait for it
    this._queue = undefined;
  }
}
