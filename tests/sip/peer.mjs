/**
 * A bare SIP endpoint over UDP: sends what it is told, right or wrong, and remembers every message. For what SIPp cannot
 * do: two things at the same instant, random pauses, a registrar that checks digests.
 */
import dgram from 'node:dgram';
import fs from 'node:fs';
import { checkDigest, digestFields } from '../common/digest.mjs';
import { scenarioDir } from '../common/sipp.mjs';

const template = fs.readFileSync(`${scenarioDir}/parts/webrtc.sdp`, 'utf8');
let unique = 0;
const fresh = (what) => `${what}${process.pid}x${(unique += 1)}${Math.random().toString(36).slice(2, 8)}`;

/**
 * SDP of a far side that speaks DTLS-SRTP, the same that the SIPp scenarios send.
 * @param {{ setup?: string, version?: number, direction?: string, address?: string, ufrag?: string, candidates?: string[] }} [options]
 *   address: in `c=`; ufrag: another one is an ICE restart; candidates: lines in place of the one that it has
 */
export const farSdp = ({ setup = 'actpass', version = 1, direction = 'sendrecv', address = '127.0.0.1', ufrag = 'sipp', candidates } = {}) => template
  .replace('c=IN IP4 [media_ip]', `c=IN IP4 ${address}`)
  .replaceAll(/\[(?:local|media)_ip\]/g, '127.0.0.1').replace('[media_port]', '40000')
  .replace('@profile@', 'UDP/TLS/RTP/SAVPF')
  .replace('@SETUP@', setup).replace('@VERSION@', String(version)).replace('@DIRECTION@', direction)
  .replace('ice-ufrag:sipp', `ice-ufrag:${ufrag}`)
  .replace(/^(a=candidate:.*)$/m, (line) => (candidates ?? [line]).join('\n'))
  .replaceAll(/\r?\n/g, '\r\n').replaceAll(/(?:\r\n){2,}/g, '\r\n');

/** One SIP message. */
export class SipMessage {
  constructor(text) {
    const end = text.indexOf('\r\n\r\n');
    const [start, ...lines] = text.slice(0, end).split('\r\n');
    this.text = text;
    this.start = start;
    this.body = text.slice(end + 4);
    this.lines = lines;
    const status = /^SIP\/2\.0 (\d{3})/.exec(start);
    this.status = status ? Number(status[1]) : undefined;
    [this.method, this.uri] = status ? [undefined, undefined] : start.split(' ');
  }

  /** Values of all headers of that name. @param {string} name */
  headers(name) {
    const head = `${name.toLowerCase()}:`;
    return this.lines.filter((l) => l.toLowerCase().startsWith(head)).map((l) => l.slice(head.length).trim());
  }

  /** Value of the first header of that name. @param {string} name */
  header(name) { return this.headers(name)[0]; }

  get callId() { return this.header('Call-ID'); }

  get cseq() { return Number.parseInt(this.header('CSeq'), 10); }

  /** Method in CSeq. */
  get cseqMethod() { return this.header('CSeq').split(/\s+/)[1]; }

  get branch() { return /branch=([^;,\s]+)/.exec(this.header('Via'))?.[1]; }

  get fromTag() { return /;tag=([^;,\s]+)/.exec(this.header('From'))?.[1]; }

  get toTag() { return /;tag=([^;,\s]+)/.exec(this.header('To'))?.[1]; }

  /** URI of Contact. */
  get contact() { return /<([^>]+)>/.exec(this.header('Contact') ?? '')?.[1]; }

  /** What is the same in a retransmission, and only there. */
  get identity() { return [this.start, this.branch, this.callId, this.header('CSeq'), this.toTag].join('|'); }
}

/** Made by `openPeer`. */
export class Peer {
  /** @type {{ dir: 'in' | 'out', at: number, message: SipMessage, repeat: boolean }[]} */
  log = [];

  #handlers = [];
  #seen = new Set();
  #socket;
  #used = new Set();
  #waiting = new Set();

