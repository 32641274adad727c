import type { Ack, Call, Microphone, Phone, RecordingAction, RecordingUpdated } from './rtc-json.js';

/** Hands the far side on: to a number, or to the far side of another call. What becomes of it: `transferProgress`. */
export function transfer(call: Call, to: string | Call): Promise<Ack> {
  return call.request('transfer', typeof to === 'string' ? { to } : { withCallId: to.id });
}

/** Steers the recording of a call. */
export function recording(call: Call, action: RecordingAction): Promise<RecordingUpdated> {
  return call.request('recording', { action });
}

/** Puts calls together; the first of them becomes the call with the room. What becomes of it: `conferenceUpdated`. */
export function conference(phone: Phone, calls: Iterable<Call>, room?: string): Promise<Ack> {
  return phone.request('conference', { callIds: Array.from(calls, ({ id }) => id!), room });
}

/** Sends a text. */
export function message(phone: Phone, to: string, text: string): Promise<Ack> {
  return phone.request('message', { to, text });
}

/**
 * Sends the sound of another microphone, or another sound (its tracks are cloned), from now on. Nothing is said to the
 * far side, which hears no gap.
 */
export async function replaceMicrophone(call: Call, audio?: Microphone): Promise<void> {
  const before = call._stream;
  const [sender] = call.pc.getSenders();
  audio ??= call._phone._options.audio ?? true;
  const stream =
    audio instanceof Object && 'clone' in audio ? audio.clone() : await navigator.mediaDevices.getUserMedia({ audio });
  call._stream = stream;
  call._set({});
  // (hung up while the browser asked: nothing may keep the microphone)
  if (call._over) call._tracks();
  else await sender!.replaceTrack(stream.getTracks()[0]!);
  before?.getTracks().forEach((track) => track.stop());
}

/** Goes on with the browser's microphone when that of a call is unplugged. */
export function followMicrophone(phone: Phone): () => boolean {
  return phone.on('call', (call) => {
    const watch = () => {
      for (const track of call._stream?.getTracks() ?? []) {
        track.onended = () => replaceMicrophone(call).then(watch, () => {});
      }
    };
    call.on('state', watch);
  });
}
