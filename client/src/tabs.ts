import type { Phone } from './rtc-json.js';

/**
 * Lets only one tab at a time have the microphone of an agent: the tab that took or made a call last. A call that goes on in
 * another tab is put on hold there, and can be taken back, which puts this one on hold.
 *
 * The tabs agree by a Web Lock of the agent's number; a tab that closes or crashes gives it back by itself.
 */
export function shareMicrophone(phone: Phone, locks: Pick<LockManager, 'request'> = navigator.locks): () => boolean {
  const name = `rtc-json microphone ${phone._options.dn}`;
  return phone.on('call', (call) => {
    let release: (() => void) | undefined;
    const take = () => {
      if (release || call.state !== 'established' || call.held) return;
      const kept = new Promise<void>((settle) => (release = settle));
      locks
        .request(name, { steal: true }, () => kept)
        // another tab has it now
        .catch(() => {
          if (release && call.state === 'established' && !call.held) call.hold().catch(() => {});
        })
        .finally(() => (release = undefined));
    };
    const follow = () => {
      if (call.held || call.state !== 'established') release?.();
      take();
    };
    call.on('state', follow);
    call.on('callUpdated', follow);
    follow();
  });
}
