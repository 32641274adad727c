/** What may be known of an error beside its text. */
export interface ErrorInfo {
  /** SIP status (RFC 3261, section 21); 0 when the fault is on this side. */
  code?: number;
  /** What exactly was wrong, as the server or the browser names it. */
  details?: unknown;
  /** Q.850 cause from the server, or the browser's own error (a `DOMException` of `getUserMedia`, say). */
  cause?: unknown;
  /** May the same request succeed later? By default so for 408, 429 and from 500 to 599. */
  retryable?: boolean;
}

/** The one error of this library: a refusal of the server or a fault on this side. */
export class RtcJsonError extends Error {
  readonly code: number;
  readonly details: unknown;
  override readonly cause: unknown;
  readonly retryable: boolean;

  constructor(message: string, { code = 0, details, cause, retryable }: ErrorInfo = {}) {
    super(message);
    this.name = 'RtcJsonError';
    this.code = code;
    this.details = details;
    this.cause = cause;
    this.retryable = retryable ?? /^(408|429|5..)$/.test(`${code}`);
  }
}
