import { Call } from './call.js';
import { Emitter } from './emitter.js';
import { RtcJsonError } from './error.js';
import type { EndReason, ErrorPayload, IncomingCall, PhoneMessages, Registered, Requests } from './messages.js';

export { Call, RtcJsonError };
export type { CallEnd, CallEvents, CallState } from './call.js';
export type { ErrorInfo } from './error.js';
export type { Handler } from './emitter.js';
export type * from './messages.js';

/** Where a phone stands. `reconnecting`: the socket is lost, calls go on, the phone comes back by itself. */
export type PhoneState = 'closed' | 'connecting' | 'registered' | 'reconnecting';

/** Events of a phone: its own, and the server's messages that belong to no call. */
export interface PhoneEvents extends PhoneMessages {
  state: PhoneState;
  /** At every registration, also after a reconnect. */
  registered: Registered;
  /** An inbound call rings. */
  call: Call;
  /** A registration that failed or could not be renewed, or an error that belongs to no request. */
  error: RtcJsonError;
}

/** What a phone needs to know. */
export interface PhoneOptions {
  /** WebSocket address of the server. */
  url: string;
  /** Directory number to register. */
  dn: string;
  password?: string;
  /** JSON Web Token whose `sub` is the DN, in place of a password. */
  token?: string;
  displayName?: string;
  /** Registration time to ask for, in seconds. */
  expires?: number;
  /** STUN and TURN servers beside those that the server names. */
  iceServers?: RTCIceServer[];
  /** What to ask the microphone for, or sound that is there already (it is left open after a call). */
  audio?: boolean | MediaTrackConstraints | MediaStream;
  /** MIME types of the codecs to offer, such as `['audio/PCMU', 'audio/telephone-event']`. Default: all of the browser's. */
  codecs?: readonly string[];
  /** Send candidates as they are found: always, never, or (the default) to a far side that shows no address of its own. */
  trickle?: boolean;
  /** Milliseconds between pings; a server silent for that long counts as lost. Default 20000. */
  keepAlive?: number;
  /** Shortest and longest wait before a reconnect, in milliseconds. Default `[250, 8000]`. */
  backoff?: readonly [number, number];
  /** In place of the browser's own. */
  WebSocket?: new (url: string, protocols: string[]) => WebSocket;
  /** In place of the browser's own. */
  RTCPeerConnection?: new (config?: RTCConfiguration) => RTCPeerConnection;
}

/** Settings of one call. */
export interface CallOptions {
  /** Name to show to the called party. */
  displayName?: string;
  /** Header fields of the INVITE, as far as the server allows them. */
  headers?: Record<string, string>;
}

/** A request without an outcome; the caller of `register` has no frame of its own. */
interface Waiting {
  frame?: string;
  resolve(outcome: unknown): void;
  reject(error: RtcJsonError): void;
}

/** Key of the caller of `register` among those who wait. */
const REGISTER = '';

/**
 * A telephone: one DN at one server.
 *
 * Life: {@link register}, then {@link call} and the event `call`, at last {@link unregister} (waits for the server) or
 * {@link close} (does not). A lost socket is opened again and the session resumed; calls survive that, requests without
 * an outcome are sent again, and what changed at the server meanwhile is made up for.
 */
export class Phone extends Emitter<PhoneEvents> {
  state: PhoneState = 'closed';
  /** The calls that are not over. Calls enter and leave it by themselves. */
  readonly calls = new Set<Call>();
  /** The last outcome of a registration. */
  registration?: Registered;

