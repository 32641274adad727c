//! The C surface of the core: what the Kamailio module calls (`include/rtc_json.h` is generated from here).
//!
//! Every export runs inside one panic boundary and checks its pointers first; a status is returned, outputs come last and
//! stay untouched on failure. In the order in which a process calls them:
//!
//! 1. [`rtc_json_init`] once, before the fork; [`rtc_json_child_init`] in each process.
//! 2. Frames: [`rtc_json_frame_open`], then the script with [`rtc_json_frame_handle`] or [`rtc_json_frame_reject`], then
//!    [`rtc_json_frame_close`]; [`rtc_json_ws_allowed`] before a connection becomes a WebSocket, [`rtc_json_ws_closed`] at its end.
//! 3. SIP: [`rtc_json_sip_wanted`], [`rtc_json_sip_request`], [`rtc_json_sip_reply`].
//! 4. HTTP: [`rtc_json_http_request`].
//! 5. [`rtc_json_tick`] ten times a second, in one process.
//! 6. Any time: [`rtc_json_var`], the statistics, the RPC lists.

mod api;
mod attempts;
mod current;
mod directory;
mod entropy;
mod fault;
mod host;
mod ice;
mod nodes;
mod probes;
mod records;
mod rpc;
mod runtime;
mod settings;
mod sockets;
mod stats;
#[cfg(feature = "fault-injection")]
pub mod testing;
mod tokens;
mod watched;

use std::ffi::c_char;
use std::net::IpAddr;
use std::panic::{catch_unwind, AssertUnwindSafe};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::OnceLock;

use rtc_json_engine::{Handle, ServerTx};
use rtc_json_protocol::{parse, ClientMessage};
use rtc_json_sip::{unescape_user, Message};
use rtc_json_store::{Arena, Options};

use crate::host::{bytes, text, Host, Level};
use crate::host::{rtc_json_config_t, rtc_json_host_t, rtc_json_rpc_sink_t, rtc_json_str_t};
use crate::runtime::{Event, Runtime};
use crate::settings::Settings;
use crate::stats::Stat;

static RUNTIME: OnceLock<Runtime> = OnceLock::new();
/// The timer's process has told the agents of the start.
static STARTED: AtomicBool = AtomicBool::new(false);

/// A SIP request for an agent.
#[repr(C)]
#[allow(non_camel_case_types)]
pub struct rtc_json_sip_request_t {
    /// The whole message as received.
    pub message: rtc_json_str_t,
    /// User part of the Request-URI, as the script left it.
    pub user: rtc_json_str_t,
    /// Sender's address.
    pub src_ip: rtc_json_str_t,
    /// Sender's port.
    pub src_port: u16,
    /// Server transaction in tm; 0, 0 for ACK.
    pub index: u32,
    /// See `index`.
    pub label: u32,
}

/// Runs an export: no panic leaves it, and before `rtc_json_init` it does nothing.
fn guarded<T>(otherwise: T, run: impl FnOnce(&Runtime) -> T) -> T {
    let Some(runtime) = RUNTIME.get() else {
        return otherwise;
    };
    catch_unwind(AssertUnwindSafe(|| {
        fault::point();
        run(runtime)
    }))
    .unwrap_or_else(|_| {
        // nothing that runs here may panic again and leave the boundary
        let _logged = catch_unwind(AssertUnwindSafe(|| {
            runtime.count(Stat::StepFailures);
            runtime.host.log(
                Level::Error,
                "an event was given up after a fault of the program",
            );
        }));
        otherwise
    })
}

/// Checks the parameters and opens the arena. Before any fork.
///
/// 0: ok. -1: `err` (NUL-ended, at most `err_len` bytes) says what is wrong and what to write instead.
///
/// # Safety
/// `host` and `config` must point to valid structs; the functions must be there as long as the process; `err` must have
/// room for `err_len` bytes.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_init(
    host: *const rtc_json_host_t,
    config: *const rtc_json_config_t,
    err: *mut c_char,
    err_len: usize,
) -> i32 {
    let result = catch_unwind(AssertUnwindSafe(|| {
        // SAFETY: the caller's promise; null is checked
        let (host, config) = unsafe { (host.as_ref(), config.as_ref()) };
        let (Some(host), Some(config)) = (host, config) else {
            return Err("no host or no configuration given".to_owned());
        };
        // SAFETY: the strings in `config` are readable for the length of the call
        unsafe { start(host, config) }
    }));
    let message = match result {
        Ok(Ok(())) => return 0,
        Ok(Err(message)) => message,
        Err(_) => "a fault of the program".to_owned(),
    };
    if !err.is_null() && err_len > 0 {
        let len = message.len().min(err_len - 1);
        // SAFETY: `err` has room for `err_len` bytes
        unsafe {
            std::ptr::copy_nonoverlapping(message.as_ptr(), err.cast(), len);
            *err.add(len) = 0;
        }
    }
    -1
}

