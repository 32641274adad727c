import type { RtcJsonError } from './rtc-json.js';

const HINTS: Record<string, string> = {
  NotAllowedError: 'The browser may not use the microphone: allow it for this page.',
  NotFoundError: 'There is no microphone: connect one.',
  NotReadableError: 'Another program has the microphone: close it.',
  OverconstrainedError: 'No microphone is as it was asked for: take another one.',
  // (without a secure origin the browser has no `mediaDevices` at all)
  TypeError: 'The microphone needs a secure page: open it by https.',
  AbortError: 'It was given up: nothing is to be done.',
  TimeoutError: 'It took too long: try again.',
  400: 'The request is malformed: look at `details`.',
  401: 'Register first, or check number and password.',
  403: 'This is not allowed: check number and rights.',
  404: 'There is no such number or call: check it.',
  408: 'Nobody answered: try again later.',
  409: 'This connection is registered for another number: unregister first.',
  413: 'The message is too long: shorten it.',
  429: 'Too much at once: wait for what is under way.',
  480: 'The far side cannot be reached now: try again later.',
  481: 'The call is over.',
  484: 'The number is incomplete: dial all of it.',
  486: 'The line is busy: try again later.',
  487: 'The call was taken back.',
  488: 'The far side cannot take this sound: look at `details`.',
  491: 'The far side changes the call at this moment: try again.',
  503: 'The server has too much to do or is being restarted: try again later.',
  603: 'The call was declined.',
};

/** What a person, or the page for one, can do about an error. */
export function hint({ code, details, retryable }: Pick<RtcJsonError, 'code' | 'details' | 'retryable'>): string {
  return (
    (code ? HINTS[code] : HINTS[`${details}`]) ??
    (retryable ? 'Try again later.' : code ? 'Check number and rights.' : 'Check the network and the microphone.')
  );
}
