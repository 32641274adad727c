import { conference, followMicrophone, message, recording, replaceMicrophone, transfer } from './control.js';
import { hint } from './hint.js';
import { lean } from './lean.js';
import { anyNode } from './nodes.js';
import * as core from './rtc-json.js';
import { followNetwork, keepSession, type SessionStorage } from './session.js';
import { stats } from './stats.js';
import { takeOver } from './takeover.js';
import { trickle } from './trickle.js';

export * from './control.js';
export * from './digest.js';
export * from './hint.js';
export * from './lean.js';
export * from './nodes.js';
export * from './session.js';
export * from './stats.js';
export * from './tabs.js';
export * from './trickle.js';
export { RtcJsonError } from './rtc-json.js';
export type * from './rtc-json.js';

/** A call with everything that this package can do to one. */
export class Call extends core.Call {
  /** See `transfer`. */
  transfer(to: string | core.Call) {
    return transfer(this, to);
  }
  /** See `recording`. */
  recording(action: core.RecordingAction) {
    return recording(this, action);
  }
  /** See `replaceMicrophone`. */
  replaceMicrophone(audio?: core.Microphone) {
    return replaceMicrophone(this, audio);
  }
  /** See `stats`. */
  stats() {
    return stats(this);
  }
  /** @internal */
  override _receive(type: string, payload: Parameters<core.Call['_receive']>[1]): void {
    // (a call that is not established yet has no far side to be left)
    if (payload.sdp && payload.answerNeeded) takeOver(this, payload.sdp);
    super._receive(type, payload);
  }
}

export interface PhoneOptions extends core.PhoneOptions {
  /** Addresses of further servers that know the agents of `url`; see `anyNode`. */
  urls?: readonly string[];
  /** Where the session is kept while the page reloads (see `keepSession`); `null`: nowhere. */
  storage?: SessionStorage | null;
  /** Send candidates to every far side (`true`), to none, or (the default) where it is needed; see `trickle`. */
  trickle?: boolean;
}

export interface PhoneEvents extends Omit<core.PhoneEvents, 'call'> {
  call: Call;
}

/** A phone with everything that this package can do, switched on. */
export class Phone extends core.Phone {
  override Call = Call;
  declare readonly calls: Set<Call>;
  declare call: (to: string, options?: core.CallOptions) => Call;
  declare on: <K extends keyof PhoneEvents>(name: K, handler: core.Handler<PhoneEvents[K]>) => () => boolean;

  constructor(options: PhoneOptions) {
    super(options);
    if (options.urls) anyNode(this, [options.url, ...options.urls]);
    if (options.storage !== null) keepSession(this, options.storage);
    if (options.trickle !== false) trickle(this, options.trickle);
    lean(this);
    followNetwork(this);
    followMicrophone(this);
  }

  /** See `conference`. */
  conference(calls: Iterable<core.Call>, room?: string) {
    return conference(this, calls, room);
  }
  /** See `message`. */
  message(to: string, text: string) {
    return message(this, to, text);
  }
}

export { hint };
