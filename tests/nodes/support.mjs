/** Several real Kamailios that know each other by dmq. */
import assert from 'node:assert/strict';
import { until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePorts } from '../common/ports.mjs';
import { fakeOffer } from '../common/sdp.mjs';
import { farSdp, openPeer } from '../sip/peer.mjs';
import { openNetwork } from './network.mjs';

/** The network of this test file. */
export const network = await openNetwork();

/** RTC_JSON_NODES_TCP=1: what nodes say to each other goes by TCP. */
const transport = process.env.RTC_JSON_NODES_TCP ? ';transport=tcp' : '';

/** What the nodes of the tests share. */
export const secret = 'nodes-of-the-tests-share-this';

/** The browsers of a test file; each test ends its own. */
const browsers = [];

/** A connection to that node. */
export async function browser(node) {
  const client = await connect(node.wsUrl);
  browsers.push(client);
  return client;
}

/** A browser that has registered there. */
export async function agent(node, dn) {
  const client = await browser(node);
  client.registered = await client.register(dn);
  return client;
}

/** The browser of `dn` comes back, maybe to another node. */
export async function resume(node, dn, session, ms = 10_000) {
  const client = await browser(node);
  client.registered = await client.expect('register', { dn, resume: session }, 'registered', { ms });
  return client;
}

export function closeBrowsers() {
  for (const client of browsers.splice(0)) if (!client.closed) client.terminate();
}

/** Rows of `rtc_json.nodes` of other nodes that are heard of. */
export const others = async (node) => (await node.rpcRows('rtc_json.nodes')).filter((row) => row.state === 'up');

export const agentAt = async (node, dn) => (await node.rpcRows('rtc_json.agents')).find((row) => String(row.dn) === dn);

/** Waits until every one of these nodes hears all others of them. */
export async function allKnown(nodes) {
  for (const node of nodes) {
    await until(async () => (await others(node)).length === nodes.length - 1, { ms: 40_000, what: `${node.node} knows the others` });
  }
}

/**
 * Starts so many nodes, each with the next one as the other node of its config, and waits until all know all.
 * Each has `node`, its name and SIP address; can be gone at once with its network (`lose`), and be there again (`back`).
 * @param {number} count
 * @param {string} nextHop
 * @param {import('../common/kamailio.mjs').Options & { more?: Record<string, string | number> }} [options] more: further parameters of the module
 */
export async function startNodes(count, nextHop, { more = {}, defines = {}, ...options } = {}) {
  const first = await freePorts(count);
  const nodes = [];
  try {
    const machines = [];
    for (let i = 0; i < count; i += 1) machines.push(await network.machine(machines.slice()));
    const names = machines.map((machine, i) => `${machine?.address ?? network.address}:${first + i}`);
    for (const [i, machine] of machines.entries()) {
      const node = await startKamailio({
        params: { resume_grace: 20, node_secret: secret, ...more },
        nextHop,
        defines: {
          WITH_NODES: true,
          NODE_URI: `"sip:${names[i]}${transport}"`,
          OTHER_NODE: `"sip:${names[(i + 1) % count]}${transport}"`,
          NODE_SECRET: `"${secret}"`,
          SIP_PORT: first + i,
          ...defines,
        },
        machine,
        ...options,
        cfgExtra: `${options.cfgExtra ?? ''}\n${transport && `listen=tcp:${names[i]}`}`,
      });
      nodes.push(Object.assign(node, {
        node: names[i],
        machine,
        async lose() {
          machine?.pullOut();
          await node.kill9();
        },
        async back() {
          machine?.plugIn();
          await node.start();
        },
      }));
    }
    await allKnown(nodes);
  } catch (error) {
    for (const node of nodes) await node.stop();
    throw error;
  }
  return nodes;
}

/** A call out of that browser that the far side has answered. @returns {Promise<string>} its id */
export async function call(client, to = '1003') {
  const { type, payload } = await client.request('call', { to, sdp: fakeOffer() }, { ms: 20_000 });
  assert.equal(type, 'callAccepted', JSON.stringify(payload));
  return payload.callId;
}

/** The call is alive from end to end: it is held and taken back. */
export async function holdOnce(client, callId) {
  for (const hold of [true, false]) {
    const held = await client.request('hold', { callId, hold }, { ms: 20_000 });
    assert.equal(held.payload.hold, hold, JSON.stringify(held));
  }
}

export async function hangUp(client, callId) {
  const over = await client.request('hangup', { callId, reason: 'user_hangup' }, { ms: 20_000 });
  assert.equal(over.type, 'callEnded', JSON.stringify(over));
}

/** Why a network cannot be cut here. */
export const uncut = process.env.RTC_JSON_NAMESPACE ? false : 'needs a network namespace of its own';

/** `host:port` of whoever has sent this request. */
export const sentBy = (request) => /^SIP\/2\.0\/UDP ([^;\s]+)/.exec(request.header('Via'))[1];

/** `host:port` of a SIP URI. */
export const placeOf = (uri) => /([^@:]+:\d+)$/.exec(uri)[1];

/**
 * A far side that answers every call, and keeps to RFC 3261, 12.2.2: a request with a lower number than the last is refused with 500, one
 * in a dialog that is over with 481. It talks to whichever node has spoken last.
 */
export async function openFarSide() {
  const peer = await openPeer(0, { address: network.address });
  const far = {
    peer,
    uri: peer.uri,
    /** @type {Map<string, { cseq: number, ends: number, contact: string }>} dialogs by Call-ID */
    dialogs: new Map(),
    /** Dialogs that are up. */
    up: () => [...far.dialogs.values()].filter((dialog) => dialog.ends === 0).length,
    /** The dialogs that were ended, and how often each was. */
    ends: () => [...far.dialogs.values()].filter((dialog) => dialog.ends > 0).map((dialog) => dialog.ends),
    close: () => peer.close(),
  };
  const answers = new Map();
  peer.onRequest((request, repeat) => {
    if (request.method === 'ACK') return;
    const via = sentBy(request);
    const say = (status, options) => {
      answers.set(request.identity, [status, options]);
      const { server } = peer;
      peer.server = via;
      peer.reply(request, status, options);
      peer.server = server;
    };
    if (repeat) {
      const known = answers.get(request.identity);
      if (known) say(...known);
      return;
    }
    const dialog = far.dialogs.get(request.callId);
    if (request.toTag) {
      if (!dialog) return say(481);
      if (request.cseq <= dialog.cseq) return say(500);
      dialog.cseq = request.cseq;
      if (dialog.ends > 0) {
        // a BYE that ends what is over already would be one too many
        if (request.method === 'BYE') dialog.ends += 1;
        return say(481);
      }
      if (request.method === 'BYE') dialog.ends += 1;
      if (request.contact) dialog.contact = request.contact;
    } else if (request.method === 'INVITE') {
      far.dialogs.set(request.callId, { cseq: request.cseq, ends: 0, contact: request.contact });
    }
    if (request.method !== 'INVITE') return say(200, { headers: ['Allow: INVITE, ACK, BYE, UPDATE'] });
    const more = request.toTag ? { version: 2, direction: /a=sendonly/.test(request.body) ? 'recvonly' : 'sendrecv' } : {};
    return say(200, { body: farSdp({ setup: 'active', ...more }), headers: ['Allow: INVITE, ACK, BYE, UPDATE'] });
  });
  return far;
}
