//! A browser: connects, signs in, places calls and ends them, in one of three languages.

use std::time::{Duration, Instant};

use serde_json::{json, Value};
use tokio::time::{interval_at, timeout_at, Interval, MissedTickBehavior};

use crate::link::{Link, Target};
use crate::sip::{self, Dialog};
use crate::Error;

/// What a browser speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Kind {
    /// The JSON of `rtc_json`.
    Rtc,
    /// SIP over WebSocket (RFC 7118), as JsSIP writes it.
    Sip,
    /// The JSON of Janus, with its SIP plugin.
    Janus,
}

impl Kind {
    /// The WebSocket's protocol.
    pub fn protocol(self) -> &'static str {
        match self {
            Kind::Rtc | Kind::Sip => "sip",
            Kind::Janus => "janus-protocol",
        }
    }

    /// How often an idle one says something, so that it is not forgotten.
    fn keepalive(self) -> Option<Duration> {
        match self {
            // as our client
            Kind::Rtc => Some(Duration::from_secs(20)),
            // the registration outlives the run
            Kind::Sip => None,
            Kind::Janus => Some(Duration::from_secs(25)),
        }
    }
}

/// Of a call that went as it should: when what happened.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    /// The call was asked for.
    pub called: Instant,
    /// It was accepted.
    pub accepted: Instant,
}

/// A signed-in browser.
pub struct Agent {
    kind: Kind,
    dn: String,
    /// Its WebSocket.
    pub link: Link,
    keepalive: Option<Interval>,
    offer: String,
    /// Requests so far.
    count: u64,
    /// Session and handle of Janus.
    ids: (u64, u64),
    /// Janus has taken its media down.
    down: bool,
}

impl Agent {
    /// Connects and signs in. The password is `pw` and the name, as that of all test agents.
    pub async fn sign_in(
        kind: Kind,
        target: &Target,
        dn: String,
        offer: String,
    ) -> Result<Self, Error> {
        let mut agent = Self {
            kind,
            link: target.open().await?,
            dn,
            keepalive: kind.keepalive().map(|every| {
                let mut ticks = interval_at(tokio::time::Instant::now() + every, every);
                ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
                ticks
            }),
            offer,
            count: 0,
            ids: (0, 0),
            down: false,
        };
        match kind {
            Kind::Rtc => agent.sign_in_rtc().await?,
            Kind::Sip => agent.sign_in_sip().await?,
            Kind::Janus => agent.sign_in_janus().await?,
        }
        Ok(agent)
    }

    /// Stays connected. Returns only when the connection is gone.
    pub async fn idle(&mut self) -> Error {
        loop {
            let Some(keepalive) = &mut self.keepalive else {
                match self.link.next().await {
                    Ok(_) => continue,
                    Err(error) => return error,
                }
            };
            tokio::select! {
                got = self.link.next() => if let Err(error) = got { return error },
                _ = keepalive.tick() => {
                    let text = self.alive();
                    if let Err(error) = self.link.send(text).await { return error }
                }
            }
        }
    }

    /// Calls `to`, talks for so long, hangs up, and returns when the end is confirmed.
    pub async fn call(&mut self, to: &str, talk: Duration) -> Result<Times, Error> {
        match self.kind {
            Kind::Rtc => self.call_rtc(to, talk).await,
            Kind::Sip => self.call_sip(to, talk).await,
            Kind::Janus => self.call_janus(to, talk).await,
        }
    }

    fn alive(&mut self) -> String {
        let id = self.next_id();
        match self.kind {
            Kind::Janus => {
                json!({ "janus": "keepalive", "session_id": self.ids.0, "transaction": id })
                    .to_string()
            }
            Kind::Rtc | Kind::Sip => json!({ "type": "ping", "payload": {}, "id": id }).to_string(),
        }
    }

    /// As long as that of our client, which begins with the time in milliseconds.
    fn next_id(&mut self) -> String {
        self.count += 1;
        (1_800_000_000_000 + self.count).to_string()
    }

