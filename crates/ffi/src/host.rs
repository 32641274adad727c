//! The host: Kamailio as the C skin shows it (`include/rtc_json_host.h`), behind safe functions.

#[allow(
    missing_docs,
    non_camel_case_types,
    non_upper_case_globals,
    dead_code,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
mod raw {
    include!(concat!(env!("OUT_DIR"), "/host.rs"));
}

use std::ffi::c_void;

pub use raw::{
    rtc_json_call_record_t, rtc_json_config_t, rtc_json_host_t, rtc_json_reply_t,
    rtc_json_request_t, rtc_json_rpc_sink_t, rtc_json_str_t,
};

use rtc_json_api::calls::{iso_time, PastCall};
use rtc_json_engine::{ServerTx, SipReply, SipRequest};

/// Kamailio's log levels (core/dprint.h).
#[derive(Clone, Copy, Debug)]
pub enum Level {
    /// Something is broken.
    Error = -1,
    /// Something is odd.
    Warning = 0,
    /// Not wrong, and rare.
    Notice = 1,
    /// Worth knowing in normal operation.
    Info = 2,
}

/// An answer of the user table.
pub enum Ha1Answer {
    /// The user's HA1.
    Found(String),
    /// There is no such user.
    Unknown,
    /// The table could not be asked.
    Failed,
}

/// What became of the record of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Written {
    /// It is in the table.
    Yes,
    /// The table cannot be reached.
    NotNow,
    /// The table does not take it.
    Refused,
}

/// The host's functions. All are there: [`Host::new`] checks it.
pub struct Host(rtc_json_host_t);

// SAFETY: the table holds only function pointers of the C skin, which are valid in every process and thread.
unsafe impl Send for Host {}
// SAFETY: as above; the table is never changed.
unsafe impl Sync for Host {}

/// Borrows text for the length of a call into the host.
fn lend(text: &str) -> rtc_json_str_t {
    rtc_json_str_t {
        s: text.as_ptr().cast(),
        len: text.len(),
    }
}

/// The bytes behind a borrowed string of C.
///
/// # Safety
/// `text.s` must point to `text.len` readable bytes that stay as they are for `'a`, or `len` must be 0.
pub unsafe fn bytes<'a>(text: rtc_json_str_t) -> &'a [u8] {
    if text.s.is_null() || text.len == 0 {
        return &[];
    }
    // SAFETY: the caller's promise
    unsafe { std::slice::from_raw_parts(text.s.cast(), text.len) }
}

/// The text behind a borrowed string of C; what is not UTF-8 counts as empty.
///
/// # Safety
/// As for [`bytes`].
pub unsafe fn text<'a>(value: rtc_json_str_t) -> &'a str {
    // SAFETY: the caller's promise
    std::str::from_utf8(unsafe { bytes(value) }).unwrap_or_default()
}

impl Host {
    /// Takes the table over; none if a function is missing.
    pub fn new(table: &rtc_json_host_t) -> Option<Self> {
        let whole = table.log.is_some()
            && table.ws_send.is_some()
            && table.ws_close.is_some()
            && table.request.is_some()
            && table.cancel.is_some()
            && table.reply.is_some()
            && table.pass_on.is_some()
            && table.ha1.is_some()
            && table.directory_write.is_some()
            && table.conn_alive.is_some()
            && table.record_write.is_some()
            && table.node_broadcast.is_some()
            && table.call_ended.is_some();
        whole.then_some(Host(*table))
    }

    /// Writes a log line.
    pub fn log(&self, level: Level, line: &str) {
        if let Some(log) = self.0.log {
            // SAFETY: `new` took the function from the C skin, which keeps to rtc_json_host.h
            unsafe { log(level as i32, lend(line)) }
        }
    }

    /// Sends a frame; false if the connection is gone.
    pub fn ws_send(&self, conn: i32, frame: &str) -> bool {
        self.0.ws_send.is_some_and(|send| {
            // SAFETY: as in `log`
            unsafe { send(conn, lend(frame)) >= 0 }
        })
    }

