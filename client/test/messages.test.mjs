// The messages of crates/protocol and those of src/messages.ts are the same: names, optional or not, and types.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

const here = (name) => fileURLToPath(new URL(name, import.meta.url));
const rust = (name) => readFileSync(here(`../../crates/protocol/src/${name}.rs`), 'utf8').split('#[cfg(test)]')[0];
const sources = { server: rust('server'), client: rust('client') };

const camel = (name) => name.replace(/_(.)/g, (_, letter) => letter.toUpperCase());
const lower = (name) => name[0].toLowerCase() + name.slice(1);
/** Without comments, and on one line. */
const plain = (text) => text.replace(/^\s*\/\/.*$/gm, '').replace(/\s+/g, ' ');

/** What stands between the braces that open at `start`. */
function block(text, start) {
  let depth = 0;
  for (let i = text.indexOf('{', start); i < text.length; i++) {
    if (text[i] === '{') depth++;
    if (text[i] === '}' && --depth === 0) return text.slice(text.indexOf('{', start) + 1, i);
  }
  throw new Error(`braces do not match after ${text.slice(start, start + 60)}`);
}

/** Splits at commas outside of all brackets. */
function parts(text) {
  const found = [''];
  let depth = 0;
  for (const c of text) {
    if ('{([<'.includes(c)) depth++;
    if ('})]>'.includes(c)) depth--;
    if (c === ',' && depth === 0) found.push('');
    else found[found.length - 1] += c;
  }
  return found.map((part) => part.trim()).filter(Boolean);
}

/** A Rust type in TypeScript, with `m.` before what messages.ts must have under the same name. */
function typeOf(type) {
  const inner = /^(?:Option|Box)<(.*)>$/.exec(type)?.[1];
  if (inner) return typeOf(inner);
  if (type === 'Vec<(String, String)>') return 'Record<string, string>';
  const item = /^Vec<(.*)>$/.exec(type)?.[1];
  if (item) return `${typeOf(item)}[]`;
  if (/^(String|Secret)$/.test(type)) return 'string';
  // one of some words, which only the comment names
  if (type === "&'static str") return 'any';
  if (/^u\d+$/.test(type)) return 'number';
  if (type === 'bool') return 'boolean';
  assert.match(type, /^[A-Z]\w+$/);
  return `m.${type}`;
}

