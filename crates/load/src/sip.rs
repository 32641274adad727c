//! The little SIP that the generator itself says: a caller over WebSocket, and the called side by UDP.

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

/// What JsSIP writes into every request, beside what makes the dialog.
const AGENT: &str = "Supported: timer,ice,replaces,outbound\r\nUser-Agent: JsSIP 3.13.8\r\n";
const ALLOW: &str = "Allow: INVITE,ACK,CANCEL,BYE,UPDATE,MESSAGE,OPTIONS,REFER,INFO,NOTIFY\r\n";
const DOMAIN: &str = "rtc.local";

/// Signs in at the registrar, for longer than a run.
pub fn register(dn: &str) -> String {
    format!(
        "REGISTER sip:{DOMAIN} SIP/2.0\r\nVia: SIP/2.0/WS {dn}.invalid;branch=z9hG4bKr{dn}\r\nMax-Forwards: 69\r\n\
         To: <sip:{dn}@{DOMAIN}>\r\nFrom: <sip:{dn}@{DOMAIN}>;tag=r{dn}\r\nCall-ID: register{dn}\r\nCSeq: 1 REGISTER\r\n\
         Contact: <sip:{dn}@{dn}.invalid;transport=ws>;expires=3600\r\nExpires: 3600\r\n{ALLOW}{AGENT}Content-Length: 0\r\n\r\n"
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
    number: u64,
}

impl Dialog {
    /// The `number`th call of `dn`.
    pub fn new(dn: &str, to: &str, number: u64) -> Self {
        let user = to.split('@').next().unwrap_or_default();
        Self {
            dn: dn.to_owned(),
            to: format!("<sip:{user}@{DOMAIN}>"),
            target: format!("sip:{user}@{DOMAIN}"),
            routes: Vec::new(),
            // as long as JsSIP's
            id: format!("{dn:0>12}{number:0>8}"),
            number,
        }
    }

    fn request(&self, method: &str, cseq: u32, more: &str, body: &str) -> String {
        let (dn, id) = (&self.dn, &self.id);
        let mut text = format!("{method} {} SIP/2.0\r\n", self.target);
        for route in &self.routes {
            text.push_str(&format!("Route: {route}\r\n"));
        }
        text.push_str(&format!(
            "Via: SIP/2.0/WS {dn}.invalid;branch=z9hG4bK{id}{method}\r\nMax-Forwards: 69\r\nTo: {}\r\n\
             From: \"{dn}\" <sip:{dn}@{DOMAIN}>;tag={dn}x{}\r\nCall-ID: {id}\r\nCSeq: {cseq} {method}\r\n{more}{AGENT}",
            self.to, self.number
        ));
        finish(&mut text, body);
        text
    }

    /// The INVITE.
    pub fn invite(&self, offer: &str) -> String {
        let dn = &self.dn;
        let more = format!(
            "Contact: <sip:{dn}@{dn}.invalid;transport=ws;ob>\r\nSession-Expires: 90\r\n{ALLOW}"
        );
        self.request("INVITE", 1, &more, offer)
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

    /// The ACK.
    pub fn ack(&self) -> String {
        self.request("ACK", 1, ALLOW, "")
    }

    /// The BYE.
    pub fn bye(&self) -> String {
        self.request("BYE", 2, ALLOW, "")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dialog_goes_back_by_the_routes_of_the_reply() {
        let mut dialog = Dialog::new("5001", "9001", 1);
        let invite = dialog.invite("v=0\r\n");
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
        assert_eq!(header(&bye, "CSeq"), Some("2 BYE"));
    }

    #[test]
    fn a_request_has_no_status() {
        assert_eq!(status(&register("5001")), None);
    }
}