    /// Closes a connection.
    pub fn ws_close(&self, conn: i32, status: u16, reason: &str) {
        if let Some(close) = self.0.ws_close {
            // SAFETY: as in `log`
            unsafe { close(conn, i32::from(status), lend(reason)) }
        }
    }

    /// Starts a client transaction; false if nothing was sent.
    pub fn request(&self, request: &SipRequest) -> bool {
        let handle = request.handle.to_string();
        let raw = rtc_json_request_t {
            method: lend(request.method),
            ruri: lend(&request.uri),
            from: lend(&request.from),
            from_tag: lend(&request.from_tag),
            to: lend(&request.to),
            to_tag: lend(&request.to_tag),
            call_id: lend(&request.call_id),
            cseq: request.cseq,
            next_hop: lend(&request.next_hop),
            headers: lend(&request.headers),
            body: lend(&request.body),
            handle: lend(&handle),
        };
        self.0.request.is_some_and(|send| {
            // SAFETY: as in `log`; `raw` and all it lends live until the call returns
            unsafe { send(&raw) >= 0 }
        })
    }

    /// Cancels an INVITE of ours; false if tm no longer knows it.
    pub fn cancel(&self, call_id: &str, cseq: u32) -> bool {
        self.0.cancel.is_some_and(|cancel| {
            // SAFETY: as in `log`
            unsafe { cancel(lend(call_id), cseq) >= 0 }
        })
    }

    /// Answers a request; false if its transaction is gone.
    pub fn reply(&self, reply: &SipReply) -> bool {
        let raw = rtc_json_reply_t {
            index: reply.tx.index,
            label: reply.tx.label,
            code: i32::from(reply.code),
            reason: lend(reply.reason),
            to_tag: lend(&reply.to_tag),
            headers: lend(&reply.headers),
            body: lend(&reply.body),
        };
        self.0.reply.is_some_and(|answer| {
            // SAFETY: as in `log`; `raw` and all it lends live until the call returns
            unsafe { answer(&raw) >= 0 }
        })
    }

    /// Lets another node answer an INVITE; false if its transaction is gone, or that node cannot be reached.
    pub fn pass_on(&self, tx: ServerTx, uri: &str) -> bool {
        self.0.pass_on.is_some_and(|pass_on| {
            // SAFETY: as in `log`
            unsafe { pass_on(tx.index, tx.label, lend(uri)) >= 0 }
        })
    }

    /// Writes an agent's skills into the directory's table, if there is one; false if it cannot be.
    pub fn directory_write(&self, dn: &str, skills: &str) -> bool {
        self.0.directory_write.is_some_and(|write| {
            // SAFETY: as in `log`
            unsafe { write(lend(dn), lend(skills)) >= 0 }
        })
    }

    /// Is there still a connection of that number?
    pub fn conn_alive(&self, conn: i32) -> bool {
        self.0.conn_alive.is_some_and(|alive| {
            // SAFETY: as in `log`
            unsafe { alive(conn) != 0 }
        })
    }

    /// Writes the record of a call into its table.
    pub fn record_write(&self, call: &PastCall) -> Written {
        let started = iso_time(call.started);
        let number = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
        let transfers = call.transfers_json();
        let raw = rtc_json_call_record_t {
            call_id: lend(&call.call_id),
            sip_call_id: lend(&call.sip_call_id),
            dn: lend(&call.dn),
            direction: lend(call.direction()),
            caller: lend(&call.from),
            callee: lend(&call.to),
            started: lend(&started),
            reason: lend(&call.reason),
            transferred_to: lend(call.transferred_to().unwrap_or_default()),
            transfers: lend(&transfers),
            answered: call.answered.into(),
            duration: number(call.duration),
            code: call.code.into(),
            cause: call.cause.into(),
            ring_after: number(call.ring_after),
            answer_after: number(call.answer_after),
            recorded: call.recorded.into(),
        };
        let Some(write) = self.0.record_write else {
            return Written::NotNow;
        };
        // SAFETY: as in `log`; `raw` and all it lends live until the call returns
        match unsafe { write(&raw) } {
            0.. => Written::Yes,
            -2 => Written::Refused,
            _ => Written::NotNow,
        }
    }