/// # Safety
/// The strings in `config` must be readable for the length of the call.
unsafe fn start(host: &rtc_json_host_t, config: &rtc_json_config_t) -> Result<(), String> {
    let host = Host::new(host).ok_or("the host table is not complete")?;
    // SAFETY: the caller's promise
    let settings = unsafe { Settings::new(config) }.map_err(|error| error.to_string())?;
    let options = Options {
        size: settings.arena_size,
        boot_id: boot_id(),
    };
    let (arena, recovery) = Arena::open(&settings.arena_path, &options).map_err(|error| {
        format!(
            "arena_path: {} cannot be used: {error}",
            settings.arena_path.display()
        )
    })?;
    host.log(Level::Info, &format!("arena: {recovery:?}"));
    let mut start = [0u8; 8];
    rand_core::RngCore::fill_bytes(&mut rand_core::OsRng, &mut start);
    let runtime = Runtime {
        host,
        config: settings.engine,
        limits: settings.limits,
        tokens: settings.tokens,
        ice: settings.ice,
        api: settings.api,
        targets: settings.targets,
        probed_at: Default::default(),
        attempts: settings.attempts,
        max_sockets: settings.max_sockets,
        away_reply: settings.away_reply,
        records: settings.records,
        nodes: settings.nodes,
        log_messages: settings.log_messages,
        arena,
        start: u64::from_le_bytes(start),
        ticks: AtomicU64::new(0),
    };
    runtime.recount();
    runtime.forget_probes();
    // who restarts it wants to use it
    runtime.stat(Stat::Draining).store(0, Ordering::Relaxed);
    RUNTIME
        .set(runtime)
        .map_err(|_| "started twice in one process".to_owned())
}

/// Records of another boot of the machine are worth nothing: the clock began anew, and no socket is left.
fn boot_id() -> [u8; 16] {
    let mut id = [0u8; 16];
    if let Ok(text) = std::fs::read_to_string("/proc/sys/kernel/random/boot_id") {
        let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
        for (byte, pair) in id.iter_mut().zip(digits.chunks(2)) {
            let pair = std::str::from_utf8(pair).unwrap_or_default();
            *byte = u8::from_str_radix(pair, 16).unwrap_or_default();
        }
    }
    id
}

/// In each process after the fork. May run twice in one process. 0 or -1.
#[no_mangle]
pub extern "C" fn rtc_json_child_init(_rank: i32) -> i32 {
    guarded(-1, |_| 0)
}

/// A text frame that came on a WebSocket.
///
/// 1: it parsed and stands open in this process: run the event route, then in any case [`rtc_json_frame_close`].
/// 0: it was malformed and is answered already.
///
/// # Safety
/// The strings must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_frame_open(
    conn: i32,
    src_ip: rtc_json_str_t,
    frame: rtc_json_str_t,
) -> i32 {
    // SAFETY: the caller's promise
    let (addr, frame) = unsafe { (text(src_ip), bytes(frame)) };
    guarded(0, |runtime| {
        let connection = runtime.connection(conn);
        if connection.closing {
            // a second close, while the far side owes its answer to the first, ends the TCP connection
            runtime.host.ws_close(conn, 1008, "");
            return 0;
        }
        runtime.count(Stat::FramesIn);
        let request = match parse(frame, &runtime.limits) {
            Ok(request) => request,
            Err(bad) => {
                runtime.bad_frame(conn, &bad);
                return 0;
            }
        };
        let dn = match &request.message {
            ClientMessage::Register(register) => register.dn.clone().unwrap_or_default(),
            _ => connection.dn,
        };
        if runtime.log_messages {
            let kind = rtc_json_protocol::variable(frame, "type").unwrap_or_default();
            runtime.log_message(&dn, conn, '<', &kind, frame.len());
        }
        let open = current::Open::new(conn, address(addr), dn, request, frame);
        current::set_open(Some(open));
        1
    })
}

/// Acts on the open message. `next_hop`: SIP URI that the script chose, or empty. 1: done. -1: there is no open message, or
/// it was acted on before.
///
/// # Safety
/// The string must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_frame_handle(next_hop: rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let next_hop = unsafe { text(next_hop) };
    guarded(-1, |runtime| act(runtime, next_hop))
}

