//! The little SIP that the generator itself says: a caller over WebSocket, and the called side by UDP.

use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rtc_json_sip::{authorization, ha1, Challenge, Ha1};

/// Status of a reply; none for a request.
pub fn status(text: &str) -> Option<u16> {
    text.strip_prefix("SIP/2.0 ")?.get(..3)?.parse().ok()
}

/// Values of a header, in order.
pub fn headers<'a>(text: &'a str, name: &'a str) -> impl Iterator<Item = &'a str> {
    text.split("\r\n")
        .take_while(|line| !line.is_empty())
        .filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.trim().eq_ignore_ascii_case(name).then(|| value.trim())
        })
}

/// Value of the first header of that name.
pub fn header<'a>(text: &'a str, name: &'a str) -> Option<&'a str> {
    headers(text, name).next()
}

/// User part of a request's URI.
pub fn called(request: &str) -> Option<&str> {
    let uri = request.split(' ').nth(1)?;
    uri.split_once(':')?.1.split(['@', ';']).next()
}

/// A reply to a request, with a tag of ours and a body.
pub fn reply(request: &str, line: &str, tag: &str, contact: &str, body: &str) -> String {
    let mut text = format!("SIP/2.0 {line}\r\n");
    for name in ["Via", "Record-Route", "From", "To", "Call-ID", "CSeq"] {
        for value in headers(request, name) {
            text.push_str(name);
            text.push_str(": ");
            text.push_str(value);
            if name == "To" && !value.contains(";tag=") {
                text.push_str(";tag=");
                text.push_str(tag);
            }
            text.push_str("\r\n");
        }
    }
    text.push_str(&format!("Contact: <sip:{contact}>\r\n"));
    finish(&mut text, body);
    text
}

fn finish(text: &mut String, body: &str) {
    if !body.is_empty() {
        text.push_str("Content-Type: application/sdp\r\n");
    }
    text.push_str(&format!("Content-Length: {}\r\n\r\n{body}", body.len()));
}

/// What JsSIP writes into every request, beside what makes the dialog; `tests/load/recorded/jssip.json` has it as it was recorded.
const AGENT: &str = "User-Agent: JsSIP 3.13.8\r\n";
const ALLOW: &str =
    "Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY,SUBSCRIBE\r\n";
const DOMAIN: &str = "rtc.local";

/// The host of an agent's WebSocket, as long as JsSIP's random ones.
fn host(dn: &str) -> String {
    format!("{dn:0>12}.invalid")
}

/// The instance of an agent's browser.
fn instance(dn: &str) -> String {
    format!("urn:uuid:00000000-0000-4000-8000-{dn:0>12}")
}

/// Signs in at the registrar, for longer than a run.
pub fn register(dn: &str) -> String {
    let (host, instance) = (host(dn), instance(dn));
    format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/WS {host};branch=z9hG4bKr{dn}\r\nMax-Forwards: 69\r\n\
         To: <sip:{dn}@{DOMAIN}>\r\nFrom: <sip:{dn}@{DOMAIN}>;tag=r{dn}\r\nCall-ID: register{dn}\r\nCSeq: 1 REGISTER\r\n\
         Contact: <sip:{dn}@{host};transport=ws>;reg-id=1;+sip.instance=\"<{instance}>\";expires=3600\r\nExpires: 3600\r\n\
         {ALLOW}Supported: path,gruu,outbound\r\n{AGENT}Content-Length: 0\r\n\r\n"
    )
}

/// A call of a browser that speaks SIP.
pub struct Dialog {
    dn: String,
    /// `to`, `tag`, route set and target as the reply brought them.
    to: String,
    target: String,
    routes: Vec<String>,
    id: String,
    tag: String,
    cseq: u32,
}

