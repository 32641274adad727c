import { Call, type Microphone } from './call.js';
import { Emitter } from './emitter.js';
import { asError, RtcJsonError } from './error.js';
import type { CallSnapshot, Challenge, DigestAnswer, EndReason, IncomingCall, PhoneMessages, Registered, Requests } from './messages.js';

export { Call, RtcJsonError };
export type { CallEnd, CallEvents, CallState, Microphone } from './call.js';
export type { ErrorInfo } from './error.js';
export type { Handler } from './emitter.js';
export type * from './messages.js';

/** Where a phone stands. `reconnecting`: the socket is lost, calls go on, the phone comes back by itself. */
export type PhoneState = 'closed' | 'connecting' | 'registered' | 'reconnecting';

/** Events of a phone: its own, and the server's messages that belong to no call. */
export interface PhoneEvents extends PhoneMessages {
  state: PhoneState;
  /** An inbound call rings; or a call of this page from before its reload is back (its state tells). */
  call: Call;
  /** A registration that failed or could not be renewed, or an error that belongs to no request. */
  error: RtcJsonError;
}

/** A session as `register` takes it up again: its token, and the number of the last event seen. */
export interface Session {
  resume: string;
  last: number;
}

/** What a phone needs to know. */
export interface PhoneOptions {
  /** WebSocket address of the server. */
  url: string;
  /** Directory number to register. */
  dn: string;
  password?: string;
  /** JSON Web Token whose `sub` is the DN, in place of a password; or what gives a fresh one at each connect. */
  token?: string | (() => string | Promise<string>);
  /** Answers challenges, in place of a password that the server would see: `digest()` of `rtc-json/digest`. */
  digest?: (challenge: Challenge) => DigestAnswer | Promise<DigestAnswer>;
  displayName?: string;
  /** Registration time to ask for, in seconds. */
  expires?: number;
  /** Settings of the connections; `iceServers` in it take the place of those that the server names. */
  rtc?: RTCConfiguration;
  /** What to ask the microphone for, or a sound that is there already. */
  audio?: Microphone;
  /** The codecs to offer, by their MIME types. Default: PCMU and telephone-event. */
  codecs?: RegExp;
}

/** How long to wait for something. */
export interface RequestOptions {
  signal?: AbortSignal;
}

/** Settings of one call. Its `signal` hangs up while nobody has answered. */
export interface CallOptions extends RequestOptions {
  /** Name to show to the called party. */
  displayName?: string;
  /** Header fields of the INVITE, as far as the server allows them. */
  headers?: Record<string, string>;
}

/** A request without an outcome; the caller of `register` has no frame of its own. */
interface Waiting {
  _frame?: string;
  _settle(outcome: any): void;
}

/** Of the caller of `register`, among those who wait. */
const enum Key {
  register = '',
}

/**
 * A telephone: one DN at one server.
 *
 * Life: {@link register}, then {@link call} and the event `call`, at last {@link unregister} (waits for the server) or
 * {@link close} (does not). A lost socket is opened again and the session resumed; calls survive that, requests without
 * an outcome are sent again, and what changed at the server meanwhile is made up for.
 */
export class Phone extends Emitter<PhoneEvents> {
  state: PhoneState = 'closed';
  /** What calls are made of. */
  Call = Call;
  /** The calls that are not over. Calls enter and leave it by themselves. */
  readonly calls = new Set<Call>();
  /** The last outcome of a registration. */
  declare registration?: Registered;

  /** @internal */
  declare _options: PhoneOptions;
  /** @internal */
  declare _socket?: WebSocket;
  /** @internal in order */
  _waiting = new Map<string, Waiting>();
  /** @internal */
  _ids = Date.now();
  /** @internal id of the last message */
  declare _id: string;
  /** @internal id of the last `register` */
  declare _registerId?: string;
  /** @internal */
  declare _registering?: Promise<Registered>;
  /** The session; another phone can go on with it. */
  declare session?: Session;
  /** @internal attempts since the socket was lost */
  _attempts = 0;
  /** @internal the next ping or reconnect */
  declare _timer?: ReturnType<typeof setTimeout>;
  /** @internal has anything been heard since the last ping? */
  declare _heard: number;

  constructor(options: PhoneOptions) {
    super();
    this._options = options;
  }

  /**
   * Connects and registers; while the phone waits to reconnect, tries at once.
   *
   * @throws RtcJsonError when the server refuses or cannot be reached; only a phone that was registered keeps trying
   */
  register(): Promise<Registered> {
    this._registering ??= new Promise((_settle) => this._waiting.set(Key.register, { _settle }));
    if (!this.registration) this._setState('connecting');
    if (!this._socket) this._connect();
    return this._registering;
  }

  /** Calls a number. Failures, too, come as the call's event `ended`. */
  call(to: string, options?: CallOptions): Call {
    return new this.Call(this, { direction: 'out', to, state: 'new', from: this._options.dn }, { ...options, to });
  }

  /** Ends the registration and all calls, then closes the connection. */
  unregister(): Promise<Requests['unregister'][1]> {
    return this.request('unregister', {});
  }

  /** The same without waiting. */
  close(): void {
    this._send('unregister');
    this._stop(new RtcJsonError('closed'), 'normal_clearing');
  }

  /** Sends a request now, and again after a reconnect, until the server gives an outcome. */
  request<T extends keyof Requests>(type: T, payload: Requests[T][0], { signal }: RequestOptions = {}): Promise<Requests[T][1]> {
    return new Promise((_settle) => {
      signal?.throwIfAborted();
      // (the server remembers as many outcomes for those who ask again)
      if (!this.session || this._waiting.size > 15) throw new RtcJsonError('not now', { code: this.session ? 429 : 401 });
      const _frame = this._send(type, payload);
      const id = this._id;
      this._waiting.set(id, { _frame, _settle });
      signal?.addEventListener('abort', () => this._waiting.delete(id) && _settle(Promise.reject(signal.reason)));
    });
  }