fn act(runtime: &Runtime, next_hop: &str) -> i32 {
    let Some((conn, addr, owner, request)) = current::take_request() else {
        return -1;
    };
    let next_hop = Some(next_hop.to_owned()).filter(|hop| !hop.is_empty());
    runtime.message(conn, addr, owner, request, Event::Act { next_hop });
    1
}

/// Refuses the open message with `error` (a `register` with `registrationFailed`). 1: done. -1: no open message, or acted on
/// before. -2: code outside 400 to 699, or a reason with control characters.
///
/// # Safety
/// The string must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_frame_reject(code: i32, reason: rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let reason = unsafe { text(reason) };
    guarded(-1, |runtime| refuse(runtime, code, reason))
}

fn refuse(runtime: &Runtime, code: i32, reason: &str) -> i32 {
    let code = match u16::try_from(code) {
        Ok(code @ 400..=699) if !reason.chars().any(char::is_control) => code,
        _ => return -2,
    };
    let Some((conn, addr, owner, request)) = current::take_request() else {
        return -1;
    };
    let reason = reason.to_owned();
    runtime.message(conn, addr, owner, request, Event::Refuse { code, reason });
    1
}

/// Ends the open message. One that the script neither handled nor refused is handled now, with that next hop; or refused with
/// 403 if `dropped` is not 0.
///
/// # Safety
/// The string must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_frame_close(next_hop: rtc_json_str_t, dropped: i32) {
    // SAFETY: the caller's promise
    let next_hop = unsafe { text(next_hop) };
    guarded((), |runtime| {
        if dropped == 0 {
            act(runtime, next_hop);
        } else {
            refuse(runtime, 403, "Forbidden");
        }
    });
    guarded((), |_| drop(current::set_open(None)));
}

/// A connection of that address wants to become a WebSocket. 1: it may, and counts from now on. 0: the address has too many.
///
/// # Safety
/// The string must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_ws_allowed(conn: i32, src_ip: rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let src_ip = unsafe { text(src_ip) };
    guarded(1, |runtime| {
        let addr = address(src_ip);
        i32::from(addr.is_none_or(|addr| runtime.socket_opens(conn, addr)))
    })
}

/// A WebSocket connection of that address is gone. May be told twice.
///
/// # Safety
/// The string must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_ws_closed(conn: i32, src_ip: rtc_json_str_t) {
    // SAFETY: the caller's promise
    let src_ip = unsafe { text(src_ip) };
    guarded((), |runtime| {
        if let Some(addr) = address(src_ip) {
            runtime.socket_closed(conn, addr);
        }
        runtime.closed(conn);
    });
}

/// An address as Kamailio writes it: IPv6 with brackets or without.
fn address(text: &str) -> Option<IpAddr> {
    text.trim_matches(['[', ']']).parse().ok()
}

/// Does a SIP request to that user belong to an agent here? 1: yes, 0: no.
///
/// # Safety
/// The string must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_sip_wanted(user: rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let user = unsafe { text(user) };
    guarded(0, |runtime| i32::from(runtime.wanted(&unescape_user(user))))
}

/// Which other node has the agent that a SIP request is for? 1: `*out` is its SIP URI, valid until the next call. 0: none that
/// lives.
///
/// # Safety
/// `user` must be readable for the length of the call, `out` writable.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_node_of(user: rtc_json_str_t, out: *mut rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let user = unsafe { text(user) };
    guarded(0, |runtime| {
        let Some((s, len)) = nodes::node_of(runtime, &unescape_user(user)) else {
            return 0;
        };
        if out.is_null() {
            return 0;
        }
        // SAFETY: not null, and writable by the caller's promise
        unsafe { *out = rtc_json_str_t { s: s.cast(), len } };
        1
    })
}

/// Where does the agent live whose number `user` is? 1: here, 2: on another node that was heard of lately, 0: nowhere. For 1 and 2
/// `$rtcj(node)` is that node's SIP URI.
///
/// # Safety
/// `user` must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_locate(user: rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let user = unsafe { text(user) };
    guarded(0, |runtime| nodes::locate(runtime, &unescape_user(user)))
}

/// A message of another node. 1: taken, 0: it was not sealed with our secret.
///
/// # Safety
/// `body` must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_node_message(body: rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let body = unsafe { bytes(body) };
    guarded(0, |runtime| i32::from(runtime.node_message(body)))
}

/// Lists the nodes, this one first. 0 or -1.
///
/// # Safety
/// `sink` must point to a valid struct.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_rpc_nodes(sink: *const rtc_json_rpc_sink_t) -> i32 {
    // SAFETY: the caller's promise
    let sink = unsafe { host::Sink::new(sink) };
    guarded(-1, |runtime| {
        sink.map_or(-1, |sink| nodes::list(runtime, &sink))
    })
}