impl Dialog {
    /// The `number`th call of `dn`. Another run, against the same far side, makes other Call-IDs.
    pub fn new(dn: &str, to: &str, number: u64) -> Self {
        static RUN: OnceLock<u32> = OnceLock::new();
        let run = RUN.get_or_init(|| {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            since.map_or(0, |since| since.subsec_nanos()) ^ std::process::id() << 12
        });
        let user = to.split('@').next().unwrap_or_default();
        Self {
            dn: dn.to_owned(),
            to: format!("<sip:{user}@{DOMAIN}>"),
            target: format!("sip:{user}@{DOMAIN}"),
            routes: Vec::new(),
            // as long as JsSIP's
            id: format!("{run:08x}{dn:0>6}{number:0>6}"),
            tag: format!("{dn:0>6}{:0>4}", number % 10_000),
            cseq: 2663,
        }
    }

    /// CSeq of the latest request of this method.
    pub fn cseq(&self, method: &str) -> String {
        format!("{} {method}", self.cseq)
    }

    fn request(&self, method: &str, branch: &str, more: &str, body: &str) -> String {
        let (dn, id, cseq, host) = (&self.dn, &self.id, self.cseq, host(&self.dn));
        let mut text = format!("{method} {} SIP/2.0\r\n", self.target);
        for route in &self.routes {
            text.push_str(&format!("Route: {route}\r\n"));
        }
        text.push_str(&format!(
            "Via: SIP/2.0/WS {host};branch=z9hG4bK{id}{cseq}{branch}\r\nMax-Forwards: 69\r\nTo: {}\r\n\
             From: <sip:{dn}@{DOMAIN}>;tag={}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\n{more}{AGENT}Content-Length: {}\r\n\r\n{body}",
            self.to, self.tag, body.len()
        ));
        text
    }

    /// The INVITE, with an answer to a challenge if there was one.
    pub fn invite(&self, offer: &str, authorization: Option<&str>) -> String {
        let (dn, instance) = (&self.dn, instance(&self.dn));
        let answer = authorization.map_or_else(String::new, |value| {
            format!("Proxy-Authorization: {value}\r\n")
        });
        let more = format!(
            "{answer}Contact: <sip:{dn}@{DOMAIN};gr={instance}>\r\nContent-Type: application/sdp\r\nSession-Expires: 90\r\n\
             {ALLOW}Supported: timer,gruu,ice,replaces,outbound\r\n"
        );
        self.request("INVITE", "", &more, offer)
    }

    /// The ACK for a 407 and the INVITE once more, with the password of the test agents.
    pub fn challenged(&mut self, reply: &str, offer: &str) -> Option<(String, String)> {
        let challenge = Challenge::parse(header(reply, "Proxy-Authenticate")?).ok()?;
        let realm = &challenge.realm;
        let password = format!("pw{}", self.dn);
        let secret = ha1(challenge.algorithm, &self.dn, realm, &password);
        let secrets = Ha1::new(realm, &secret, "");
        let value = authorization(
            &challenge,
            &self.dn,
            &secrets,
            "INVITE",
            &self.target,
            &self.id,
            1,
        )?;
        let to = std::mem::replace(&mut self.to, header(reply, "To")?.to_owned());
        let ack = self.request("ACK", "", "", "");
        self.to = to;
        self.cseq += 1;
        Some((ack, self.invite(offer, Some(&value))))
    }

    /// Takes over from the 200 what later requests need.
    pub fn established(&mut self, reply: &str) -> Option<()> {
        self.to = header(reply, "To")?.to_owned();
        let contact = header(reply, "Contact")?;
        self.target = contact.split_once('<')?.1.split_once('>')?.0.to_owned();
        self.routes = headers(reply, "Record-Route")
            .flat_map(|value| value.split(','))
            .map(|route| route.trim().to_owned())
            .collect();
        self.routes.reverse();
        Some(())
    }

    /// The ACK for a 200.
    pub fn ack(&self) -> String {
        self.in_dialog("ACK")
    }

    /// The BYE.
    pub fn bye(&mut self) -> String {
        self.cseq += 1;
        self.in_dialog("BYE")
    }

