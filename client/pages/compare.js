// The same call by JsSIP and by this client, counted at the WebSocket and measured by the clock of this page.
import { Phone } from '../dist/rtc-json.js';
import { serverAddress } from './address.js';

const { JsSIP } = window;
const element = (id) => document.getElementById(id);

/** What has gone over WebSockets of this page since it was last taken. */
let tally = { frames: 0, bytes: 0 };
const size = (data) => (typeof data === 'string' ? new Blob([data]).size : (data.byteLength ?? data.size));
const count = (data) => {
  tally.frames++;
  tally.bytes += size(data);
};
window.WebSocket = class extends WebSocket {
  constructor(...values) {
    super(...values);
    this.addEventListener('message', ({ data }) => count(data));
  }

  send(data) {
    count(data);
    super.send(data);
  }
};
const taken = () => {
  const now = tally;
  tally = { frames: 0, bytes: 0 };
  return now;
};

const after = (emitter, event, failures = []) => new Promise((settle, fail) => {
  emitter.on(event, settle);
  for (const failure of failures) emitter.on(failure, (why) => fail(new Error(why?.cause ?? why?.reason ?? failure)));
});

/** One way to make a call. `start` gives what `call` needs; `call` gives what can be waited for and done. */
const json = {
  async start({ server, dn, password }) {
    const phone = new Phone({ url: server, dn, password });
    await phone.register();
    return phone;
  },
  call(phone, number) {
    const call = phone.call(number);
    const reaches = (state) => new Promise((settle, fail) => {
      call.on('state', (now) => now === state && settle());
      call.ended.then(({ reason }) => fail(new Error(reason)));
    });
    return {
      pc: call.pc, ringing: reaches('ringing'), answered: reaches('established'), hold: () => call.hold(), hangUp: () => call.hangup(),
    };
  },
  stop: (phone) => phone.unregister(),
};

const sip = (tuned) => ({
  async start({ server, dn, password, domain }) {
    const ua = new JsSIP.UA({ sockets: [new JsSIP.WebSocketInterface(server)], uri: `sip:${dn}@${domain}`, password });
    const registered = after(ua, 'registered', ['registrationFailed', 'disconnected']);
    ua.start();
    await registered;
    return ua;
  },
  call(ua, number) {
    const session = ua.call(`sip:${number}@${ua.configuration.uri.host}`, { mediaConstraints: { audio: true, video: false }, pcConfig: { iceServers: [] } });
    if (tuned) session.on('icecandidate', ({ ready }) => ready());
    return {
      pc: session.connection,
      ringing: after(session, 'progress', ['failed']),
      answered: after(session, 'confirmed', ['failed']),
      hold: () => new Promise((settle) => session.hold({}, settle)),
      hangUp: () => {
        const over = after(session, 'ended');
        session.terminate();
        // (the event comes before the far side has confirmed)
        return over.then(() => quiet());
      },
    };
  },
  async stop(ua) {
    const gone = after(ua, 'unregistered');
    ua.unregister();
    await gone;
    ua.stop();
  },
});

const sleep = (ms) => new Promise((settle) => setTimeout(settle, ms));

/** Waits until nothing has come or gone for a while. */
async function quiet() {
  for (let before = -1; before !== tally.frames; await sleep(300)) before = tally.frames;
}

async function firstSound(pc) {
  for (;;) {
    for (const report of (await pc.getStats()).values()) if (report.type === 'inbound-rtp' && report.packetsReceived > 0) return;
    await sleep(5);
  }
}

const median = (values) => values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)];

async function measure(way, account, number, rounds) {
  const figures = {};
  const note = (name, value) => (figures[name] ??= []).push(value);
  taken();
  let start = performance.now();
  const client = await way.start(account);
  note('Signing in, ms', performance.now() - start);
  await quiet();
  const { frames, bytes } = taken();
  note('Signing in, frames', frames);
  note('Signing in, bytes', bytes);
  for (let round = 0; round < rounds; round++) {
    start = performance.now();
    const call = way.call(client, number);
    // (what is waited for later may fail earlier)
    call.answered.catch(() => {});
    await call.ringing;
    note('Click to ringing, ms', performance.now() - start);
    await call.answered;
    const answered = performance.now();
    await firstSound(call.pc);
    note('Answer to first sound, ms', performance.now() - answered);
    await quiet();
    const made = taken();
    await call.hold();
    await quiet();
    const held = taken();
    await call.hangUp();
    const ended = taken();
    note('Call, hold, hang-up: frames', made.frames + held.frames + ended.frames);
    note('Call, hold, hang-up: bytes', made.bytes + held.bytes + ended.bytes);
  }
  await way.stop(client);
  return Object.fromEntries(Object.entries(figures).map(([name, values]) => [name, median(values)]));
}

/** Bytes of a script as a server would send it, compressed by gzip. */
async function compressed(...urls) {
  let bytes = 0;
  for (const url of urls) {
    const { body } = await fetch(url);
    bytes += (await new Response(body.pipeThrough(new CompressionStream('gzip'))).arrayBuffer()).byteLength;
  }
  return bytes;
}

function show(columns) {
  const names = [...new Set(columns.flatMap((column) => Object.keys(column ?? {})))];
  element('figures').replaceChildren(...names.map((name) => {
    const row = document.createElement('tr');
    const head = Object.assign(document.createElement('th'), { scope: 'row', textContent: name });
    const [ours, ...theirs] = columns.map((column) => column?.[name]);
    const best = Math.min(...theirs.filter((value) => value !== undefined));
    const cells = [ours, ...theirs].map((value) => value?.toFixed(0) ?? '');
    if (ours !== undefined && Number.isFinite(best)) cells.push((ours / best).toFixed(2));
    row.append(head, ...cells.map((textContent) => Object.assign(document.createElement('td'), { textContent })));
    return row;
  }));
}

const status = (text) => { element('status').textContent = text; };

element('server').value = serverAddress();
if (!JsSIP) status('JsSIP is not here: this page is served with it by "make demo-asterisk".');
element('measure').disabled = !JsSIP;
element('settings').addEventListener('submit', async (event) => {
  event.preventDefault();
  element('measure').disabled = true;
  const [server, number] = [element('server').value, element('number').value.trim()];
  const account = (kind) => ({
    server, dn: element(`${kind}-dn`).value.trim(), password: element(`${kind}-password`).value,
    domain: new URLSearchParams(location.search).get('domain') ?? '127.0.0.1',
  });
  const columns = [];
  try {
    const name = 'Script, bytes by gzip';
    const theirs = await compressed('./jssip.bundle.js');
    columns.push({ [name]: await compressed('./dist/rtc-json.js') }, { [name]: theirs }, { [name]: theirs });
    const ways = [['JSON', json, 'json'], ['JsSIP as shipped', sip(false), 'sip'], ['JsSIP tuned', sip(true), 'sip']];
    // the first handshake of TLS with a server costs more than those after it, and would count for whoever comes first
    await new Promise((settle) => {
      const socket = new WebSocket(server, 'sip');
      socket.onopen = () => socket.close();
      socket.onclose = settle;
    });
    for (const [i, [title, way, kind]] of ways.entries()) {
      status(`Measuring: ${title}…`);
      Object.assign(columns[i], await measure(way, account(kind), number, Number(element('rounds').value)));
      show(columns);
    }
    status('Done.');
  } catch (error) {
    status(`It failed: ${error.message}`);
  }
  element('measure').disabled = false;
});
