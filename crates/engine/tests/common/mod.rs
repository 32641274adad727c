//! One agent under test: feeds inputs, keeps outputs, plays the far side.
#![allow(dead_code)]

use rand_chacha::rand_core::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rtc_json_engine::{
    step, Agent, Config, Env, Handle, Input, Output, OverLimit, RegisterMode, ServerTx, SipReply,
    SipRequest,
};
use rtc_json_protocol::{parse, Limits};
use rtc_json_sdp::Policy;
use rtc_json_sip::Message;
use serde_json::Value;

/// What Chromium offers for a call with audio, before it has gathered anything.
pub const OFFER: &str = include_str!("../samples/chromium-offer.sdp");
/// What Asterisk answers to it.
pub const ANSWER: &str = include_str!("../samples/asterisk-answer.sdp");

pub fn config() -> Config {
    Config {
        next_hop: "sip:127.0.0.1:5080".into(),
        register_mode: RegisterMode::Upstream,
        tokens: false,
        contact: "127.0.0.1:5060".into(),
        domain: "pbx.example".into(),
        realm: String::new(),
        server_name: "test".into(),
        ice: None,
        policy: Policy::parse("PCMU,telephone-event").expect("known codecs"),
        max_calls: 4,
        call_rate: 0,
        max_sessions: 2,
        over_limit: OverLimit::Replace,
        resume_grace: 30_000,
        expires: 300,
        ring_timeout: 90_000,
        session_expires: 1800,
        min_se: 90,
        max_redirects: 5,
        dtmf_mode: rtc_json_engine::DtmfMode::Info,
        dtmf_duration: 160,
        trickle: rtc_json_engine::Trickle::Auto,
        accept_refer: true,
        conference_prefix: "conf-".into(),
        headers_in: rtc_json_engine::HeaderList::parse(
            "X-Genesys-*,User-to-User,P-Asserted-Identity,Diversion",
        ),
        headers_out: rtc_json_engine::HeaderList::parse("X-Genesys-*,User-to-User"),
        trusted_peers: vec!["127.0.0.0/8".parse().expect("a network")],
    }
}

pub struct World {
    pub agent: Agent,
    pub config: Config,
    pub now: u64,
    pub draining: bool,
    pub unreachable: bool,
    pub rng: ChaCha8Rng,
    pub out: Vec<Output>,
    next_tx: u32,
    /// Room for a record.
    record: Vec<u8>,
    /// The agent comes out of a record, and nothing was done with it since.
    fresh: bool,
}

impl World {
    pub fn new(config: Config) -> Self {
        World {
            agent: Agent::new("5001"),
            config,
            now: 1_000_000,
            draining: false,
            unreachable: false,
            rng: ChaCha8Rng::seed_from_u64(1),
            out: Vec::new(),
            next_tx: 1,
            record: Vec::new(),
            fresh: false,
        }
    }

    /// Back to where `new` begins, with the agent of this record and the same configuration.
    pub fn restart(&mut self, record: &[u8]) {
        self.agent = Agent::decode(record).expect("decodes");
        self.fresh = true;
        self.now = 1_000_000;
        self.draining = false;
        self.unreachable = false;
        self.rng = ChaCha8Rng::seed_from_u64(1);
        self.out.clear();
        self.next_tx = 1;
    }

    /// A step through encode and decode, as in the arena.
    pub fn step(&mut self, input: Input<'_>) {
        if !std::mem::take(&mut self.fresh) {
            self.record.clear();
            self.record = self
                .agent
                .encode(std::mem::take(&mut self.record))
                .expect("encodes");
            self.agent = Agent::decode(&self.record).expect("decodes");
        }
        let mut env = Env {
            config: &self.config,
            now: self.now,
            unix_now: 1_700_000_000_000 + self.now,
            draining: self.draining,
            unreachable: self.unreachable,
            rng: &mut self.rng,
        };
        let out = step(&mut self.agent, input, &mut env);
        self.out.extend(out);
    }

    pub fn wait(&mut self, ms: u64) {
        self.now += ms;
        self.step(Input::Tick);
    }

    /// Lets time pass as Kamailio does: an agent with nothing due is left alone.
    pub fn pass(&mut self, ms: u64) {
        self.now += ms;
        if self.agent.due(self.config.resume_grace) <= self.now {
            self.step(Input::Tick);
        }
    }

    /// A frame of a browser.
    pub fn send(&mut self, conn: i32, kind: &str, payload: Value, id: &str) {
        let frame = serde_json::json!({ "type": kind, "payload": payload, "id": id }).to_string();
        let request = parse(frame.as_bytes(), &Limits::default()).expect("a good frame");
        self.step(Input::Message {
            conn,
            addr: Some([198, 51, 100, 7].into()),
            request,
            next_hop: None,
            token: None,
        });
    }

    /// Everything that was sent to a browser since the last call, parsed.
    pub fn frames(&mut self, conn: i32) -> Vec<Value> {
        let mut found = Vec::new();
        self.out.retain(|output| match output {
            Output::Frame { conn: to, text } if *to == conn => {
                found.push(serde_json::from_str(text).expect("JSON"));
                false
            }
            _ => true,
        });
        found
    }

    /// The only frame.
    pub fn frame(&mut self, conn: i32) -> Value {
        let frames = self.frames(conn);
        assert_eq!(frames.len(), 1, "{frames:#?}");
        frames.into_iter().next().expect("one")
    }

    /// Requests that went to tm since the last call.
    pub fn requests(&mut self) -> Vec<SipRequest> {
        let mut found = Vec::new();
        let mut rest = Vec::new();
        for output in self.out.drain(..) {
            match output {
                Output::Request(request) => found.push(*request),
                other => rest.push(other),
            }
        }
        self.out = rest;
        found
    }