    /// Sends a message to all other nodes; false if it cannot be.
    pub fn node_broadcast(&self, body: &str) -> bool {
        self.0.node_broadcast.is_some_and(|send| {
            // SAFETY: as in `log`
            unsafe { send(lend(body)) >= 0 }
        })
    }

    /// Asks the user table.
    pub fn ha1(&self, user: &str, realm: &str) -> Ha1Answer {
        use raw::rtc_json_ha1_result as result;
        let mut out = [0u8; 129];
        let Some(ask) = self.0.ha1 else {
            return Ha1Answer::Failed;
        };
        // SAFETY: as in `log`; `out` is as long as said
        let answer = unsafe { ask(lend(user), lend(realm), out.as_mut_ptr().cast(), out.len()) };
        match answer {
            result::RTC_JSON_HA1_FOUND => {
                let end = out.iter().position(|b| *b == 0).unwrap_or(out.len());
                match std::str::from_utf8(&out[..end]) {
                    Ok(ha1) => Ha1Answer::Found(ha1.to_owned()),
                    Err(_) => Ha1Answer::Unknown,
                }
            }
            result::RTC_JSON_HA1_UNKNOWN => Ha1Answer::Unknown,
            _ => Ha1Answer::Failed,
        }
    }

    /// Runs `event_route[rtc_json:call-ended]`.
    pub fn call_ended(&self) {
        if let Some(run) = self.0.call_ended {
            // SAFETY: as in `log`
            unsafe { run() }
        }
    }
}

/// Where an RPC answer goes.
pub struct Sink<'a>(&'a rtc_json_rpc_sink_t);

impl<'a> Sink<'a> {
    /// Takes the sink; none if a function is missing.
    ///
    /// # Safety
    /// `raw` must be null or point to a sink that lives for `'a`.
    pub unsafe fn new(raw: *const rtc_json_rpc_sink_t) -> Option<Self> {
        // SAFETY: the caller's promise
        let sink = unsafe { raw.as_ref() }?;
        let whole = sink.row_begin.is_some()
            && sink.text.is_some()
            && sink.number.is_some()
            && sink.row_end.is_some();
        whole.then_some(Sink(sink))
    }

    /// Writes one row.
    pub fn row(&self, fill: impl FnOnce(&Row<'_>)) {
        self.mark(self.0.row_begin);
        fill(&Row(self.0));
        self.mark(self.0.row_end);
    }

    fn mark(&self, function: Option<unsafe extern "C" fn(*mut c_void)>) {
        if let Some(function) = function {
            // SAFETY: the C skin's own function with its own context
            unsafe { function(self.0.ctx) }
        }
    }
}

/// One row of an RPC answer.
pub struct Row<'a>(&'a rtc_json_rpc_sink_t);

impl Row<'_> {
    /// A text field.
    pub fn text(&self, name: &std::ffi::CStr, value: &str) {
        if let Some(function) = self.0.text {
            // SAFETY: the C skin's own function with its own context; name and value outlive the call
            unsafe { function(self.0.ctx, name.as_ptr(), lend(value)) }
        }
    }

    /// A number field.
    pub fn number(&self, name: &std::ffi::CStr, value: u64) {
        if let Some(function) = self.0.number {
            let value = i64::try_from(value).unwrap_or(i64::MAX);
            // SAFETY: as in `text`
            unsafe { function(self.0.ctx, name.as_ptr(), value) }
        }
    }
}
