/** What may be known of an error beside its text. */
export interface ErrorInfo {
  /** SIP status (RFC 3261, section 21); 0 when the fault is on this side. */
  code?: number;
  /** What exactly was wrong, as the server says; the name of the browser's own error. */
  details?: unknown;
  /** Q.850 cause from the server, or the browser's own error (a `DOMException` of `getUserMedia`, say). */
  cause?: unknown;
  /** May the same request succeed later? Unless the server says so, 408, 429 and from 500 to 599. */
  retryable?: boolean;
  request?: string;
}

/** The one error of this library: a refusal of the server or a fault on this side. */
export class RtcJsonError extends Error implements ErrorInfo {
  override name = 'RtcJsonError';
  declare code: number;
  declare details?: unknown;
  declare cause?: unknown;
  declare retryable: boolean;
  /** Id of the request that was refused. */
  declare request?: string;

  constructor(message: string, info: ErrorInfo = {}) {
    super(message);
    Object.assign(this, { code: 0, retryable: /^5|408|429/.test(info.code as never) }, info);
  }
}

/** @internal */
export const asError = (cause: any): RtcJsonError =>
  cause instanceof RtcJsonError ? cause : new RtcJsonError(cause.message, { cause, details: cause.name });