  /** @internal sends if there is a session; otherwise the message is lost */
  _send(type: string, payload: object = {}): string {
    // a page that was reloaded must not use an id again: the server would take it for a retry
    const frame = JSON.stringify({ type, payload, id: (this._id = this._ids++ + '') });
    if (this.state === 'registered') this._socket!.send(frame);
    return frame;
  }

  /** @internal */
  _connect(): void {
    this._disconnect();
    // Kamailio takes the handshake only with `sip` among the names, and answers `sip`
    const socket = (this._socket = new WebSocket(this._options.url, ['rtc-json', 'sip']));
    socket.onopen = () => this._authenticate();
    socket.onmessage = ({ data }) => socket === this._socket && this._receive(data);
    socket.onclose = () => socket === this._socket && this._lost();
    // also finds a server that takes the connection and never answers
    this._heard = 1;
    this._timer = setInterval(() => (this._heard-- ? this._send('ping') : this._lost()), 20000);
  }

  /** @internal */
  async _authenticate(challenge?: Challenge): Promise<void> {
    const { dn, password, token, displayName, expires, digest } = this._options;
    try {
      const frame = this._send('register', {
        dn,
        password,
        token: await ((token as Function | undefined)?.call?.(0) ?? token),
        digest: challenge && (await digest!(challenge)),
        displayName,
        expires,
        ...this.session,
      });
      this._socket!.send(frame);
      this._registerId = this._id;
    } catch (cause) {
      this._lost(asError(cause));
    }
  }

  /** @internal */
  _disconnect(): void {
    clearTimeout(this._timer);
    this._socket?.close();
    this._socket = undefined;
  }

  /** @internal */
  _lost(error = new RtcJsonError('lost', { retryable: true })): void {
    if (!this.session) return this._stop(error);
    this._disconnect();
    this._setState('reconnecting');
    // (by chance, so that a thousand phones do not come back in the same moment)
    this._timer = setTimeout(() => this._connect(), Math.random() * Math.min(4000, 500 * 2 ** this._attempts++));
  }

  /** @internal */
  _stop(error: RtcJsonError, reason?: EndReason): void {
    this._disconnect();
    this._setState('closed');
    this.registration = this._registering = this.session = undefined;
    this._forget(error, reason);
  }

  /** @internal the end of a session and of all that belongs to it */
  _forget(error: RtcJsonError, reason: EndReason = 'session_expired'): void {
    this.calls.forEach((call) => call._end(reason));
    this._waiting.forEach(({ _settle }) => _settle(Promise.reject(error)));
    this._waiting.clear();
  }

  /** @internal */
  _receive(data: string): unknown {
    const { type, payload, id } = JSON.parse(data);
    this._heard = 1;
    const event = +id.split('-')[1];
    // told again after a reconnect, although it had arrived
    if (event <= this.session?.last!) return;
    // (an outcome has no number)
    if (event) this.session!.last = event;
    // (also comes by itself, with fresh `iceServers`)
    if (id === this._registerId || type === 'registered') return this._onRegister(type, payload);

    const failed = type === 'error';
    const value = failed ? new RtcJsonError(payload.message, { request: id, ...payload }) : payload;
    const waiting = type !== 'callProgress' && this._waiting.get(id);
    if (waiting) {
      this._waiting.delete(id);
      waiting._settle(failed ? Promise.reject(value) : value);
    }
    if (type === 'unregistered') {
      // a server that restarts keeps its calls: come back to it
      if (payload.reason === 'shutdown') this._lost();
      else this._stop(new RtcJsonError(payload.reason));
    }
    if (type === 'challenge') this._prove(payload);
    if (type === 'incomingCall') this._ring(payload);
    else if (payload.callId && !failed) this._find(payload.callId, payload.request ?? id)?._receive(type, payload);
    else if (!waiting) this._emit(type, value);
  }

  /** @internal */
  async _prove(challenge: Challenge): Promise<void> {
    this.request('digest', { callId: challenge.callId, digest: await this._options.digest!(challenge) }).catch(() => {});
  }

  /** @internal */
  _find(callId: string, request = callId): Call | undefined {
    return [...this.calls].find((call) => call.id === callId || call._request === request);
  }

  /** @internal */
  _ring({ hold, ...payload }: IncomingCall & Partial<CallSnapshot>): void {
    if (this._find(payload.callId)) return;
    new this.Call(this, { direction: 'in', to: this._options.dn, ...payload, state: 'ringing' })._receive('incomingCall', payload);
  }

  /** @internal */
  _onRegister(type: string, payload: any): unknown {
    if (type === 'challenge') return this._authenticate(payload);
    if (type !== 'registered') {
      const error = new RtcJsonError(payload.reason ?? payload.message, payload);
      if (this.session && error.retryable) return this._lost();
      this._stop(error);
      return this._emit('error', error);
    }
    this._waiting.get(Key.register)?._settle(payload);
    this._waiting.delete(Key.register);
    if (this.session?.resume !== payload.session) {
      this._forget(new RtcJsonError('session_expired'));
      this.session = { resume: payload.session, last: 0 };
    }
    this.registration = payload;
    this._attempts = 0;
    this._setState('registered');
    payload.calls.forEach((snapshot: any) => snapshot.state === 'incoming' && this._ring(snapshot));
    this._waiting.forEach(({ _frame }) => this._socket!.send(_frame!));
  }
}
