//! Frames of a browser, to an agent that is registered and has a call in each direction.

use std::borrow::Cow;
use std::cell::RefCell;

use rtc_json_engine::{Handle, Input, SipRequest};
use rtc_json_protocol::{encode, parse, variable, Limits};

use crate::checks;
use crate::world::{config, in_dialog, invite, World, ANSWER};

/// An agent with an answered call of its own (`$out`, `$outtag`) and an incoming one that rings (`$in`, `$intag`).
pub struct Busy {
    record: Vec<u8>,
    /// `callId`s.
    pub outgoing: String,
    pub incoming: String,
    /// SIP Call-ID and tag of ours, of the outgoing one; our tag of the incoming one.
    pub sip_call: String,
    pub out_tag: String,
    pub in_tag: String,
    /// The INVITE of the outgoing one, for late replies.
    pub invite: Handle,
}

impl Busy {
    fn new() -> Self {
        let mut w = World::new(config());
        w.register(1);
        let (outgoing, invited) = w.call(1, "c1");
        w.far_reply(&invited, 200, "far2", "", ANSWER);
        w.frames(1);
        w.requests();
        w.far_request(&invite(1, "", ANSWER));
        let incoming = w.frame(1)["payload"]["callId"]
            .as_str()
            .expect("a callId")
            .to_owned();
        let in_tag = w
            .replies()
            .iter()
            .map(|reply| reply.to_tag.clone())
            .find(|tag| !tag.is_empty())
            .unwrap_or_default();
        Busy {
            record: w.agent.encode(Vec::new()).expect("encodes"),
            outgoing,
            incoming,
            sip_call: invited.call_id.clone(),
            out_tag: invited.from_tag.clone(),
            in_tag,
            invite: invited.handle,
        }
    }

    /// Puts what only the engine could name into a text.
    pub fn fill<'a>(&self, text: &'a str) -> Cow<'a, str> {
        if !text.contains('$') {
            return text.into();
        }
        text.replace("$outtag", &self.out_tag)
            .replace("$intag", &self.in_tag)
            .replace("$sipcall", &self.sip_call)
            .replace("$out", &self.outgoing)
            .replace("$in", &self.incoming)
            .into()
    }
}

thread_local! {
    static BUSY: RefCell<Option<(Busy, World)>> = const { RefCell::new(None) };
}

/// Runs with the one agent of this thread as it was at first; making it anew for each input would cost more than most inputs.
pub fn with_busy(run: impl FnOnce(&Busy, &mut World)) {
    BUSY.with_borrow_mut(|busy| {
        let (busy, world) = busy.get_or_insert_with(|| (Busy::new(), World::new(config())));
        world.restart(&busy.record);
        run(busy, world);
    });
}

/// Checks what the steps since the last call wanted, and gives the requests among it.
pub fn checked(w: &mut World) -> Vec<SipRequest> {
    checks::outputs(&w.out);
    let requests = w.requests();
    w.out.clear();
    requests
}

/// Lines. One that begins with `{` is a frame; `r 486` answers what we asked last with that status; `t 5000` lets
/// milliseconds pass; `c` closes the connection; `b` lets the far side hang up; `p 2` sends frames on that connection from now
/// on; `n 403` refuses the next frame as the script does.
pub fn frames(data: &[u8]) {
    with_busy(|busy, w| {
        let mut asked: Vec<SipRequest> = Vec::new();
        let mut conn = 1;
        let mut refuse = None;
        for line in data.split(|b| *b == b'\n') {
            // what stands in a frame may be no text at all
            let filled;
            let line = match std::str::from_utf8(line) {
                Ok(text) => {
                    filled = busy.fill(text);
                    filled.as_bytes()
                }
                Err(_) => line,
            };
            let number = |from: usize| -> u64 {
                let text = line.get(from..).unwrap_or_default();
                let text = std::str::from_utf8(text).unwrap_or_default();
                text.trim().parse().unwrap_or_default()
            };
            match line.first() {
                Some(b'r') => {
                    if let Some(request) = asked.pop() {
                        let code = 100 + (number(1) % 600) as u16;
                        let body = if request.method == "INVITE" {
                            ANSWER
                        } else {
                            ""
                        };
                        w.far_reply(&request, code.max(100), "far3", "Expires: 60\r\n", body);
                    }
                }
                Some(b't') => w.wait(number(1) % 100_000_000),
                Some(b'c') => w.step(Input::Closed { conn }),
                Some(b'p') => conn = (number(1) % 4) as i32,
                Some(b'n') => refuse = Some(400 + (number(1) % 300) as u16),
                Some(b'b') => {
                    w.far_request(&in_dialog("BYE", 9, &busy.in_tag, ""));
                }
                _ => {
                    for path in ["type", "payload.to", "payload.sdp", "id"] {
                        let _text = variable(line, path);
                    }
                    match parse(line, &Limits::default()) {
                        Ok(request) => match refuse.take() {
                            Some(code) => w.step(Input::Refused {
                                conn,
                                request,
                                code,
                                reason: "no".into(),
                            }),
                            None => w.step(Input::Message {
                                conn,
                                addr: Some([198, 51, 100, 7].into()),
                                request,
                                next_hop: None,
                                token: None,
                            }),
                        },
                        Err(bad) => {
                            let text = encode(&bad.error(), "");
                            checks::frame(&text);
                        }
                    }
                }
            }
            asked.extend(checked(w));
        }
    });
}
