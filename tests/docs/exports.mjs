/** What the module's source exports, and what docs/module.md has an entry for. Both take texts, so that tests can bend them. */
import fs from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const top = fileURLToPath(new URL('../../', import.meta.url));
const read = (name) => fs.readFileSync(path.join(top, name), 'utf8');

/** The texts that count: all of the C skin, and where the core names statistics and variables. */
export function sources() {
  const c = fs.readdirSync(path.join(top, 'kamailio-module')).filter((name) => name.endsWith('.c'));
  return {
    c: c.map((name) => read(`kamailio-module/${name}`)).join('\n'),
    stats: read('crates/ffi/src/stats.rs'),
    current: read('crates/ffi/src/current.rs'),
    docs: read('docs/module.md'),
  };
}

/** What stands between the braces of each table of that C type. */
function tables(c, type) {
  return [...c.matchAll(new RegExp(`${type} \\w+\\[\\] = \\{\\n(.*?)\\n\\};`, 'gs'))].map((match) => match[1]).join('\n');
}

const firstStrings = (text, pattern) => [...text.matchAll(pattern)].map((match) => match[1]);

/** Values with which the parameters' variables are set, as the documentation writes them. */
function defaults(c) {
  const found = new Map();
  const structs = [...c.matchAll(/\} params = \{\n(.*?)\n\};/gs)].map((match) => match[1]).join('\n');
  for (const [, name, text, number] of structs.matchAll(/\.(\w+) = (?:str_init\("([^"]*)"\)|(-?\d+))/g)) {
    found.set(`params.${name}`, text === undefined ? number : `"${text}"`);
  }
  for (const [, name, text, number] of c.matchAll(/^(?:static )?(?:str|int) (rtcj_\w+) = (?:str_init\(("[^"]*"|\w+)\)|(-?\d+));/gm)) {
    found.set(name, text ?? number);
  }
  return found;
}

/** @returns {Record<'parameters' | 'functions' | 'kemi' | 'routes' | 'variables' | 'commands' | 'statistics', string[]> & { set: Map<string, { type: string, value?: string }> }} */
export function exported({ c, stats, current }) {
  const values = defaults(c);
  const set = new Map();
  for (const [, name, kind, variable] of tables(c, 'param_export_t').matchAll(/\{"(\w+)", (PARAM_\w+|[^,]+), &?([\w.]+)\}/g)) {
    const type = /INT/.test(kind) ? 'int' : 'string';
    set.set(name, { type, value: values.get(variable) ?? (type === 'int' ? '0' : undefined) });
  }
  const arms = (name) => {
    const body = current.slice(current.indexOf(`fn ${name}(`));
    return firstStrings(body.slice(0, body.indexOf('\n}')), /^\s*"(\w+)" =>/gm);
  };
  const names = tables(c, 'static str event_names').length ? tables(c, 'static str event_names') : (/event_names\[\] = \{\n(.*?)\n\};/s.exec(c)?.[1] ?? '');
  return {
    set,
    parameters: [...set.keys()],
    functions: firstStrings(tables(c, 'cmd_export_t'), /\{"(\w+)", \(cmd_function\)/g),
    kemi: firstStrings(tables(c, 'sr_kemi_t'), /str_init\("rtc_json"\), str_init\("(\w+)"\)/g),
    routes: firstStrings(names, /str_init\("([\w:-]+)"\)/g),
    variables: [...arms('of_process'), ...arms('of_message'), ...arms('of_call').map((name) => `call.${name}`), 'type', 'id', 'payload.KEY'],
    pvs: firstStrings(tables(c, 'pv_export_t'), /\{\{"(\w+)"/g),
    commands: firstStrings(tables(c, 'rpc_export_t'), /\{"([\w.]+)"/g),
    statistics: firstStrings(stats, /^\s+[A-Z]\w+ "(\w+)" (?:true|false) "/gm),
  };
}

/** Sections of a page by their number. @returns {Map<number, string>} */
function sections(docs) {
  return new Map([...docs.matchAll(/^## (\d+)\. .*?(?=^## |$(?![^]))/gms)].map((match) => [Number(match[1]), match[0]]));
}

/** The entries of a section: name (as in the heading) and text. @returns {Map<string, { name: string, text: string }>} */
function entries(section) {
  return new Map([...section.matchAll(/^### \d+\.\d+\. `([^`]+)`[^\n]*\n.*?(?=^### |$(?![^]))/gms)]
    .map((match) => [match[1].replace(/\(.*/, ''), { name: match[1], text: match[0] }]));
}

const firstCells = (section) => firstStrings(section, /^\| `([^`]+)` \|/gm);

/** What the documentation has entries for. */
export function documented({ docs }) {
  const part = sections(docs);
  const commands = entries(part.get(7));
  return {
    entries: new Map([3, 4, 5, 7].flatMap((number) => [...entries(part.get(number))])),
    parameters: [...entries(part.get(3)).keys()],
    functions: [...entries(part.get(4)).keys()],
    routes: [...entries(part.get(5)).keys()],
    variables: firstCells(part.get(6)),
    pvs: [...entries(part.get(6)).keys()].map((name) => name.slice(1)),
    commands: [...commands.keys()],
    statistics: firstCells(part.get(8)),
  };
}

/** What is exported without an entry, what has an entry and is not exported, and what is wrong in an entry. @returns {string[]} */
export function differences(texts) {
  const source = exported(texts);
  const docs = documented(texts);
  const found = [];
  for (const kind of ['parameters', 'functions', 'routes', 'variables', 'pvs', 'commands', 'statistics']) {
    for (const name of source[kind]) if (!docs[kind].includes(name)) found.push(`${kind}: ${name} has no entry in docs/module.md`);
    for (const name of docs[kind]) if (!source[kind].includes(name)) found.push(`${kind}: ${name} is in docs/module.md, but not exported`);
    for (const name of docs[kind]) if (docs[kind].indexOf(name) !== docs[kind].lastIndexOf(name)) found.push(`${kind}: ${name} has two entries`);
  }
  for (const [name, { type, value }] of source.set) {
    const text = docs.entries.get(name)?.text;
    if (!text) continue;
    if (!text.startsWith(`### `) || !text.split('\n')[0].endsWith(`(${type})`)) found.push(`parameters: ${name} is of type ${type}`);
    const stated = /^Default value is (not set|"[^"]*"|-?\d+)/m.exec(text)?.[1];
    // a name in capitals is a macro of Kamailio, whose value the source does not show
    const right = value === undefined ? stated === 'not set' : /^[A-Z_]+$/.test(value) ? stated?.startsWith('"') : stated === value;
    if (!right) found.push(`parameters: ${name} has the default ${value ?? 'not set'}, its entry says ${stated}`);
    if (!text.includes(`modparam("rtc_json", "${name}", `)) found.push(`parameters: ${name} has no example`);
  }
  for (const name of source.functions) if (!/```\n[^`]*\(/.test(docs.entries.get(name)?.text ?? '')) found.push(`functions: ${name} has no example`);
  for (const name of source.kemi) if (!texts.docs.includes(`KSR.rtc_json.${name}(`)) found.push(`kemi: ${name} is not in docs/module.md`);
  for (const name of source.commands) if (!docs.entries.get(name)?.text.includes(`kamcmd ${name}`)) found.push(`commands: ${name} has no example`);
  for (const name of source.routes) {
    if (!docs.entries.get(name)?.text.includes(`event_route[${name.replace('_', '-')}]`)) found.push(`routes: ${name} has no example`);
  }
  return [...new Set(found)];
}

/** The examples of the documentation that are configuration, in their order. */
export function configExamples({ docs }) {
  const part = sections(docs);
  const blocks = (number) => [...part.get(number).matchAll(/^```\n(.*?)\n```$/gms)].map((match) => match[1]);
  return {
    parameters: blocks(3).join('\n').split('\n'),
    routes: [4, 5, 6].flatMap((number) => blocks(number)),
  };
}