  constructor(socket, server) {
    this.#socket = socket;
    /** Where requests go: port on 127.0.0.1, or `host:port`. @type {number | string} */
    this.server = server;
    const { address, port } = socket.address();
    this.port = port;
    /** `host:port` of its own */
    this.place = `${address}:${port}`;
    this.uri = `sip:${this.place}`;
    socket.on('message', (data) => {
      if (data.length < 8) return; // a keep-alive
      const message = new SipMessage(data.toString('latin1'));
      const repeat = this.#seen.has(message.identity);
      this.#seen.add(message.identity);
      this.log.push({ dir: 'in', at: performance.now(), message, repeat });
      if (message.method) for (const handle of this.#handlers) handle(message, repeat);
      for (const look of [...this.#waiting]) look();
    });
  }

  /** Calls `handle(message, repeat)` for each request that comes. */
  onRequest(handle) { this.#handlers.push(handle); }

  /** @param {string} text */
  send(text) {
    if (this.closed) return;
    this.log.push({ dir: 'out', at: performance.now(), message: new SipMessage(text), repeat: false });
    this.sendRaw(text);
  }

  /** `host:port` to which requests go. */
  get to() { return typeof this.server === 'string' ? this.server : `127.0.0.1:${this.server}`; }

  /** Sends bytes as they are, be they SIP or not. @param {Buffer | string} data */
  sendRaw(data) {
    const [host, port] = this.to.split(':');
    this.#socket.send(data, Number(port), host);
  }

  /** What came in, without retransmissions. @param {(m: SipMessage) => boolean} [accept] @returns {SipMessage[]} */
  received(accept = () => true) {
    return this.log.filter((e) => e.dir === 'in' && !e.repeat && accept(e.message)).map((e) => e.message);
  }

  /**
   * The first message for which `accept` holds and that nobody was given yet; retransmissions are passed over.
   * @param {(m: SipMessage) => boolean} accept
   * @returns {Promise<SipMessage>}
   */
  waitFor(accept, ms = 5000, what = String(accept)) {
    return new Promise((done, fail) => {
      const look = () => {
        const entry = this.log.find((e) => e.dir === 'in' && !e.repeat && !this.#used.has(e) && accept(e.message));
        if (!entry) return;
        clearTimeout(timer);
        this.#waiting.delete(look);
        this.#used.add(entry);
        done(entry.message);
      };
      const timer = setTimeout(() => {
        this.#waiting.delete(look);
        fail(new Error(`${what}: not within ${ms} ms\n${this.transcript()}`));
      }, ms);
      this.#waiting.add(look);
      look();
    });
  }

  /** The next request of that method. */
  request(method, ms) { return this.waitFor((m) => m.method === method, ms, method); }

  /**
   * Answers a request.
   * @param {SipMessage} request
   * @param {number} status
   * @param {{ tag?: string, body?: string, headers?: string[] }} [options]
   */
  reply(request, status, { tag = `far${this.port}`, body = '', headers = [] } = {}) {
    const to = request.header('To');
    this.send([
      `SIP/2.0 ${status} Whatever`,
      ...request.headers('Via').map((v) => `Via: ${v}`),
      ...request.headers('Record-Route').map((v) => `Record-Route: ${v}`),
      `From: ${request.header('From')}`,
      `To: ${to}${request.toTag || status === 100 ? '' : `;tag=${tag}`}`,
      `Call-ID: ${request.callId}`,
      `CSeq: ${request.header('CSeq')}`,
      `Contact: <sip:far@${this.place}>`,
      ...headers,
      ...(body ? ['Content-Type: application/sdp'] : []),
      `Content-Length: ${body.length}`, '', body,
    ].join('\r\n'));
  }

  /** A dialog to be: requests to that user. @param {string} user */
  leg(user, options = {}) {
    return new Leg(this, {
      callId: fresh('call'), localTag: fresh('t'), remoteTag: '', cseq: 0,
      local: `"Far Side" <sip:far@${this.place}>`, remote: `<sip:${user}@${this.to}>`,
      target: `sip:${user}@${this.to}`, ...options,
    });
  }

  /** The dialog that an INVITE has begun, as the called side sees it; `tag` as given to `reply`. */
  legOf(invite, tag = `far${this.port}`) {
    return new Leg(this, {
      callId: invite.callId, localTag: tag, remoteTag: invite.fromTag, cseq: 0, local: invite.header('To'),
      remote: invite.header('From').replace(/;tag=[^;]*/, ''), target: invite.contact,
    });
  }

  transcript() {
    return this.log.map((e) => `${e.dir === 'in' ? '<' : '>'} ${e.message.start} (${e.message.header('CSeq')}, ${e.message.callId})${e.repeat ? ' again' : ''}`)
      .join('\n');
  }

  /** Begins anew, for the next test. */
  forget() { this.log = []; }

  close() {
    if (this.closed) return undefined;
    this.closed = true;
    return new Promise((done) => { this.#socket.close(done); });
  }
}

/** One side of a dialog. */
export class Leg {
  constructor(peer, state) {
    this.peer = peer;
    Object.assign(this, state);
  }

  /**
   * Sends a request and gives its branch.
   * @param {string} method
   * @param {{ cseq?: number, branch?: string, body?: string, type?: string, headers?: string[], uri?: string, hops?: number }} [options]
   *   type: of the body; hops: Max-Forwards
   */
  send(method, { cseq, branch = `z9hG4bK${fresh('b')}`, body = '', type = 'application/sdp', headers = [], uri = this.target, hops = 70 } = {}) {
    if (cseq === undefined) { this.cseq += 1; cseq = this.cseq; }
    const tag = (value) => (value ? `;tag=${value}` : '');
    this.peer.send([
      `${method} ${uri} SIP/2.0`,
      `Via: SIP/2.0/UDP ${this.peer.place};branch=${branch}`,
      `Max-Forwards: ${hops}`,
      `From: ${this.local}${tag(this.localTag)}`,
      `To: ${this.remote}${tag(this.remoteTag)}`,
      `Call-ID: ${this.callId}`,
      `CSeq: ${cseq} ${method}`,
      `Contact: <sip:far@${this.peer.place}>`,
      ...headers,
      ...(body ? [`Content-Type: ${type}`] : []),
      `Content-Length: ${body.length}`, '', body,
    ].join('\r\n'));
    return branch;
  }

  /** The reply to a request; finals only unless `status` says otherwise. */
  reply(branch, accept = (status) => status >= 200, ms = 5000, method = undefined) {
    return this.peer.waitFor(
      (m) => m.status !== undefined && m.branch === branch && accept(m.status) && (!method || m.cseqMethod === method),
      ms, `reply to ${branch}`,
    );
  }

  /** A request and its final reply. @returns {Promise<SipMessage>} */
  request(method, options = {}, ms = 5000) { return this.reply(this.send(method, options), undefined, ms); }

  /** INVITE with an offer (or `body`); gives the branch. */
  invite(options = {}) {
    this.inviteBranch = this.send('INVITE', { body: farSdp(), ...options });
    this.inviteCseq = options.cseq ?? this.cseq;
    return this.inviteBranch;
  }

  /** The final reply to the INVITE; takes its To tag and Contact. */
  async answer(ms = 5000) {
    const reply = await this.reply(this.inviteBranch, undefined, ms, 'INVITE');
    if (reply.status < 300) {
      this.remoteTag = reply.toTag;
      this.target = reply.contact;
    }
    return reply;
  }

  /** ACK for a final reply: of its own for a 2xx, within the transaction otherwise (RFC 3261, 17.1.1.3). */
  ack(reply, { body = '' } = {}) {
    if (reply.status < 300) {
      this.send('ACK', { cseq: reply.cseq, body });
    } else {
      const tag = this.remoteTag;
      this.remoteTag = reply.toTag;
      this.send('ACK', { cseq: reply.cseq, branch: reply.branch });
      this.remoteTag = tag;
    }
  }

  /** CANCEL for the INVITE; gives nothing, the replies come by `reply(inviteBranch, …, 'CANCEL')`. */
  cancel() { this.send('CANCEL', { cseq: this.inviteCseq, branch: this.inviteBranch }); }

  /** BYE and its reply. */
  bye(ms) { return this.request('BYE', {}, ms); }

  /** NOTIFY about a REFER (RFC 3515), which has to be taken. @param {string} status as in `200 OK` */
  async notify(status, { over = false } = {}) {
    const state = over ? 'terminated;reason=noresource' : 'active;expires=60';
    const reply = await this.request('NOTIFY', {
      type: 'message/sipfrag;version=2.0', body: `SIP/2.0 ${status}\r\n`, headers: ['Event: refer', `Subscription-State: ${state}`],
    });
    if (reply.status !== 200) throw new Error(`NOTIFY: ${reply.start}`);
  }

  /** The next request of the other side in this dialog. */
  incoming(method, ms) {
    return this.peer.waitFor((m) => m.method === method && m.callId === this.callId && m.toTag === this.localTag, ms, `${method} in ${this.callId}`);
  }
}

/**
 * Opens an endpoint on a free UDP port (or that one).
 * @param {number | string} server port of the other side on 127.0.0.1, or its `host:port`
 * @param {{ port?: number, address?: string }} [options]
 * @returns {Promise<Peer>}
 */
export function openPeer(server, { port = 0, address = '127.0.0.1' } = {}) {
  const socket = dgram.createSocket('udp4');
  return new Promise((done, fail) => {
    socket.once('error', fail);
    socket.bind(port, address, () => done(new Peer(socket, server)));
  });
}

const nonce = 'b7c9036dbf3054aea9404c2a3d1a6f0e';

/** A registrar that checks the digest of every REGISTER. */
export class Registrar {
  /** @type {SipMessage[]} every REGISTER, without retransmissions */
  requests = [];
  /** @type {Map<string, string>} DN to Contact */
  bindings = new Map();
  /** Set it to answer all from then on with 403. */
  refuse = false;
  /** Milliseconds from a request to its answer. */
  delay = 0;

  /**
   * @param {Peer} peer
   * @param {{ realm: string, algorithms?: string[], password?: (dn: string) => string, granted?: number, least?: number,
   *   stale?: number, once?: boolean }} options
   *   granted: expiry given; least: 423 below it; stale: the number of the request for which the nonce is declared stale;
   *   once: each challenge has a nonce and an opaque of its own, which serve once
   */
  constructor(peer, { realm, algorithms = ['MD5'], password = (dn) => `pw${dn}`, granted, least = 0, stale = -1, once = false }) {
    this.peer = peer;
    const open = new Map(); // nonce to opaque
    const answer = (m) => {
      if (this.refuse) { peer.reply(m, 403); return; }
      const staleNow = this.requests.indexOf(m) === stale - 1;
      const given = m.header('Authorization');
      const dn = /<sip:([^@]+)@/.exec(m.header('To'))[1];
      const fields = given ? digestFields(given) : {};
      const known = once ? open.get(fields.nonce) === fields.opaque && open.delete(fields.nonce) : fields.nonce === nonce;
      const right = given && !staleNow && fields.username === dn && known && fields.uri === m.uri
        && checkDigest(given, { method: 'REGISTER', password: password(dn) });
      if (!right) {
        const [own, opaque] = once ? [fresh('nonce'), fresh('opaque')] : [nonce];
        if (once) open.set(own, opaque);
        const challenge = (a) => `WWW-Authenticate: Digest realm="${realm}", nonce="${own}", algorithm=${a}, qop="auth"`
          + `${opaque ? `, opaque="${opaque}"` : ''}${staleNow ? ', stale=true' : ''}`;
        peer.reply(m, 401, { headers: algorithms.map(challenge) });
        return;
      }
      const asked = Number(m.header('Expires'));
      if (asked > 0 && asked < least) { peer.reply(m, 423, { headers: [`Min-Expires: ${least}`] }); return; }
      if (asked === 0) this.bindings.delete(dn);
      else this.bindings.set(dn, m.contact);
      const expires = asked === 0 ? 0 : granted ?? asked;
      // RFC 3261, 10.3: the Contacts of the reply are the bindings, not the registrar's own
      peer.reply(m, 200, { headers: asked === 0 ? [] : [`Contact: <${m.contact}>;expires=${expires}`, `Expires: ${expires}`] });
    };
    peer.onRequest((m, repeat) => {
      if (m.method !== 'REGISTER' || repeat) return;
      this.requests.push(m);
      if (this.delay) setTimeout(() => answer(m), this.delay);
      else answer(m);
    });
  }
}