    /// Nothing is expected for so long, and whatever comes is read.
    async fn talk(&mut self, talk: Duration) -> Result<(), Error> {
        if talk.is_zero() {
            return Ok(());
        }
        let end = tokio::time::Instant::now() + talk;
        loop {
            match timeout_at(end, self.link.next()).await {
                Err(_) => return Ok(()),
                Ok(got) => got?,
            };
        }
    }

    /// Reads until a JSON message for which `wanted` has something.
    async fn until<T>(
        &mut self,
        mut wanted: impl FnMut(&Value) -> Result<Option<T>, Error>,
    ) -> Result<T, Error> {
        loop {
            let text = self.link.next().await?;
            let message: Value = serde_json::from_str(&text).map_err(|_| Error::Unexpected)?;
            if let Some(found) = wanted(&message)? {
                return Ok(found);
            }
        }
    }

    // ---- rtc_json

    async fn ask(&mut self, kind: &str, payload: Value) -> Result<String, Error> {
        let id = self.next_id();
        let text = json!({ "type": kind, "payload": payload, "id": id }).to_string();
        self.link.send(text).await?;
        Ok(id)
    }

    async fn outcome(&mut self, id: &str, kind: &str) -> Result<Value, Error> {
        self.until(|message| {
            if message["id"] != *id || message["type"] == "callProgress" {
                return Ok(None);
            }
            if message["type"] == *kind {
                return Ok(Some(message["payload"].clone()));
            }
            let code = message["payload"]["code"].as_u64().unwrap_or_default();
            Err(Error::Refused(u16::try_from(code).unwrap_or_default()))
        })
        .await
    }

    async fn sign_in_rtc(&mut self) -> Result<(), Error> {
        let (dn, password) = (self.dn.clone(), format!("pw{}", self.dn));
        let payload = json!({ "dn": dn, "password": password, "displayName": dn, "expires": 600 });
        let id = self.ask("register", payload).await?;
        self.outcome(&id, "registered").await?;
        Ok(())
    }

    async fn call_rtc(&mut self, to: &str, talk: Duration) -> Result<Times, Error> {
        let payload = json!({ "to": to, "sdp": self.offer });
        let called = Instant::now();
        let id = self.ask("call", payload).await?;
        let answer = self.outcome(&id, "callAccepted").await?;
        let accepted = Instant::now();
        if !answer["sdp"]
            .as_str()
            .is_some_and(|sdp| sdp.contains("m=audio"))
        {
            return Err(Error::Unexpected);
        }
        self.talk(talk).await?;
        let payload = json!({ "callId": answer["callId"] });
        let id = self.ask("hangup", payload).await?;
        self.outcome(&id, "callEnded").await?;
        Ok(Times { called, accepted })
    }

    // ---- SIP over WebSocket

    /// The final reply to the request with this CSeq.
    async fn final_reply(&mut self, cseq: &str) -> Result<(u16, String), Error> {
        loop {
            let text = self.link.next().await?;
            let Some(code) = sip::status(&text) else {
                continue;
            };
            if code < 200 || sip::header(&text, "CSeq") != Some(cseq) {
                continue;
            }
            return Ok((code, text));
        }
    }

    async fn sign_in_sip(&mut self) -> Result<(), Error> {
        let request = sip::register(&self.dn);
        self.link.send(request).await?;
        let (code, _) = self.final_reply("1 REGISTER").await?;
        accepted(code)
    }

    async fn call_sip(&mut self, to: &str, talk: Duration) -> Result<Times, Error> {
        self.count += 1;
        let mut dialog = Dialog::new(&self.dn, to, self.count);
        let called = Instant::now();
        self.link.send(dialog.invite(&self.offer, None)).await?;
        let (mut code, mut reply) = self.final_reply(&dialog.cseq("INVITE")).await?;
        if code == 407 {
            let (ack, again) = dialog
                .challenged(&reply, &self.offer)
                .ok_or(Error::Unexpected)?;
            self.link.send(ack).await?;
            self.link.send(again).await?;
            (code, reply) = self.final_reply(&dialog.cseq("INVITE")).await?;
        }
        accepted(code)?;
        let at = Instant::now();
        if !reply.contains("m=audio") {
            return Err(Error::Unexpected);
        }
        dialog.established(&reply).ok_or(Error::Unexpected)?;
        self.link.send(dialog.ack()).await?;
        self.talk(talk).await?;
        self.link.send(dialog.bye()).await?;
        let (code, _) = self.final_reply(&dialog.cseq("BYE")).await?;
        accepted(code)?;
        Ok(Times {
            called,
            accepted: at,
        })
    }

