/** Several real Kamailios that know each other by dmq. */
import { until } from '../common/cleanup.mjs';
import { connect } from '../common/client.mjs';
import { startKamailio } from '../common/kamailio.mjs';
import { freePorts } from '../common/ports.mjs';

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
export async function resume(node, dn, session) {
  const client = await browser(node);
  client.registered = await client.expect('register', { dn, resume: session }, 'registered');
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
 * Each has `node` (its name) and `nodePort`.
 * @param {number} count
 * @param {string} nextHop
 * @param {import('../common/kamailio.mjs').Options & { more?: Record<string, string | number> }} [options] more: further parameters of the module
 */
export async function startNodes(count, nextHop, { more = {}, ...options } = {}) {
  const first = await freePorts(count);
  const nodes = [];
  try {
    for (let i = 0; i < count; i += 1) {
      const port = first + i;
      const node = await startKamailio({
        params: { resume_grace: 20, node_secret: secret, ...more },
        nextHop,
        defines: {
          WITH_NODES: true,
          NODE_URI: `"sip:127.0.0.1:${port}"`,
          OTHER_NODE: `"sip:127.0.0.1:${first + ((i + 1) % count)}"`,
          NODE_SECRET: `"${secret}"`,
          SIP_PORT: port,
        },
        ...options,
      });
      nodes.push(Object.assign(node, { node: `127.0.0.1:${port}`, nodePort: port }));
    }
    await allKnown(nodes);
  } catch (error) {
    for (const node of nodes) await node.stop();
    throw error;
  }
  return nodes;
}
