//! What the routing script can ask about: the message or the ended call that this process is at.
//!
//! Process-local: a worker handles one event at a time, and `$rtcj(...)` speaks of that one.

use std::cell::RefCell;
use std::hint::black_box;
use std::net::IpAddr;

use rtc_json_engine::CallRecord;
use rtc_json_protocol::{variable, ClientMessage, Request};

use crate::records::past_call;

/// A message that stands open.
pub struct Open {
    /// Its connection.
    pub conn: i32,
    /// Address of the browser.
    pub addr: Option<IpAddr>,
    /// DN of the connection, or the one that a `register` names.
    pub dn: String,
    /// The message; none once it was acted on.
    pub request: Option<Request>,
    /// The frame, for variables.
    frame: Vec<u8>,
}

impl Open {
    /// Opens a message; the frame is copied.
    pub fn new(
        conn: i32,
        addr: Option<IpAddr>,
        dn: String,
        request: Request,
        frame: &[u8],
    ) -> Self {
        Open {
            conn,
            addr,
            dn,
            request: Some(request),
            frame: frame.to_vec(),
        }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        // it may hold a password
        self.frame.fill(0);
        black_box(&self.frame);
    }
}

thread_local! {
    static OPEN: RefCell<Option<Open>> = const { RefCell::new(None) };
    static CALL: RefCell<Option<CallRecord>> = const { RefCell::new(None) };
    /// What was located last.
    static NODE: RefCell<Option<String>> = const { RefCell::new(None) };
    static VALUE: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Puts the open message in place, or takes it away.
pub fn set_open(open: Option<Open>) -> Option<Open> {
    OPEN.with(|slot| slot.replace(open))
}

/// Takes the open message's request, to act on it once: connection, address of the browser, DN, message.
pub fn take_request() -> Option<(i32, Option<IpAddr>, String, Request)> {
    OPEN.with(|slot| {
        let mut slot = slot.borrow_mut();
        let open = slot.as_mut()?;
        let request = open.request.take()?;
        Some((open.conn, open.addr, open.dn.clone(), request))
    })
}

/// Runs something during which `$rtcj(call.*)` speaks of that call.
pub fn with_call(record: CallRecord, run: impl FnOnce()) {
    let before = CALL.with(|slot| slot.replace(Some(record)));
    run();
    CALL.with(|slot| slot.replace(before));
}

/// Notes the node that was located, for `$rtcj(node)`.
pub fn set_node(uri: Option<String>) {
    NODE.with(|slot| *slot.borrow_mut() = uri);
}

/// The value of `$rtcj(name)`; what it points to is valid until the next call.
pub fn value(name: &str) -> Option<(*const u8, usize)> {
    let found = match name.strip_prefix("call.") {
        Some(field) => CALL.with(|slot| slot.borrow().as_ref().and_then(|c| of_call(c, field))),
        None => of_process(name)
            .or_else(|| OPEN.with(|slot| slot.borrow().as_ref().and_then(|o| of_message(o, name)))),
    }?;
    VALUE.with(|slot| {
        let mut slot = slot.borrow_mut();
        *slot = found;
        Some((slot.as_ptr(), slot.len()))
    })
}

/// What does not belong to an event.
fn of_process(name: &str) -> Option<String> {
    match name {
        "node" => NODE.with(|slot| slot.borrow().clone()),
        _ => None,
    }
}

fn of_message(open: &Open, name: &str) -> Option<String> {
    match name {
        "dn" => Some(open.dn.clone()),
        "conn" => Some(open.conn.to_string()),
        "addr" => open.addr.map(|a| a.to_string()),
        // what scripts ask for again and again: without reading the whole frame once more, with its description
        "type" => plain_type(&open.frame).or_else(|| variable(&open.frame, name)),
        "payload.to" => match open.request.as_ref().map(|request| &request.message) {
            Some(ClientMessage::Call(call)) => Some(call.to.clone()),
            _ => variable(&open.frame, name),
        },
        _ => variable(&open.frame, name),
    }
}

/// The type of a frame that begins with it; the frame has been read as JSON before.
fn plain_type(frame: &[u8]) -> Option<String> {
    let rest = frame.strip_prefix(b"{\"type\":\"")?;
    let kind = &rest[..rest.iter().position(|b| *b == b'"')?];
    let plain = kind.iter().all(u8::is_ascii_alphanumeric);
    plain.then(|| String::from_utf8_lossy(kind).into_owned())
}

fn of_call(call: &CallRecord, field: &str) -> Option<String> {
    Some(match field {
        "id" => call.id.clone(),
        "sip_call_id" => call.sip_call_id.clone(),
        "dn" => call.dn.clone(),
        "direction" => call.direction.as_str().to_owned(),
        "from" => call.from.clone(),
        "to" => call.to.clone(),
        "reason" => call.reason.as_str().to_owned(),
        "code" => call.code.to_string(),
        "cause" => call.cause.to_string(),
        "started" => (call.started / 1000).to_string(),
        "duration" => call.duration.to_string(),
        "answered" => u8::from(call.answered).to_string(),
        "ring_after" => call.ring_after.to_string(),
        "answer_after" => call.answer_after.to_string(),
        "transferred_to" => past_call(call).transferred_to()?.to_owned(),
        "transfers" => Some(past_call(call).transfers_json()).filter(|t| !t.is_empty())?,
        _ => return None,
    })
}