/// A SIP request for an agent; tm holds its transaction, except for ACK. A request other than INVITE is answered before this
/// returns. 1: taken. 0: there is no such agent after all.
///
/// # Safety
/// `request` must point to a valid struct whose strings are readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_sip_request(request: *const rtc_json_sip_request_t) -> i32 {
    // SAFETY: the caller's promise
    let Some(request) = (unsafe { request.as_ref() }) else {
        return 0;
    };
    // SAFETY: the caller's promise
    let (raw, user, src) = unsafe {
        (
            bytes(request.message),
            text(request.user),
            text(request.src_ip),
        )
    };
    guarded(0, |runtime| {
        let Ok(message) = Message::parse(raw) else {
            return 0;
        };
        let ack = message.method() == Some("ACK");
        let tx = (!ack).then_some(ServerTx {
            index: request.index,
            label: request.label,
        });
        let src = src.trim_matches(['[', ']']).parse::<IpAddr>().ok();
        i32::from(runtime.sip_request(&unescape_user(user), user, &message, tx, src))
    })
}

/// A reply to a request of ours. `handle`: as given with the request. `message`: the whole reply; empty when tm made it up.
///
/// # Safety
/// The strings must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_sip_reply(
    handle: rtc_json_str_t,
    code: i32,
    message: rtc_json_str_t,
) {
    // SAFETY: the caller's promise
    let (handle, raw) = unsafe { (text(handle), bytes(message)) };
    guarded((), |runtime| {
        let (Some(handle), Ok(code)) = (Handle::parse(handle), u16::try_from(code)) else {
            return;
        };
        let message = Message::parse(raw).ok();
        // what cannot be read grants nothing, whatever its status: a 2xx would have no dialog to go with it
        let code = match raw.is_empty() || message.is_some() {
            true => code,
            false if code < 200 => return,
            false => 502,
        };
        runtime.sip_reply(handle, code, message.as_ref());
    });
}

/// Answers an HTTP request: `message` is all of it, `target` what stands behind its method.
///
/// 1: `*out` is the response, valid until the next call, and `*close` says whether the connection ends with it. 0: it is not for
/// the API.
///
/// # Safety
/// The strings must be readable for the length of the call, `out` and `close` writable.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_http_request(
    target: rtc_json_str_t,
    message: rtc_json_str_t,
    out: *mut rtc_json_str_t,
    close: *mut i32,
) -> i32 {
    // SAFETY: the caller's promise
    let (target, raw) = unsafe { (bytes(target), bytes(message)) };
    if out.is_null() || close.is_null() {
        return 0;
    }
    let fault = (api::FAULT.as_ptr(), api::FAULT.len(), true);
    let answer = guarded(Some(fault), |runtime| {
        rtc_json_api::rest::is_ours(target).then(|| api::answer(runtime, raw))
    });
    let Some((s, len, ends)) = answer else {
        return 0;
    };
    // SAFETY: not null, and writable by the caller's promise
    unsafe {
        *out = rtc_json_str_t { s: s.cast(), len };
        *close = i32::from(ends);
    }
    1
}

/// The directory's table is read: this, then [`rtc_json_directory_row`] for each row, then [`rtc_json_directory_end`]. Without the
/// last of them nothing is forgotten.
#[no_mangle]
pub extern "C" fn rtc_json_directory_begin() {
    guarded((), Runtime::directory_begin);
}

/// A row of the directory's table. 0: taken, or passed over. -1: there is no room for it.
///
/// # Safety
/// The strings must be readable for the length of the call.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_directory_row(
    dn: rtc_json_str_t,
    display_name: rtc_json_str_t,
    genesys_agent: rtc_json_str_t,
    skills: rtc_json_str_t,
) -> i32 {
    // SAFETY: the caller's promise
    let [dn, name, agent, skills] =
        [dn, display_name, genesys_agent, skills].map(|value| unsafe { text(value) });
    guarded(-1, |runtime| {
        match runtime.directory_row(dn, name, agent, skills) {
            true => 0,
            false => -1,
        }
    })
}

/// The directory's table has been read to its end.
#[no_mangle]
pub extern "C" fn rtc_json_directory_end() {
    guarded((), Runtime::directory_end);
}

/// Writes records of calls that wait for their table; every second, in one process.
#[no_mangle]
pub extern "C" fn rtc_json_records_write() {
    guarded((), Runtime::write_records);
}

/// Every 100 ms, in one process. 1: the server is empty and is to end, told once. 0: go on.
#[no_mangle]
pub extern "C" fn rtc_json_tick() -> i32 {
    guarded(0, |runtime| {
        if !STARTED.swap(true, Ordering::Relaxed) {
            runtime.after_start();
        }
        runtime.tick();
        i32::from(runtime.is_to_end())
    })
}

