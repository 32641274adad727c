// docs/module.md has an entry for everything that the module exports, and for nothing else; its examples are accepted.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { after, before, test } from 'node:test';
import { startKamailio } from '../common/kamailio.mjs';
import { moduleReadme } from '../../scripts/module-readme.mjs';
import { configExamples, differences, documented, exported, sources } from './exports.mjs';
import { checkConfig, example } from './support.mjs';

const texts = sources();

test('everything that the module exports has its entry, with type, default and example, and the other way round', () => {
  const found = exported(texts);
  // the readers themselves find something everywhere
  for (const kind of ['parameters', 'functions', 'kemi', 'routes', 'variables', 'pvs', 'commands', 'statistics']) {
    assert.ok(found[kind].length > 0, `nothing found: ${kind}`);
  }
  assert.equal(found.parameters.length, (texts.c.match(/^\t\{"\w+", PARAM_/gm) ?? []).length, 'every row of param_export_t is read');
  assert.deepEqual(differences(texts), []);
});

test('a drift is seen, in either direction', () => {
  for (const [file, from, to, complaint] of [
    ['c', '{"realm", PARAM_STR, ', '{"realms", PARAM_STR, ', /realms has no entry[^]*realm is in docs/],
    ['c', '.resume_grace = 30', '.resume_grace = 31', /resume_grace has the default 31/],
    ['c', '{"expires", PARAM_INT', '{"expires", PARAM_STR', /expires is of type string/],
    ['c', '{"rtc_json_reject", (cmd', '{"rtc_json_refuse", (cmd', /rtc_json_refuse has no entry/],
    ['c', 'str_init("reject")', 'str_init("deny")', /kemi: deny/],
    ['c', 'str_init("rtc_json:message")', 'str_init("rtc_json:frame")', /rtc_json:frame has no entry/],
    ['c', '{"rtc_json.calls", ', '{"rtc_json.legs", ', /rtc_json.legs has no entry/],
    ['c', '{{"rtcj", ', '{{"rtcx", ', /rtcx has no entry/],
    ['stats', 'SessionsLost "sessions_lost"', 'SessionsLost "sessions_gone"', /sessions_gone has no entry/],
    ['current', '"sip_call_id" =>', '"sip_id" =>', /call.sip_id has no entry/],
    ['current', '"addr" =>', '"address" =>', /address has no entry/],
    ['docs', 'modparam("rtc_json", "domain", ', 'modparam("rtc_json", "demain", ', /domain has no example/],
    ['docs', 'kamcmd rtc_json.stats', 'kamcmd stats', /rtc_json.stats has no example/],
  ]) {
    assert.ok(texts[file].includes(from), from);
    assert.match(differences({ ...texts, [file]: texts[file].replace(from, to) }).join('\n'), complaint, `${from} to ${to}`);
  }
});

test('the README of the module is the one that docs/module.md makes', () => {
  const readme = fs.readFileSync(new URL('../../kamailio-module/README', import.meta.url), 'utf8');
  assert.equal(readme, moduleReadme(texts.docs), 'run make docs');
});

test('the examples of the parameters and of the routes pass kamailio -c', () => {
  const { parameters, routes } = configExamples(texts);
  assert.equal(parameters.length, exported(texts).parameters.length);
  assert.ok(routes.length >= 4);
  for (const route of routes) {
    // the examples stand in place of the routes of the example config
    const names = [...route.matchAll(/^((?:event_)?(?:request_)?route(?:\[[^\]]+\])?) \{/gm)].map((match) => match[1]);
    assert.ok(names.length > 0, route);
    const without = names.reduce((text, name) => text.replace(new RegExp(`^${name.replace(/[[\]]/g, '\\$&')} \\{\n.*?^\\}\n`, 'ms'), ''), example);
    assert.notEqual(without, example, names.join());
    checkConfig(`${without}\n${parameters.join('\n')}\n${route}\n`, ['WITH_LOCAL', 'WITH_PLAIN_WS']);
  }
});

test('an example that is wrong would be seen', () => {
  assert.throws(() => checkConfig(`${example}\nmodparam("rtc_json", "demain", "x")\n`, []), /demain/);
  assert.throws(() => checkConfig(`${example}\nmodparam("rtc_json", "expires", "soon")\n`, []), /expires/);
});

/** @type {import('../common/kamailio.mjs').Kamailio} */
let kamailio;
before(async () => {
  // the values of the examples themselves, but for those that name files, tables and other servers
  const own = /^(jwt_keys|turn_uris|turn_secret|node_secret|genesys_uri|directory_url|records_url|arena_path|db_url|.*_table|.*_column|use_domain|event_callback|register_mode|realm|outbound_proxy|contact)$/;
  const params = Object.fromEntries(configExamples(texts).parameters
    .map((line) => /"rtc_json", "(\w+)", (.*)\)$/.exec(line)).filter(([, name]) => !own.test(name))
    .map(([, name, value]) => [name, JSON.parse(value)]));
  assert.ok(Object.keys(params).length >= 20, Object.keys(params).join());
  kamailio = await startKamailio({ params });
});
after(async () => { await kamailio?.stop(); });

test('a Kamailio with the values of the examples has the RPC commands and the statistics of the documentation', async () => {
  const docs = documented(texts);
  const methods = (await kamailio.rpcText('system.listMethods')).split('\n').map((line) => line.trim());
  assert.deepEqual(methods.filter((name) => name.startsWith('rtc_json.')).sort(), [...docs.commands].sort());
  const statistics = (await kamailio.rpcText('stats.get_statistics', 'rtc_json:')).match(/(?<=rtc_json:)\w+/g);
  assert.deepEqual([...statistics].sort(), [...docs.statistics].sort());
});
