// The descriptions of the protocol agree: the schema made from the types, the AsyncAPI document, docs/protocol.md, recorded messages.
import assert from 'node:assert/strict';
import fs from 'node:fs';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import Ajv from 'ajv';
import Ajv2020 from 'ajv/dist/2020.js';
import { parse } from 'yaml';

const read = (name) => fs.readFileSync(new URL(`../../${name}`, import.meta.url), 'utf8');
const schema = JSON.parse(read('docs/schema/rtc-json.schema.json'));
const asyncapi = parse(read('docs/asyncapi.yaml'));
const page = read('docs/protocol.md');

/** `client.call` and so on. */
const names = Object.keys(schema.$defs).filter((name) => name.includes('.'));

const ajv = new Ajv2020({ allErrors: true, strict: false, validateFormats: false });
ajv.addSchema(schema, 'rtc-json');

test('the schema knows every recorded message, and by its direction alone', () => {
  let count = 0;
  for (const name of names) {
    const file = `tests/samples/${name.replace('.', '/')}.json`;
    for (const message of JSON.parse(read(file))) {
      const all = ajv.getSchema(`rtc-json#/$defs/${name.split('.')[0]}Message`);
      assert.ok(all(message), `${file}: ${ajv.errorsText(all.errors)}`);
      count += 1;
      assert.ok(!all({ ...message, more: 1 }) && !all({ ...message, type: 'nothing' }), `${file}: anything goes`);
    }
  }
  assert.ok(count > names.length, `${count}`);
});

test('the AsyncAPI document is valid', () => {
  const require = createRequire(import.meta.url);
  const valid = new Ajv({ strict: false, validateFormats: false, allErrors: false })
    .compile(JSON.parse(fs.readFileSync(require.resolve('@asyncapi/specs/schemas/3.0.0-without-$id.json'), 'utf8')));
  assert.ok(valid(asyncapi), JSON.stringify(valid.errors?.slice(0, 5), null, 1));
  assert.ok(!valid({ ...asyncapi, operations: { call: { action: 'shout' } } }));
});

test('its references lead somewhere', () => {
  const seek = (document, pointer) => pointer.split('/').slice(1).reduce((at, key) => at?.[key], document);
  let count = 0;
  JSON.stringify(asyncapi, (key, value) => {
    if (key === '$ref') {
      const [file, pointer] = value.split('#');
      assert.ok(seek(file ? schema : asyncapi, pointer), value);
      assert.ok(file === '' || file === 'schema/rtc-json.schema.json', value);
      count += 1;
    }
    return value;
  });
  assert.ok(count > 100);
});

test('it has every message of the schema, and no other; every request has its operation', () => {
  const payloads = Object.values(asyncapi.components.messages).map((message) => message.payload.$ref.split('/').at(-1));
  assert.deepEqual(payloads.sort(), [...names].sort());
  const requests = names.filter((name) => name.startsWith('client.')).map((name) => name.slice('client.'.length));
  assert.deepEqual(Object.keys(asyncapi.operations).sort(), [...requests, 'event'].sort());
});

/** Rows of a table of protocol.md: type and the rest. */
function rows(heading) {
  const section = page.split(`## ${heading}\n`)[1].split(/^##/m)[0];
  return new Map([...section.matchAll(/^\| \**(\w+)\** \|(.*)\|$/gm)].map((match) => [match[1], match[2]]).filter(([type]) => type !== 'type'));
}
const tables = { client: rows('Client to server'), server: rows('Server to client') };

test('docs/protocol.md has a row for every message, which names every key of its payload', () => {
  for (const [direction, table] of Object.entries(tables)) {
    const types = names.filter((name) => name.startsWith(`${direction}.`)).map((name) => name.split('.')[1]);
    assert.deepEqual([...table.keys()].sort(), types.sort());
    for (const type of types) {
      const keys = Object.keys(schema.$defs[`${direction}.${type}`].properties.payload.properties ?? {});
      for (const key of keys) assert.match(table.get(type), new RegExp(`\\b${key}\\b`), `${direction} ${type}`);
    }
  }
});

test('the outcome of each request in docs/protocol.md is a reply in the AsyncAPI document', () => {
  for (const [type, row] of tables.client) {
    const outcome = row.split(' | ').at(-1);
    const replies = asyncapi.operations[type].reply.messages.map((each) => each.$ref.split('/').at(-1));
    for (const reply of replies.map((name) => name.slice('server'.length)).map((name) => name[0].toLowerCase() + name.slice(1))) {
      // any request may fail; that is said once for all of them
      if (reply !== 'error') assert.match(outcome, new RegExp(`\\b${reply}\\b`), `${type}: ${outcome}`);
    }
  }
});

test('the words of the enumerations stand in docs/protocol.md', () => {
  const words = new Set();
  JSON.stringify(schema.$defs, (key, value) => {
    if (key === 'oneOf' && Array.isArray(value)) for (const each of value) if (typeof each.const === 'string' && !each.properties) words.add(each.const);
    return value;
  });
  assert.ok(words.size > 25, [...words].join());
  for (const word of words) assert.ok(page.includes(`\`${word}\``), word);
});