/// `$rtcj(name)` in this process's current event. 1: `*out` is set and valid until the next call. 0: there is no such value.
/// Never gives a secret.
///
/// # Safety
/// `name` must be readable for the length of the call, `out` writable.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_var(name: rtc_json_str_t, out: *mut rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let name = unsafe { text(name) };
    guarded(0, |_| match current::value(name) {
        Some((s, len)) if !out.is_null() => {
            // SAFETY: not null, and writable by the caller's promise
            unsafe { *out = rtc_json_str_t { s: s.cast(), len } };
            1
        }
        _ => 0,
    })
}

fn entry(id: u32) -> Option<&'static stats::Entry> {
    stats::ALL.get(usize::try_from(id).ok()?)
}

/// Name of a statistic; null after the last.
#[no_mangle]
pub extern "C" fn rtc_json_stat_name(id: u32) -> *const c_char {
    entry(id).map_or(std::ptr::null(), |e| e.name.as_ptr())
}

/// What it counts; null after the last.
#[no_mangle]
pub extern "C" fn rtc_json_stat_doc(id: u32) -> *const c_char {
    entry(id).map_or(std::ptr::null(), |e| e.doc.as_ptr())
}

/// 1 if it goes up and down.
#[no_mangle]
pub extern "C" fn rtc_json_stat_is_gauge(id: u32) -> i32 {
    entry(id).map_or(0, |e| i32::from(e.gauge))
}

/// Its value.
#[no_mangle]
pub extern "C" fn rtc_json_stat_value(id: u32) -> u64 {
    guarded(0, |runtime| entry(id).map_or(0, |e| runtime.value(e.stat)))
}

/// Lists the agents. 0 or -1.
///
/// # Safety
/// `sink` must point to a valid struct.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_rpc_agents(sink: *const rtc_json_rpc_sink_t) -> i32 {
    // SAFETY: the caller's promise
    let sink = unsafe { host::Sink::new(sink) };
    guarded(-1, |runtime| {
        sink.map_or(-1, |sink| rpc::agents(runtime, &sink))
    })
}

/// Shows one agent: its sessions and calls. 0, or -1 if there is none with that DN.
///
/// # Safety
/// `sink` must point to a valid struct, `dn` be readable.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_rpc_agent(
    dn: rtc_json_str_t,
    sink: *const rtc_json_rpc_sink_t,
) -> i32 {
    // SAFETY: the caller's promise
    let (sink, dn) = unsafe { (host::Sink::new(sink), text(dn)) };
    guarded(-1, |runtime| {
        sink.map_or(-1, |sink| rpc::agent(runtime, dn, &sink))
    })
}

/// Lists the calls. 0 or -1.
///
/// # Safety
/// `sink` must point to a valid struct.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_rpc_calls(sink: *const rtc_json_rpc_sink_t) -> i32 {
    // SAFETY: the caller's promise
    let sink = unsafe { host::Sink::new(sink) };
    guarded(-1, |runtime| {
        sink.map_or(-1, |sink| rpc::calls(runtime, &sink))
    })
}

/// Ends a call. 0, or -1 if there is none with that `callId`.
///
/// # Safety
/// `call_id` must be readable.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_rpc_hangup(call_id: rtc_json_str_t) -> i32 {
    // SAFETY: the caller's promise
    let call_id = unsafe { text(call_id) };
    guarded(-1, |runtime| rpc::hangup(runtime, call_id))
}

/// Lets the server become empty (`mode` 1), and end then (2), or fill again (0), and shows what is left. 0 or -1.
///
/// # Safety
/// `sink` must point to a valid struct.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_rpc_drain(mode: i32, sink: *const rtc_json_rpc_sink_t) -> i32 {
    // SAFETY: the caller's promise
    let sink = unsafe { host::Sink::new(sink) };
    guarded(-1, |runtime| {
        sink.map_or(-1, |sink| {
            rpc::drain(runtime, runtime::Drain::from(mode), &sink)
        })
    })
}

/// Shows the statistics. 0 or -1.
///
/// # Safety
/// `sink` must point to a valid struct.
#[no_mangle]
pub unsafe extern "C" fn rtc_json_rpc_stats(sink: *const rtc_json_rpc_sink_t) -> i32 {
    // SAFETY: the caller's promise
    let sink = unsafe { host::Sink::new(sink) };
    guarded(-1, |runtime| {
        sink.map_or(-1, |sink| rpc::stats(runtime, &sink))
    })
}
