//! The whole C surface, called in any order with anything, by a host that may fail and may call back at once.

use std::cell::{Cell, RefCell};
use std::ffi::{c_char, c_void};
use std::sync::OnceLock;

use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rtc_json_ffi::testing::{
    forget_all, rtc_json_call_record_t, rtc_json_config_t, rtc_json_host_t, rtc_json_reply_t,
    rtc_json_request_t, rtc_json_rpc_sink_t, rtc_json_str_t,
};
use rtc_json_ffi::*;
use rtc_json_nodes::{Batch, Item, Key};
use tempfile::TempDir;

use crate::checks;
use crate::token::{key_file, signed};
use crate::world::ANSWER;

/// What the core asked the host for.
#[derive(Clone, Default)]
struct Asked {
    handle: String,
    method: String,
    from: String,
    to: String,
    call_id: String,
    cseq: u32,
    /// It shows a password's digest.
    proven: bool,
}

thread_local! {
    static ASKED: RefCell<Vec<Asked>> = const { RefCell::new(Vec::new()) };
    /// `callId`s in frames, the latest last.
    static CALL: RefCell<String> = const { RefCell::new(String::new()) };
    /// Functions of the host that fail, as bits.
    static FAILING: Cell<u32> = const { Cell::new(0) };
    /// The status that a request is answered with before its call returns; 0: later.
    static AT_ONCE: Cell<i32> = const { Cell::new(0) };
    /// How deep such answers are in each other.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// What the core told the other nodes last, sealed.
    static SEALED: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
    /// The password stands elsewhere too, where it is none and may be shown.
    static TOLD: Cell<bool> = const { Cell::new(false) };
}

const PASSWORD: &str = "pw-of-5001";
const NODE_SECRET: &str = "a-secret-of-nodes-for-fuzzing";

