// A phone on JsSIP, as small as it can be: what index-custom.html takes the place of.
import { serverAddress } from './address.js';

const { JsSIP } = window;
const element = (id) => document.getElementById(id);
const parameters = new URLSearchParams(location.search);
const media = { mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [] } };

let ua;
let session;

const status = (text) => { element('status').textContent = text; };

function show() {
  const incoming = session?.direction === 'incoming' && !session.isEstablished();
  const established = Boolean(session?.isEstablished());
  element('call').disabled = !ua?.isRegistered() || Boolean(session);
  element('answer').disabled = !session || !incoming;
  element('hangup').disabled = !session;
  for (const id of ['hold', 'mute', 'digits']) element(id).disabled = !established;
  element('hold').ariaPressed = Boolean(established && session.isOnHold().local);
  element('mute').ariaPressed = Boolean(established && session.isMuted().audio);
}

function follow(next) {
  if (session) return next.terminate({ status_code: 486 });
  session = next;
  const hear = (pc) => pc.addEventListener('track', ({ streams: [stream] }) => { element('remote').srcObject = stream; });
  if (session.connection) hear(session.connection);
  else session.on('peerconnection', ({ peerconnection }) => hear(peerconnection));
  // else a call waits until the browser has gathered every candidate
  session.on('icecandidate', ({ ready }) => ready());
  const tell = (text) => () => (status(text), show());
  session.on('progress', tell(session.direction === 'incoming' ? `${session.remote_identity.uri.user} calls` : 'Ringing…'));
  session.on('confirmed', tell('Connected'));
  for (const event of ['hold', 'unhold', 'muted', 'unmuted']) session.on(event, show);
  for (const event of ['ended', 'failed']) {
    session.on(event, ({ cause }) => {
      session = undefined;
      tell(`The call is over: ${cause}`)();
    });
  }
  show();
}

element('server').value = serverAddress();
element('domain').value = parameters.get('domain') ?? '127.0.0.1';
element('dn').value = parameters.get('dn') ?? '';
if (!JsSIP) status('JsSIP is not here: this page is served with it by "make demo-asterisk".');
element('sign-in').addEventListener('submit', (event) => {
  event.preventDefault();
  if (!JsSIP) return;
  ua?.stop();
  ua = new JsSIP.UA({
    sockets: [new JsSIP.WebSocketInterface(element('server').value)],
    uri: `sip:${element('dn').value.trim()}@${element('domain').value.trim()}`,
    password: element('password').value,
  });
  ua.on('registered', () => (status(`Signed in as ${element('dn').value}`), show()));
  ua.on('registrationFailed', ({ cause }) => (status(`Signing in failed: ${cause}`), show()));
  ua.on('disconnected', () => (status('Connection lost'), show()));
  ua.on('newRTCSession', (made) => follow(made.session));
  ua.start();
});
element('dialer').addEventListener('submit', (event) => {
  event.preventDefault();
  ua.call(`sip:${element('number').value.trim()}@${ua.configuration.uri.host}`, media);
});
element('answer').addEventListener('click', () => session.answer(media));
element('hangup').addEventListener('click', () => session.terminate());
element('hold').addEventListener('click', () => (session.isOnHold().local ? session.unhold() : session.hold()));
element('mute').addEventListener('click', () => (session.isMuted().audio ? session.unmute() : session.mute()));
element('digits').addEventListener('input', ({ target }) => {
  if (target.value) session.sendDTMF(target.value);
  target.value = '';
});
