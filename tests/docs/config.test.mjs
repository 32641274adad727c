// kamailio.cfg.example is accepted as it stands and with each of its switches; what it says about itself is so.
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { checkConfig, example } from './support.mjs';

/** Defined by Kamailio itself, by its version. */
const byKamailio = /^KAMAILIO_\d/;
/** Values for switches that are values, too. */
const values = {
  ASTERISK_IP: '"192.0.2.20"', JWT_KEYS: '"/etc/kamailio/jwt-keys.json"', TURN_URIS: '"turn:turn.example.org"',
  DIRECTORY_URL: '"sqlite:///var/lib/kamailio/kamailio.sqlite"', RECORDS_URL: '"sqlite:///var/lib/kamailio/kamailio.sqlite"', API_ORIGINS: '"https://desk.example.org"', GENESYS_URI: '"sip:genesys.example.org"',
};
/** Switches that make sense with another one only. */
const needs = { WITHOUT_TLS: ['WITH_PLAIN_WS'], WITH_POSTGRES: ['WITH_LOCAL'], WITH_MYSQL: ['WITH_LOCAL'], TURN_URIS: ['TURN_SECRET="file:/etc/kamailio/turn-secret"'] };

const switches = [...new Set([...example.matchAll(/^#!ifn?def (\w+)/gm)].map((match) => match[1]))].filter((name) => !byKamailio.test(name));
const define = (name) => [...(needs[name] ?? []), name.startsWith('WITH') ? name : `${name}=${values[name] ?? '"x"'}`];

test('the example as it stands passes kamailio -c', () => {
  assert.ok(switches.length >= 6, switches.join());
  checkConfig(example, []);
});

for (const name of switches) {
  test(`with ${name}`, () => checkConfig(example, define(name)));
  test(`with ${name} and local agents`, () => checkConfig(example, [...new Set(['WITH_LOCAL', ...define(name)])]));
}

test('each database has its module, whoever wants one', () => {
  for (const url of ['DIRECTORY_URL', 'RECORDS_URL']) {
    for (const [kind, module] of [[[], 'db_sqlite'], [['WITH_POSTGRES'], 'db_postgres'], [['WITH_MYSQL'], 'db_mysql']]) {
      const without = example.replace(`loadmodule "${module}.so"`, `loadmodule "no_${module}.so"`);
      assert.notEqual(without, example);
      checkConfig(example, [...kind, ...define(url)]);
      assert.throws(() => checkConfig(without, [...kind, ...define(url)]), /kamailio -c/, `${url} ${kind}`);
    }
  }
});

test('with all of them', () => checkConfig(example, [...new Set(switches.flatMap(define))]));

test('its head explains every switch, and none that does nothing', () => {
  const explained = [...example.matchAll(/^# {3}(WITH\w*) {2,}\S/gm)].map((match) => match[1]);
  assert.deepEqual([...explained].sort(), switches.filter((name) => name.startsWith('WITH')).sort());
});

test('each switch changes what Kamailio reads, and a fault behind it is seen', () => {
  for (const name of switches) {
    const broken = example.replace(new RegExp(`^(#!ifn?def ${name}\\n)`, 'm'), '$1this is no configuration\n');
    assert.throws(() => { checkConfig(broken, define(name)); checkConfig(broken, []); }, /kamailio -c/, name);
  }
});