/// A token for everything, signed with the key that the core has.
fn bearer() -> &'static str {
    static TOKEN: OnceLock<String> = OnceLock::new();
    TOKEN.get_or_init(|| {
        let scope = "register agents:read:all agents:write:all calls:read:all calls:write:all genesys:read:all";
        let claims = format!(r#"{{"sub":"5001","exp":4102444800,"scope":"{scope}"}}"#);
        signed(br#"{"alg":"HS256","kid":"hs"}"#, claims.as_bytes())
    })
}

/// Lets the core have a batch as another node would send it.
fn from_node(batch: &Batch) {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    if let Ok(body) = Key::new(NODE_SECRET.as_bytes()).seal(batch, &mut rng) {
        // SAFETY: it lives until the call returns
        unsafe { rtc_json_node_message(lend(&body)) };
    }
}

/// What the core told last comes back as what another node has to say of the same agents, which it took over.
fn echo(node: &str) {
    let Ok(mut batch) = SEALED.with_borrow(|body| Key::new(NODE_SECRET.as_bytes()).open(body))
    else {
        return;
    };
    batch.from = node.to_owned();
    for item in &mut batch.items {
        if let Item::Record { version, .. } = item {
            *version = version.taken_by(node);
        }
    }
    from_node(&batch);
}

/// Whether a text does not have the password that was given as one.
fn secret_kept(text: &str) -> bool {
    TOLD.get() || !text.contains(PASSWORD)
}

/// Whether an input has the password elsewhere than as one in a frame, or could spell it so that we do not see it. Other lines may
/// be logged as they are.
fn tells(data: &[u8]) -> bool {
    data.split(|b| *b == b'\n').any(|line| {
        let count = |what: &str| {
            line.windows(what.len())
                .filter(|window| *window == what.as_bytes())
                .count()
        };
        let given = match line.first() {
            Some(b'f' | b'o') => count(r#""password":"pw-of-5001""#),
            _ => 0,
        };
        count(PASSWORD) != given || count(r"\u") != 0
    })
}

fn lend(text: &str) -> rtc_json_str_t {
    lend_bytes(text.as_bytes())
}

fn lend_bytes(bytes: &[u8]) -> rtc_json_str_t {
    rtc_json_str_t {
        s: bytes.as_ptr().cast(),
        len: bytes.len(),
    }
}

fn fails(bit: u32) -> bool {
    FAILING.get() & (1 << bit) != 0
}

/// Reads what the core lends.
///
/// # Safety
/// `text` must be as `rtc_json_host.h` says.
unsafe fn read(text: rtc_json_str_t) -> String {
    if text.len == 0 {
        return String::new();
    }
    // SAFETY: the caller's promise. Every byte is read, so that a sanitizer sees them all
    let bytes = unsafe { std::slice::from_raw_parts(text.s.cast::<u8>(), text.len) };
    String::from_utf8(bytes.to_vec()).expect("the core writes UTF-8")
}

unsafe extern "C" fn log(_level: i32, line: rtc_json_str_t) {
    // SAFETY: called by the core, which keeps to rtc_json_host.h; so in all functions below
    let line = unsafe { read(line) };
    assert!(secret_kept(&line), "a password in the log: {line}");
}

unsafe extern "C" fn ws_send(_conn: i32, frame: rtc_json_str_t) -> i32 {
    // SAFETY: as in `log`
    let frame = unsafe { read(frame) };
    checks::frame(&frame);
    if let Some((_, rest)) = frame.split_once(r#""callId":""#) {
        let id = rest.split('"').next().unwrap_or_default();
        CALL.set(id.to_owned());
    }
    if fails(0) {
        -1
    } else {
        0
    }
}

unsafe extern "C" fn ws_close(conn: i32, _status: i32, reason: rtc_json_str_t) {
    // SAFETY: as in `log`
    let _reason = unsafe { read(reason) };
    if fails(1) {
        // SAFETY: the text lives as long as the program
        unsafe { rtc_json_ws_closed(conn, lend("127.0.0.1")) };
    }
}

unsafe extern "C" fn conn_alive(conn: i32) -> i32 {
    i32::from(conn % 2 == 0)
}

unsafe extern "C" fn request(request: *const rtc_json_request_t) -> i32 {
    // SAFETY: as in `log`
    let asked = unsafe {
        let raw = &*request;
        for text in [raw.ruri, raw.next_hop, raw.headers, raw.body, raw.to_tag] {
            let _read = read(text);
        }
        Asked {
            handle: read(raw.handle),
            method: read(raw.method),
            from: format!("{};tag={}", read(raw.from), read(raw.from_tag)),
            to: read(raw.to),
            call_id: read(raw.call_id),
            cseq: raw.cseq,
            proven: read(raw.headers).contains("Authorization: "),
        }
    };
    if fails(2) {
        return -1;
    }
    let code = AT_ONCE.get();
    if code != 0 && DEPTH.get() < 4 {
        DEPTH.set(DEPTH.get() + 1);
        answer(&asked, code, "");
        DEPTH.set(DEPTH.get() - 1);
    } else {
        ASKED.with_borrow_mut(|all| all.push(asked));
    }
    0
}

unsafe extern "C" fn cancel(call_id: rtc_json_str_t, _cseq: u32) -> i32 {
    // SAFETY: as in `log`
    let _call = unsafe { read(call_id) };
    -i32::from(fails(3))
}

unsafe extern "C" fn reply(reply: *const rtc_json_reply_t) -> i32 {
    // SAFETY: as in `log`
    unsafe {
        let raw = &*reply;
        for text in [raw.reason, raw.to_tag, raw.headers, raw.body] {
            let _read = read(text);
        }
    }
    -i32::from(fails(4))
}

unsafe extern "C" fn pass_on(_index: u32, _label: u32, uri: rtc_json_str_t) -> i32 {
    // SAFETY: as in `log`
    let _node = unsafe { read(uri) };
    -i32::from(fails(4))
}

unsafe extern "C" fn ha1(
    user: rtc_json_str_t,
    realm: rtc_json_str_t,
    out: *mut c_char,
    len: usize,
) -> u32 {
    // SAFETY: as in `log`
    let _names = unsafe { (read(user), read(realm)) };
    if fails(5) {
        return 2;
    }
    let hex = b"0123456789abcdef0123456789abcdef\0";
    assert!(len > hex.len());
    // SAFETY: `out` has room for `len` bytes
    unsafe { std::ptr::copy_nonoverlapping(hex.as_ptr(), out.cast(), hex.len()) };
    u32::from(fails(6))
}

unsafe extern "C" fn directory_write(dn: rtc_json_str_t, skills: rtc_json_str_t) -> i32 {
    // SAFETY: as in `log`
    let _row = unsafe { (read(dn), read(skills)) };
    -i32::from(fails(7))
}

unsafe extern "C" fn node_broadcast(body: rtc_json_str_t) -> i32 {
    // SAFETY: as in `log`
    let body = unsafe { read(body) };
    SEALED.set(body.into_bytes());
    0
}

unsafe extern "C" fn record_write(record: *const rtc_json_call_record_t) -> i32 {
    // SAFETY: as in `log`
    let _id = unsafe { read((*record).call_id) };
    -i32::from(fails(8))
}

unsafe extern "C" fn call_ended() {
    variable("call.from");
}

unsafe extern "C" fn mark(_ctx: *mut c_void) {}

unsafe extern "C" fn text(_ctx: *mut c_void, name: *const c_char, value: rtc_json_str_t) {
    // SAFETY: as in `log`; the name is NUL-ended
    let _field = unsafe { (std::ffi::CStr::from_ptr(name).to_bytes().len(), read(value)) };
}

unsafe extern "C" fn number(_ctx: *mut c_void, _name: *const c_char, _value: i64) {}

fn variable(name: &str) {
    let mut out = lend("");
    // SAFETY: both live until the call returns
    if unsafe { rtc_json_var(lend(name), &raw mut out) } == 1 {
        // SAFETY: valid until the next call
        let value = unsafe { read(out) };
        assert!(secret_kept(&value), "{name}: {value}");
    }
}

/// The far side answers; `headers` come as lines.
fn answer(asked: &Asked, code: i32, headers: &str) {
    let body = if asked.method == "INVITE" { ANSWER } else { "" };
    let message = format!(
        "SIP/2.0 {code} Whatever\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1\r\nFrom: {}\r\nTo: {};tag=far\r\n\
         Call-ID: {}\r\nCSeq: {} {}\r\nContact: <sip:far@127.0.0.1:5080>\r\n{headers}Content-Type: application/sdp\r\n\
         Content-Length: {}\r\n\r\n{body}",
        asked.from,
        asked.to,
        asked.call_id,
        asked.cseq,
        asked.method,
        body.len()
    );
    // SAFETY: all of it lives until the call returns
    unsafe { rtc_json_sip_reply(lend(&asked.handle), code, lend(&message)) };
}

/// The started core. There is one in a process.
pub struct Surface {
    _dir: TempDir,
}

impl Surface {
    /// Starts the core, once.
    pub fn start() {
        static SURFACE: OnceLock<Surface> = OnceLock::new();
        let _started = SURFACE.get_or_init(|| {
            let dir = tempfile::tempdir_in("/dev/shm")
                .or_else(|_| tempfile::tempdir())
                .expect("a folder");
            let path = dir.path().join("arena").display().to_string();
            let keys = dir.path().join("keys.json").display().to_string();
            std::fs::write(&keys, key_file()).expect("room for a key");
            let host = rtc_json_host_t {
                log: Some(log),
                ws_send: Some(ws_send),
                ws_close: Some(ws_close),
                conn_alive: Some(conn_alive),
                request: Some(request),
                cancel: Some(cancel),
                reply: Some(reply),
                pass_on: Some(pass_on),
                ha1: Some(ha1),
                directory_write: Some(directory_write),
                record_write: Some(record_write),
                node_broadcast: Some(node_broadcast),
                call_ended: Some(call_ended),
            };
            let config = rtc_json_config_t {
                outbound_proxy: lend("sip:127.0.0.1:5080"),
                register_mode: lend("upstream"),
                contact: lend("127.0.0.1:5060"),
                domain: lend("pbx.example"),
                codecs: lend("PCMU,telephone-event"),
                dn_chars: lend("._+*#-"),
                over_limit: lend("replace"),
                server_name: lend("fuzz"),
                arena_path: lend(&path),
                // each look at all records is at all slots
                arena_size: 2,
                require_dtls: 1,
                max_frame: 32_768,
                max_calls_per_agent: 4,
                call_rate: 2,
                register_failures: 3,
                register_failures_address: 8,
                max_sockets_address: 3,
                away_reply: 480,
                max_sessions_per_agent: 2,
                resume_grace: 30,
                expires: 300,
                ring_timeout: 60,
                log_messages: 1,
                session_expires: 1800,
                min_se: 90,
                max_redirects: 3,
                dtmf_mode: lend("info"),
                dtmf_duration: 160,
                trickle: lend("auto"),
                accept_refer: 1,
                conference_prefix: lend("conf-"),
                headers_in: lend("X-*"),
                headers_out: lend("X-*"),
                trusted_peers: lend("127.0.0.0/8"),
                jwt_keys: lend(&keys),
                jwt_leeway: 10,
                turn_uris: lend("stun:turn.example:3478,turn:turn.example:3478"),
                turn_secret: lend("a-secret-of-turn-for-fuzzing"),
                api_origins: lend("https://pages.example"),
                node_secret: lend(NODE_SECRET),
                turn_ttl: 600,
                genesys_uri: lend("sip:127.0.0.1:5090"),
                genesys_interval: 1,
                next_hop_interval: 1,
                call_history: 50,
                log_calls: 1,
                write_calls: 1,
                ..rtc_json_config_t::default()
            };
            let mut problem = [0u8; 256];
            // SAFETY: all of it lives until the call returns; the functions are there as long as the process
            let got = unsafe {
                rtc_json_init(
                    &raw const host,
                    &raw const config,
                    problem.as_mut_ptr().cast(),
                    problem.len(),
                )
            };
            assert_eq!(got, 0, "{}", String::from_utf8_lossy(&problem));
            assert_eq!(rtc_json_child_init(0), 0);
            Surface { _dir: dir }
        });
    }
}

/// Puts what only the core can name into a text; `|` is a line end of SIP.
fn fill(text: &[u8], crlf: bool) -> Vec<u8> {
    let Ok(text) = std::str::from_utf8(text) else {
        return text.to_vec();
    };
    let mut text = text.to_owned();
    if crlf {
        text = text.replace('|', "\r\n");
    }
    if !text.contains('$') {
        return text.into_bytes();
    }
    CALL.with_borrow(|call| text.replace("$call", call))
        .replace("$token", bearer())
        .into_bytes()
}

/// One line of `calls`.
pub fn call(line: &[u8]) {
    let Some((op, rest)) = line.split_first() else {
        return;
    };
    let word = std::str::from_utf8(rest).unwrap_or_default();
    let number = word.trim().parse::<i32>().unwrap_or_default();
    let sink = rtc_json_rpc_sink_t {
        ctx: std::ptr::null_mut(),
        row_begin: Some(mark),
        text: Some(text),
        number: Some(self::number),
        row_end: Some(mark),
    };
    let sink = &raw const sink;
    let source = lend("198.51.100.7");
    // a frame's or message's connection, or status
    let digit = i32::from(rest.first().copied().unwrap_or_default() & 7);
    let tail = rest.get(1..).unwrap_or_default();
    // SAFETY: everything lent here lives until the call returns, the structs are whole
    unsafe {
        match op {
            b'f' => {
                let frame = fill(tail, false);
                if rtc_json_frame_open(digit, source, lend_bytes(&frame)) == 1 {
                    variable("type");
                    variable("payload.password");
                    rtc_json_frame_close(lend(""), 0);
                }
            }
            b'o' => {
                let frame = fill(tail, false);
                rtc_json_frame_open(digit, source, lend_bytes(&frame));
            }
            b'h' => {
                rtc_json_frame_handle(lend_bytes(rest));
            }
            b'j' => {
                rtc_json_frame_reject(400 + number, lend("no"));
            }
            b'l' => rtc_json_frame_close(lend(""), number),
            b'c' => rtc_json_ws_closed(digit, source),
            b'n' => {
                rtc_json_ws_allowed(digit, source);
            }
            b'w' => {
                rtc_json_sip_wanted(lend_bytes(rest));
            }
            b's' => {
                let message = fill(tail, true);
                let request = rtc_json_sip_request_t {
                    message: lend_bytes(&message),
                    user: lend(if digit == 7 { "nobody" } else { "5001" }),
                    src_ip: lend("127.0.0.1"),
                    src_port: 5080,
                    index: 7,
                    label: digit as u32,
                };
                rtc_json_sip_request(&raw const request);
            }
            b'r' => {
                let asked = ASKED.with_borrow_mut(|all| match number < 0 {
                    true => all.last().cloned(),
                    false => all.pop(),
                });
                let challenge =
                    "WWW-Authenticate: Digest realm=\"a\", nonce=\"n\", qop=\"auth\"\r\n";
                if let Some(mut asked) = asked {
                    // a registrar that asks nobody is not believed where tokens are taken; 202 is one
                    if number == 200 && asked.method == "REGISTER" && !asked.proven {
                        answer(&asked, 401, challenge);
                        asked = ASKED.with_borrow_mut(Vec::pop).unwrap_or(asked);
                    }
                    let headers = if number.abs() == 401 {
                        challenge
                    } else {
                        "Expires: 60\r\n"
                    };
                    answer(&asked, number.abs(), headers);
                }
            }
            b'q' => {
                // tm took it for a reply; we cannot read it
                if let Some(asked) = ASKED.with_borrow_mut(Vec::pop) {
                    rtc_json_sip_reply(
                        lend(&asked.handle),
                        number,
                        lend("SIP/2.0 200 OK\r\nContent-Length: -999\r\n\r\n"),
                    );
                }
            }
            b'm' => {
                rtc_json_sip_reply(lend_bytes(rest), 200, lend(""));
            }
            b'g' => {
                let message = fill(rest, true);
                let target = message.split(|b| *b == b' ').nth(1).unwrap_or_default();
                let (mut out, mut close) = (lend(""), 0);
                if rtc_json_http_request(
                    lend_bytes(target),
                    lend_bytes(&message),
                    &raw mut out,
                    &raw mut close,
                ) == 1
                {
                    assert!(read(out).starts_with("HTTP/1.1 "));
                }
            }
            b'b' => rtc_json_directory_begin(),
            b'd' => {
                let mut parts = word.split(',').map(lend);
                let mut next = || parts.next().unwrap_or(lend(""));
                rtc_json_directory_row(next(), next(), next(), next());
            }
            b'e' => rtc_json_directory_end(),
            b'R' => rtc_json_records_write(),
            b't' => {
                rtc_json_tick();
            }
            b'v' => variable(word),
            b'S' => {
                let id = number as u32;
                let _about = (
                    rtc_json_stat_name(id),
                    rtc_json_stat_doc(id),
                    rtc_json_stat_is_gauge(id),
                    rtc_json_stat_value(id),
                );
            }
            b'A' => {
                rtc_json_rpc_agents(sink);
            }
            b'a' => {
                rtc_json_rpc_agent(lend_bytes(rest), sink);
            }
            b'C' => {
                rtc_json_rpc_calls(sink);
            }
            b'u' => {
                rtc_json_rpc_hangup(lend_bytes(&fill(rest, false)));
            }
            b'D' => {
                rtc_json_rpc_drain(number, sink);
            }
            b'T' => {
                rtc_json_rpc_stats(sink);
            }
            b'N' => {
                let mut out = lend("");
                if rtc_json_node_of(lend_bytes(rest), &raw mut out) == 1 {
                    assert!(read(out).starts_with("sip:"));
                }
            }
            b'L' => {
                let found = rtc_json_locate(lend_bytes(rest));
                assert!((0..=2).contains(&found));
                variable("node");
            }
            b'M' => {
                assert_eq!(
                    rtc_json_node_message(lend_bytes(rest)),
                    0,
                    "nobody sealed it"
                );
            }
            b'B' => {
                if let Ok(batch) = serde_json::from_slice(rest) {
                    from_node(&batch);
                }
            }
            b'E' => echo(word),
            b'P' => {
                rtc_json_rpc_nodes(sink);
            }
            b'x' => FAILING.set(number as u32),
            b'1' => AT_ONCE.set(number.clamp(0, 699)),
            _ => {}
        }
    }
}

/// Back to where a process begins.
pub fn reset() {
    FAILING.set(0);
    AT_ONCE.set(0);
    TOLD.set(false);
    ASKED.take();
    SEALED.take();
    CALL.take();
    call(b"l0");
    call(b"D0");
    forget_all();
}

/// Lines, each a call into the core: its letter and what it is given (see [`call`]). At the end no lock may be held.
pub fn calls(data: &[u8]) {
    Surface::start();
    TOLD.set(tells(data));
    for line in data.split(|b| *b == b'\n') {
        call(line);
    }
    reset();
}
