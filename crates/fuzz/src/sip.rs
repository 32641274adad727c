//! SIP messages, read by themselves and as events of an agent with calls.

use rtc_json_engine::{Handle, Input, ServerTx};
use rtc_json_sip::{
    answered_elsewhere, contact_expires, min_expires, reasons, sipfrag_status, split_list,
    Challenge, Dialog, Message, NameAddr, Uri,
};

use crate::frames::{checked, with_busy};

/// Asks a message what the engine asks, and more.
fn exercise(message: &Message<'_>) {
    for (name, value) in message.all_headers() {
        assert!(!value.contains(char::is_control), "{name}: {value:?}");
        for element in split_list(&value) {
            if let Ok(addr) = NameAddr::parse(element) {
                // what we write of it, we read the same
                let again = NameAddr::parse(&addr.to_string());
                assert_eq!(again.as_ref(), Ok(&addr), "{element}");
                if let Ok(uri) = Uri::parse(&addr.uri) {
                    assert!(uri.same_place(&uri) || !uri.host.is_empty());
                }
            }
        }
        let _challenge = Challenge::parse(&value);
    }
    for dialog in [
        Dialog::incoming(message, "tag"),
        Dialog::from_reply(message),
    ]
    .into_iter()
    .flatten()
    {
        for line in dialog.route_headers().split_terminator("\r\n") {
            assert!(!line.contains(char::is_control), "{line:?}");
        }
        let _places = (dialog.request_uri().len(), dialog.next_hop().len());
    }
    let _values = (
        contact_expires(message, "sip:5001@127.0.0.1:5060"),
        min_expires(message),
        answered_elsewhere(message),
        reasons(message).len(),
        message.cseq(),
        message.cseq_method(),
        message.content_type(),
        sipfrag_status(message.body()),
    );
}

/// Messages with byte 0x1e between them. A reply answers the request that we sent last (at first the INVITE of the outgoing
/// call), a request is for the agent. `$sipcall`, `$outtag` and `$intag` stand for what only we can name.
pub fn sip(data: &[u8]) {
    with_busy(|busy, w| {
        let mut handle: Handle = busy.invite.clone();
        let mut label = 1;
        let mut reached = false;
        for raw in data.split(|b| *b == 0x1e) {
            let filled;
            let raw = match std::str::from_utf8(raw) {
                Ok(text) => {
                    filled = busy.fill(text);
                    filled.as_bytes()
                }
                Err(_) => raw,
            };
            let Ok(message) = Message::parse(raw) else {
                continue;
            };
            exercise(&message);
            reached = true;
            match message.code() {
                Some(code) => w.step(Input::SipReply {
                    handle: handle.clone(),
                    code,
                    message: Some(&message),
                }),
                None => {
                    label += 1;
                    let ack = message.method() == Some("ACK");
                    w.step(Input::SipRequest {
                        message: &message,
                        user: "5001",
                        tx: (!ack).then_some(ServerTx { index: 7, label }),
                        src: Some([127, 0, 0, 1].into()),
                    });
                }
            }
            if let Some(request) = checked(w).pop() {
                handle = request.handle;
            }
        }
        if !reached {
            return;
        }
        // timers of whatever stands now
        for ms in [1000, 40_000, 2_000_000] {
            w.pass(ms);
            checked(w);
        }
    });
}