  /** @internal */
  _options: PhoneOptions;
  /** @internal */
  _socket?: WebSocket;
  /** @internal in order */
  _waiting = new Map<string, Waiting>();
  /** @internal */
  _ids = 0;
  /** @internal */
  _registering?: Promise<Registered>;
  /** @internal id of the `register` under way; each attempt has its own, a retry must not get an old outcome */
  _registerId?: string;
  /** @internal number of the last event seen */
  _last = 0;
  /** @internal attempts since the socket was lost */
  _attempts = 0;
  /** @internal the next reconnect */
  _retry?: ReturnType<typeof setTimeout>;
  /** @internal */
  _pings?: ReturnType<typeof setInterval>;
  /** @internal has anything been heard since the last ping? */
  _heard?: boolean;

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
    if (this.state === 'registered') return Promise.resolve(this.registration!);
    this._registering ??= new Promise((resolve, reject) => {
      this._waiting.set(REGISTER, { resolve: resolve as Waiting['resolve'], reject });
    });
    if (!this.registration) this._setState('connecting');
    if (!this._socket) this._connect();
    return this._registering;
  }

  /** Calls a number. Failures, too, come as the call's event `ended`. */
  call(to: string, options: CallOptions = {}): Call {
    const call = new Call(this, 'out', { from: this._options.dn, to });
    call._dial(options);
    return call;
  }

  /** Ends the registration and all calls, then closes the connection. */
  async unregister(): Promise<void> {
    await this._request('unregister', {});
  }

  /** The same without waiting (for `pagehide`). */
  close(): void {
    this._send('unregister', {});
    this._stop(new RtcJsonError('closed'), 'normal_clearing');
  }

  /** @internal */
  _newId(): string {
    return `r${++this._ids}`;
  }

  /** @internal sends if there is a session; otherwise the message is lost */
  _send(type: string, payload: object, id = this._newId()): string {
    const frame = JSON.stringify({ type, payload, id });
    if (this.state === 'registered') this._socket!.send(frame);
    return frame;
  }

  /** @internal sends now, and again after a reconnect, until the server gives an outcome */
  _request<T extends keyof Requests>(type: T, payload: Requests[T][0], id?: string): Promise<Requests[T][1]> {
    return new Promise((resolve, reject) => {
      if (!this.registration) return reject(new RtcJsonError('not registered', { code: 401 }));
      id ??= this._newId();
      const frame = this._send(type, payload, id);
      this._waiting.set(id, { frame, resolve: resolve as Waiting['resolve'], reject });
    });
  }

  /** @internal */
  _setState(state: PhoneState): void {
    if (this.state !== state) this._emit('state', (this.state = state));
  }

  /** @internal */
  _connect(): void {
    this._disconnect();
    const { url, dn, password, token, displayName, expires, keepAlive, WebSocket: Socket = WebSocket } = this._options;
    // Kamailio takes the handshake only with `sip` among the names, and answers `sip`
    const socket = (this._socket = new Socket(url, ['rtc-json', 'sip']));
    socket.onopen = () => {
      const resume = this.registration?.session;
      const payload = { dn, password, token, displayName, expires, resume, last: resume && this._last };
      socket.send(JSON.stringify({ type: 'register', payload, id: (this._registerId = this._newId()) }));
    };
    socket.onmessage = ({ data }) => socket === this._socket && this._receive(data);
    socket.onclose = () => socket === this._socket && this._lost();
    // also finds a server that takes the connection and never answers
    this._heard = true;
    this._pings = setInterval(() => {
      if (!this._heard) return this._lost();
      this._heard = false;
      this._send('ping', {});
    }, keepAlive ?? 20000);
  }

  /** @internal */
  _disconnect(): void {
    clearInterval(this._pings);
    clearTimeout(this._retry);
    const socket = this._socket;
    this._socket = undefined;
    socket?.close();
  }

  /** @internal */
  _lost(): void {
    if (!this.registration) return this._stop(new RtcJsonError('no connection', { retryable: true }));
    this._disconnect();
    this._setState('reconnecting');
    const [shortest, longest] = this._options.backoff ?? [250, 8000];
    // the random half keeps a thousand phones from coming back in the same moment
    const wait = Math.min(longest, shortest * 2 ** this._attempts++) * (0.5 + Math.random() / 2);
    this._retry = setTimeout(() => this._connect(), wait);
  }

  /** @internal */
  _stop(error: RtcJsonError, reason?: EndReason): void {
    this._disconnect();
    this._setState('closed');
    this.registration = this._registering = undefined;
    this._last = this._attempts = 0;
    this._forget(error, reason);
  }

  /** @internal the end of a session and of all that belongs to it */
  _forget(error: RtcJsonError, reason: EndReason = 'session_expired'): void {
    for (const call of this.calls) call._end(reason);
    for (const { reject } of this._waiting.values()) reject(error);
    this._waiting.clear();
  }

  /** @internal */
  _receive(data: string): void {
    const { type, payload, id } = JSON.parse(data);
    this._heard = true;
    const event = +id.split('evt-')[1];
    // (neither is true of an outcome, for which it is not a number)
    if (event) {
      // told again after a reconnect, although it had arrived
      if (event <= this._last) return;
      this._last = event;
    }
    if (id === this._registerId) return this._onRegister(type, payload);

    const error = type === 'error' && errorOf(payload);
    const waiting = type !== 'callProgress' && this._waiting.get(id);
    if (waiting) {
      this._waiting.delete(id);
      if (error) return waiting.reject(error);
      waiting.resolve(payload);
    }
    if (error) return this._emit('error', error);
    if (type === 'incomingCall') return this._ring(payload);
    if (type === 'unregistered') {
      // a server that restarts keeps its calls: come back to it
      if (payload.reason === 'shutdown') this._lost();
      else this._stop(new RtcJsonError(type, { details: payload.reason }));
    }
    if (payload.callId) this._find(payload.callId, payload.request ?? id)?._receive(type, payload);
    else this._emit(type, payload);
  }

  /** @internal */
  _find(callId: string, request?: string): Call | undefined {
    return [...this.calls].find((call) => call.id === callId || (request && call._request === request));
  }

  /** @internal */
  _ring(payload: IncomingCall): void {
    if (this._find(payload.callId)) return;
    const call = new Call(this, 'in', { to: this._options.dn, ...payload });
    call._receive('incomingCall', payload);
    this._emit('call', call);
  }

  /** @internal */
  _onRegister(type: string, payload: Registered & ErrorPayload & { reason?: string }): void {
    if (type !== 'registered') {
      const error = errorOf({ ...payload, message: payload.reason ?? payload.message ?? type });
      if (this.registration && error.retryable) return this._lost();
      this._stop(error);
      return this._emit('error', error);
    }
    this._waiting.get(REGISTER)?.resolve(payload);
    this._waiting.delete(REGISTER);
    const resumed = this.registration?.session === payload.session;
    this.registration = payload;
    this._registering = undefined;
    this._attempts = 0;
    this._setState('registered');
    if (!resumed) {
      this._last = 0;
      this._forget(new RtcJsonError('session expired'));
    }
    // make our calls agree with the server's
    const gone = new Set([...this.calls].filter((call) => call.id));
    for (const snapshot of payload.calls ?? []) {
      const call = this._find(snapshot.callId, snapshot.request);
      gone.delete(call!);
      if (snapshot.state === 'incoming') this._ring(snapshot);
      else call?._receive(snapshot.state === 'established' ? 'callAccepted' : 'callProgress', snapshot);
    }
    for (const { frame } of this._waiting.values()) this._socket!.send(frame!);
    // what was missed comes before the outcome of this, and says better why a call is gone
    if (gone.size) this._request('ping', {}).then(() => gone.forEach((call) => call._end('network_error')), () => {});
    this._emit('registered', payload);
  }
}

function errorOf(payload: ErrorPayload): RtcJsonError {
  return new RtcJsonError(payload.message, payload);
}
