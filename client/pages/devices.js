// The settings of the phone: microphone, speaker, how it rings, how it looks and what it speaks.
import { meter, play, setTonesSink } from './sounds.js';
import { change, settings } from './store.js';
import { advice, setLanguage, text } from './texts.js';

const element = (id) => document.getElementById(id);

/** What a phone asks for at each call: as the object changes, so does the next call. @type {MediaTrackConstraints} */
export const microphone = {};

const canChooseSpeaker = 'setSinkId' in HTMLMediaElement.prototype;

let endTest;

/**
 * @param {{ onMicrophone(): void, onLanguage(): void, onError(text: string): void }} handlers
 *   onMicrophone: another one is to be used from now on
 */
export function setUpSettings({ onMicrophone, onLanguage, onError }) {
  applyMicrophone();
  applySpeaker();
  applyTheme();
  setLanguage(settings.language);

  element('open-settings').addEventListener('click', open);
  element('settings').addEventListener('close', () => endTest?.());
  element('microphone').addEventListener('change', async ({ target }) => {
    change('microphone', target.value);
    await applyMicrophone();
    listen();
    onMicrophone();
  });
  element('speaker').addEventListener('change', ({ target }) => {
    change('speaker', target.value);
    applySpeaker();
  });
  element('test-speaker').addEventListener('click', () => {
    play();
    play('test');
  });
  element('ringtone').addEventListener('change', ({ target }) => change('silent', !target.checked));
  element('notifications').addEventListener('change', async ({ target }) => {
    change('quiet', !target.checked);
    if (target.checked && (await askToNotify()) === 'denied') {
      target.checked = false;
      onError(text('notificationsBlocked'));
    }
  });
  element('theme').addEventListener('change', ({ target }) => setTheme(target.value));
  element('toggle-theme').addEventListener('click', () => setTheme(isDark() ? 'light' : 'dark'));
  element('language').addEventListener('change', ({ target }) => {
    change('language', target.value);
    setLanguage(target.value);
    listDevices();
    onLanguage();
  });
  navigator.mediaDevices?.addEventListener('devicechange', () => {
    applyMicrophone();
    if (element('settings').open) listDevices();
  });

  async function listen() {
    endTest?.();
    let over;
    endTest = () => (over = true);
    try {
      const stream = await navigator.mediaDevices.getUserMedia({ audio: microphone });
      const end = meter(element('level-test'), stream);
      endTest = () => {
        end();
        stream.getTracks().forEach((track) => track.stop());
      };
      // closed while the browser asked
      if (over) endTest();
      // (the browser names the devices only to a page that has had one)
      else await listDevices();
    } catch (cause) {
      onError(advice({ code: 0, details: cause.name }));
    }
  }

  function open() {
    element('ringtone').checked = !settings.silent;
    element('notifications').checked = !settings.quiet && globalThis.Notification?.permission === 'granted';
    element('theme').value = settings.theme ?? 'system';
    element('language').value = document.documentElement.lang;
    element('speaker-choice').hidden = !canChooseSpeaker;
    listDevices();
    element('settings').showModal();
    listen();
  }
}

/** Asks the browser to let the phone notify, unless it was told not to. */
export async function askToNotify() {
  if (settings.quiet || !globalThis.Notification) return 'denied';
  return Notification.permission === 'default' ? Notification.requestPermission() : Notification.permission;
}

/** Tells a person who looks at something else. @returns {Notification | undefined} */
export function notifyOutside(title, body) {
  if (settings.quiet || !document.hidden || globalThis.Notification?.permission !== 'granted') return undefined;
  try {
    const shown = new Notification(title, { body, tag: 'rtc-json phone', requireInteraction: true });
    shown.onclick = () => {
      window.focus();
      shown.close();
    };
    return shown;
  } catch {
    // (a browser of a telephone lets only service workers do that)
    return undefined;
  }
}

async function listDevices() {
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  for (const [id, kind] of [['microphone', 'audioinput'], ['speaker', 'audiooutput']]) {
    // the system's own choice is there under a name of ours
    const list = devices.filter((device) => device.kind === kind && device.deviceId && device.deviceId !== 'default');
    const options = list.map(({ deviceId, label }, i) => new Option(label || text('device', i + 1), deviceId));
    element(id).replaceChildren(new Option(text('systemDefault'), ''), ...options);
    element(id).value = list.some(({ deviceId }) => deviceId === settings[id]) ? settings[id] : '';
  }
}

async function applyMicrophone() {
  const { microphone: id } = settings;
  // (Chromium takes the system's where another one is only wished for, so the one that is there is demanded; one that is unplugged
  // must not keep an agent from talking, and a browser that has not asked yet hides which ones there are)
  if (id) microphone.deviceId = { ideal: id };
  else delete microphone.deviceId;
  const devices = (await navigator.mediaDevices?.enumerateDevices()) ?? [];
  if (id && id === settings.microphone && devices.some(({ deviceId }) => deviceId === id)) microphone.deviceId = { exact: id };
}

function applySpeaker() {
  if (!canChooseSpeaker) return;
  // (one that is gone: the system's)
  element('remote').setSinkId(settings.speaker ?? '').catch(() => element('remote').setSinkId('').catch(() => {}));
  setTonesSink(settings.speaker ?? '');
}

const isDark = () => (settings.theme === 'dark' || settings.theme === 'light' ? settings.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches);

function setTheme(theme) {
  change('theme', theme);
  applyTheme();
}

function applyTheme() {
  document.documentElement.dataset.theme = settings.theme ?? 'system';
}