/** Fields of a struct or of a variant as a TypeScript type. `server`: what is left out depends on serde. */
function fieldsOf(text, server) {
  const fields = parts(text).map((field) => {
    const [, attributes, name, type] = /^((?:#\[.*?\] )*)(?:pub )?(\w+): (.*)$/.exec(field) ?? assert.fail(field);
    const key = /rename = "(\w+)"/.exec(attributes)?.[1] ?? camel(name);
    const optional = server ? /skip_serializing_if/.test(attributes) : /^Option<|^Vec<\(/.test(type);
    return `${key}${optional ? '?' : ''}: ${typeOf(type)}`;
  });
  return `{ ${fields.join('; ')} }`;
}

/** Reads what crates/protocol says, as TypeScript types by name. */
function read({ server, client }) {
  const [serverText, clientText] = [plain(server), plain(client)];
  const types = {};
  const structs = (text, isServer) => {
    for (const match of text.matchAll(/pub struct (\w+) \{/g)) types[match[1]] = fieldsOf(block(text, match.index), isServer);
  };
  structs(serverText, true);
  structs(clientText, false);
  for (const match of serverText.matchAll(/words! \{ (\w+) \{/g)) {
    types[match[1]] = [...block(serverText, match.index + 8).matchAll(/= ("\w+")/g)].map(([, word]) => word).join(' | ');
  }
  const actions = block(clientText, clientText.indexOf('pub enum RecordingAction'));
  types.RecordingAction = parts(actions).map((name) => `'${lower(name)}'`).join(' | ');

  const messages = (text, name, isServer) => Object.fromEntries(
    parts(block(text, text.indexOf(`pub enum ${name}`))).map((variant) => {
      const [, kind, rest = ''] = /^(?:#\[.*?\] )*(\w+)\s*(.*)$/.exec(variant);
      const tuple = /^\((\w+)\)$/.exec(rest)?.[1];
      return [lower(kind), tuple ? types[tuple] : rest ? fieldsOf(block(rest, 0), isServer) : '{}'];
    }),
  );
  const found = { types, server: messages(serverText, 'ServerMessage', true), client: messages(clientText, 'ClientMessage', false) };
  for (const inner of ['Register', 'Call', 'Request', 'Problem']) delete types[inner];
  return found;
}

/** Compares by the TypeScript compiler; gives its complaints. */
function complaints(protocol) {
  const lines = [
    `import type * as m from '${here('../src/messages.ts')}';`,
    'type Same<A, B> = [A] extends [B] ? ([B] extends [A] ? true : false) : false;',
    'type Optional<T> = { [K in keyof T]-?: {} extends Pick<T, K> ? K : never }[keyof T];',
    'type Fields<A, B> = { [K in keyof A & keyof B]-?: Same<NonNullable<A[K]>, NonNullable<B[K]>> extends true ? never : K }[keyof A & keyof B];',
    'type Alike<A, B> = Same<keyof A, keyof B> & Same<Optional<A>, Optional<B>> & Same<Fields<A, B>, never>;',
  ];
  const check = (name, type) => lines.push(`export const ${name}: ${type} = true;`);
  for (const [name, type] of Object.entries(protocol.types)) {
    check(`type_${name}`, type.startsWith('{') ? `Alike<m.${name}, ${type}>` : `Same<m.${name}, ${type}>`);
  }
  for (const side of ['server', 'client']) {
    const ours = side === 'server' ? 'm.ServerMessages' : 'm.ClientMessages';
    check(side, `Same<keyof ${ours}, ${Object.keys(protocol[side]).map((name) => `'${name}'`).join(' | ')}>`);
    for (const [name, type] of Object.entries(protocol[side])) check(`${side}_${name}`, `Alike<${ours}['${name}'], ${type}>`);
  }
  const folder = mkdtempSync(path.join(tmpdir(), 'rtc-json-messages-'));
  try {
    const file = path.join(folder, 'messages.ts');
    writeFileSync(file, `${lines.join('\n')}\n`);
    const options = ['--ignoreConfig', '--noEmit', '--strict', '--skipLibCheck', '--allowImportingTsExtensions', '--module', 'esnext', '--moduleResolution', 'bundler', '--target', 'es2022', '--types', ''];
    execFileSync(process.execPath, [here('../node_modules/typescript/bin/tsc'), ...options, file], { encoding: 'utf8', cwd: here('..') });
    return '';
  } catch (error) {
    // each line of the file names what it compares
    return error.stdout.replace(/^.*messages\.ts[(:](\d+).*$/gm, (line, number) => `${lines[number - 1]?.slice(0, 400)}\n  ${line}`);
  } finally {
    rmSync(folder, { recursive: true });
  }
}

test('every message and every type of crates/protocol is in messages.ts, and nothing else', () => {
  const protocol = read(sources);
  assert.ok(Object.keys(protocol.server).length >= 18 && Object.keys(protocol.client).length >= 16, JSON.stringify(protocol));
  assert.equal(complaints(protocol), '');
});

test('a drift is seen: a field renamed, added, made optional, of another type; a message or a word that is new', () => {
  for (const [side, from, to, name] of [
    ['server', 'remote_hold: bool,\n        /// An offer', 'far_hold: bool,\n        /// An offer', 'server_callUpdated'],
    ['server', '        retry_after: Option<u64>,\n    },\n    /// Prove', '        retry_after: Option<u64>,\n        more: bool,\n    },\n    /// Prove', 'server_registrationFailed'],
    ['client', 'digit: String', 'digit: Option<String>', 'client_dtmf'],
    ['client', 'muted: bool', 'muted: String', 'client_mute'],
    ['server', '    Pong,', '    Pong,\n    Gong,', 'server'],
    ['server', '= "paused"', '= "halted"', 'type_RecordingState'],
  ]) {
    assert.ok(sources[side].includes(from), from);
    const drifted = { ...sources, [side]: sources[side].replace(from, to) };
    assert.match(complaints(read(drifted)), new RegExp(`const ${name}:`), `${from} to ${to}`);
  }
});