    fn in_dialog(&self, method: &str) -> String {
        let more = format!("{ALLOW}Supported: outbound\r\n");
        self.request(method, method, &more, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_goes_back_by_the_routes_of_the_reply() {
        let mut dialog = Dialog::new("5001", "9001", 1);
        let invite = dialog.invite("v=0\r\n", None);
        assert_eq!(called(&invite), Some("9001"));
        let routed = invite.replacen(
            "Max-Forwards",
            "Record-Route: <sip:a;lr>\r\nRecord-Route: <sip:b;lr>\r\nMax-Forwards",
            1,
        );
        let reply = reply(&routed, "200 OK", "t1", "9001@127.0.0.1:5", "v=0\r\n");
        assert_eq!(status(&reply), Some(200));
        assert!(reply.ends_with("Content-Length: 5\r\n\r\nv=0\r\n"));
        dialog
            .established(&reply)
            .expect("the reply has all it needs");
        let bye = dialog.bye();
        assert!(bye.starts_with("BYE sip:9001@127.0.0.1:5 SIP/2.0\r\n"));
        assert_eq!(
            headers(&bye, "route").collect::<Vec<_>>(),
            ["<sip:b;lr>", "<sip:a;lr>"]
        );
        assert_eq!(header(&bye, "To"), Some("<sip:9001@rtc.local>;tag=t1"));
        assert_eq!(header(&bye, "CSeq"), Some("2664 BYE"));
    }

    #[test]
    fn a_challenge_is_answered_in_a_new_request() {
        let mut dialog = Dialog::new("5001", "9001", 1);
        let refused = reply(&dialog.invite("", None), "407 No", "t1", "x", "").replacen(
            "Contact",
            "Proxy-Authenticate: Digest realm=\"rtc.local\", nonce=\"n\"\r\nContact",
            1,
        );
        let (ack, again) = dialog.challenged(&refused, "").expect("it can be answered");
        assert_eq!(header(&ack, "CSeq"), Some("2663 ACK"));
        assert_eq!(header(&ack, "Via"), header(&refused, "Via"));
        assert_eq!(header(&ack, "To"), Some("<sip:9001@rtc.local>;tag=t1"));
        assert_eq!(header(&again, "CSeq"), Some("2664 INVITE"));
        assert_eq!(header(&again, "To"), Some("<sip:9001@rtc.local>"));
        let answer = header(&again, "Proxy-Authorization").expect("an answer");
        assert!(answer.contains("uri=\"sip:9001@rtc.local\""), "{answer}");
    }

    /// The calls of JsSIP in Chromium, and those made here: the same header fields, and as long.
    #[test]
    fn requests_are_those_that_were_recorded() {
        let recorded = include_str!("../../../tests/load/recorded/jssip.json");
        let frames: Vec<serde_json::Value> = serde_json::from_str(recorded).expect("JSON");
        let of = |start: &str| {
            let mut texts = frames.iter().filter_map(|frame| frame["text"].as_str());
            texts.find(|text| text.starts_with(start)).expect("a frame")
        };
        let ok = frames.iter().filter_map(|frame| frame["text"].as_str());
        let ok = ok
            .filter(|text| text.starts_with("SIP/2.0 200"))
            .find(|text| text.contains("INVITE\r\n"))
            .expect("a 200");
        let offer = include_str!("../../../tests/load/recorded/jssip-offer.sdp");
        let mut dialog = Dialog::new("5001", "900000001", 1);
        let invite = dialog.invite(offer, None);
        dialog.established(ok).expect("a 200");
        for (made, recorded) in [
            (invite, of("INVITE ")),
            (dialog.ack(), of("ACK ")),
            (dialog.bye(), of("BYE ")),
        ] {
            let names = |text: &str| -> Vec<String> {
                let head = text.split("\r\n\r\n").next().unwrap_or_default();
                let lines = head.split("\r\n").skip(1);
                lines
                    .map(|l| l[..l.find(':').unwrap_or(0)].to_owned())
                    .collect()
            };
            assert_eq!(names(&made), names(recorded));
            for name in ["Supported", "Allow", "Session-Expires", "Content-Length"] {
                assert_eq!(header(&made, name), header(recorded, name));
            }
            // (the branch is longer: it has to be another in each request)
            let longer = made.len() as i64 - recorded.len() as i64;
            assert!((-10..=40).contains(&longer), "{longer}: {made}");
        }
    }

    #[test]
    fn a_request_has_no_status() {
        assert_eq!(status(&register("5001")), None);
    }
}