    pub fn request(&mut self) -> SipRequest {
        let mut requests = self.requests();
        assert_eq!(requests.len(), 1, "{requests:#?}");
        requests.remove(0)
    }

    pub fn replies(&mut self) -> Vec<SipReply> {
        let mut found = Vec::new();
        let mut rest = Vec::new();
        for output in self.out.drain(..) {
            match output {
                Output::Reply(reply) => found.push(reply),
                other => rest.push(other),
            }
        }
        self.out = rest;
        found
    }

    pub fn reply(&mut self) -> SipReply {
        let mut replies = self.replies();
        assert_eq!(replies.len(), 1, "{replies:#?}");
        replies.remove(0)
    }

    pub fn cancels(&mut self) -> Vec<(String, u32)> {
        let mut found = Vec::new();
        self.out.retain(|output| match output {
            Output::Cancel { call_id, cseq } => {
                found.push((call_id.clone(), *cseq));
                false
            }
            _ => true,
        });
        found
    }

    /// The far side answers a request of ours.
    pub fn far_reply(
        &mut self,
        request: &SipRequest,
        code: u16,
        tag: &str,
        more: &str,
        body: &str,
    ) {
        let text = format!(
            "SIP/2.0 {code} Whatever\r\nVia: SIP/2.0/UDP 127.0.0.1:5060;branch=z9hG4bK1\r\n\
             From: {};tag={}\r\nTo: {};tag={tag}\r\nCall-ID: {}\r\nCSeq: {} {}\r\n\
             Contact: <sip:far@127.0.0.1:5080>\r\n{more}Content-Length: {}\r\n\r\n{body}",
            request.from,
            request.from_tag,
            request.to,
            request.call_id,
            request.cseq,
            request.method,
            body.len(),
        );
        let message = Message::parse(text.as_bytes()).expect("a good reply");
        self.step(Input::SipReply {
            handle: Handle::parse(&request.handle.to_string()).expect("a handle"),
            code,
            message: Some(&message),
        });
    }

    /// tm gives a request up.
    pub fn no_reply(&mut self, request: &SipRequest) {
        self.step(Input::SipReply {
            handle: request.handle.clone(),
            code: 408,
            message: None,
        });
    }

    /// A request of the far side; gives its transaction.
    pub fn far_request(&mut self, text: &str) -> ServerTx {
        let message = Message::parse(text.as_bytes()).expect("a good request");
        let tx = ServerTx {
            index: 7,
            label: self.next_tx,
        };
        self.next_tx += 1;
        let ack = text.starts_with("ACK");
        self.step(Input::SipRequest {
            message: &message,
            user: "5001",
            tx: (!ack).then_some(tx),
            src: Some([127, 0, 0, 1].into()),
        });
        tx
    }

    /// Registers a browser and throws away what was sent for it.
    pub fn register(&mut self, conn: i32) -> Value {
        let payload =
            serde_json::json!({ "dn": "5001", "password": "secret", "displayName": "Ann" });
        self.send(conn, "register", payload, "reg-1");
        let request = self.request();
        if !request.headers.contains("Authorization:") {
            let challenge = "WWW-Authenticate: Digest realm=\"asterisk\", nonce=\"n1\", qop=\"auth\", algorithm=MD5\r\n";
            self.far_reply(&request, 401, "x", challenge, "");
            let again = self.request();
            self.far_reply(&again, 200, "x", "Expires: 300\r\n", "");
        } else {
            self.far_reply(&request, 200, "x", "Expires: 300\r\n", "");
        }
        let frame = self.frame(conn);
        assert_eq!(frame["type"], "registered", "{frame}");
        frame
    }

    /// A call of the browser up to the INVITE; gives its id and the INVITE.
    pub fn call(&mut self, conn: i32, id: &str) -> (String, SipRequest) {
        let payload = serde_json::json!({ "to": "600", "sdp": OFFER });
        self.send(conn, "call", payload, id);
        let trying = self.frame(conn);
        assert_eq!(trying["type"], "callProgress");
        assert_eq!(trying["payload"]["state"], "trying");
        assert_eq!(trying["id"], id);
        let call_id = trying["payload"]["callId"]
            .as_str()
            .expect("a callId")
            .to_owned();
        (call_id, self.request())
    }

    pub fn types(&mut self, conn: i32) -> Vec<String> {
        self.frames(conn)
            .iter()
            .map(|f| f["type"].as_str().unwrap_or_default().to_owned())
            .collect()
    }
}

/// An INVITE from outside.
pub fn invite(cseq: u32, to_tag: &str, body: &str) -> String {
    in_dialog("INVITE", cseq, to_tag, body)
}

/// A request of the caller `far1`.
pub fn in_dialog(method: &str, cseq: u32, to_tag: &str, body: &str) -> String {
    let to_tag = if to_tag.is_empty() {
        String::new()
    } else {
        format!(";tag={to_tag}")
    };
    let kind = if body.is_empty() {
        ""
    } else {
        "Content-Type: application/sdp\r\n"
    };
    format!(
        "{method} sip:5001@127.0.0.1:5060 SIP/2.0\r\nVia: SIP/2.0/UDP 127.0.0.1:5080;branch=z9hG4bK{method}{cseq}\r\n\
         Max-Forwards: 70\r\nFrom: \"Bob\" <sip:1003@pbx.example>;tag=far1\r\n\
         To: <sip:5001@pbx.example>{to_tag}\r\nCall-ID: in-call-1\r\nCSeq: {cseq} {method}\r\n\
         Contact: <sip:1003@127.0.0.1:5080>\r\n{kind}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}