    // ---- Janus

    async fn ask_janus(&mut self, mut message: Value) -> Result<String, Error> {
        let id = self.next_id();
        message["transaction"] = json!(id);
        if self.ids.0 != 0 {
            message["session_id"] = json!(self.ids.0);
        }
        if self.ids.1 != 0 {
            message["handle_id"] = json!(self.ids.1);
        }
        self.link.send(message.to_string()).await?;
        Ok(id)
    }

    async fn made_by_janus(&mut self, message: Value) -> Result<u64, Error> {
        let id = self.ask_janus(message).await?;
        self.until(|message| {
            if message["transaction"] != id {
                return Ok(None);
            }
            let made = message["data"]["id"].as_u64();
            made.map(Some).ok_or(Error::Unexpected)
        })
        .await
    }

    /// The event of this name, with its description if it has one.
    async fn event_of_janus(&mut self, name: &str) -> Result<String, Error> {
        let mut down = false;
        let event = self
            .until(|message| {
                let data = &message["plugindata"]["data"];
                down |= message["janus"] == "hangup";
                if let Some(error) = data["error"].as_str() {
                    return Err(Error::Janus(error.to_owned()));
                }
                if message["janus"] == "error" {
                    return Err(Error::Unexpected);
                }
                match data["result"]["event"].as_str() {
                    Some(event) if event == name => {
                        let sdp = message["jsep"]["sdp"].as_str().unwrap_or_default();
                        Ok(Some(sdp.to_owned()))
                    }
                    // the far side, or Janus itself, has ended what should go on
                    Some("hangup") | Some("registration_failed") => {
                        let code = data["result"]["code"].as_u64().unwrap_or_default();
                        Err(Error::Refused(u16::try_from(code).unwrap_or_default()))
                    }
                    _ => Ok(None),
                }
            })
            .await;
        self.down |= down;
        event
    }

    async fn sign_in_janus(&mut self) -> Result<(), Error> {
        self.ids.0 = self.made_by_janus(json!({ "janus": "create" })).await?;
        let attach = json!({ "janus": "attach", "plugin": "janus.plugin.sip" });
        self.ids.1 = self.made_by_janus(attach).await?;
        let name = format!("sip:{}@127.0.0.1", self.dn);
        let body = json!({ "request": "register", "type": "guest", "username": name });
        self.ask_janus(json!({ "janus": "message", "body": body }))
            .await?;
        self.event_of_janus("registered").await?;
        Ok(())
    }

    async fn call_janus(&mut self, to: &str, talk: Duration) -> Result<Times, Error> {
        let body = json!({ "request": "call", "uri": format!("sip:{to}") });
        let jsep = json!({ "type": "offer", "sdp": self.offer });
        self.down = false;
        let called = Instant::now();
        self.ask_janus(json!({ "janus": "message", "body": body, "jsep": jsep }))
            .await?;
        let answer = self.event_of_janus("accepted").await?;
        let accepted = Instant::now();
        if !answer.contains("m=audio") {
            return Err(Error::Unexpected);
        }
        self.talk(talk).await?;
        let body = json!({ "request": "hangup" });
        self.ask_janus(json!({ "janus": "message", "body": body }))
            .await?;
        self.event_of_janus("hangup").await?;
        // until then it takes no other call on this handle
        if !self.down {
            self.until(|message| Ok((message["janus"] == "hangup").then_some(())))
                .await?;
        }
        Ok(Times { called, accepted })
    }
}

/// Is the final reply a 2xx?
fn accepted(code: u16) -> Result<(), Error> {
    if code < 300 {
        Ok(())
    } else {
        Err(Error::Refused(code))
    }
}
