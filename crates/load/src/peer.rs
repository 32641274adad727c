//! The called side: takes each call at once, by UDP, and notes when it came and when it was answered.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::net::UdpSocket;

use crate::sip;
use crate::Error;

/// An answer that a browser can take: PCMU by DTLS-SRTP.
const ANSWER: &str = "v=0\r\no=- 1 1 IN IP4 127.0.0.1\r\ns=-\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\na=group:BUNDLE 0\r\n\
m=audio 9 UDP/TLS/RTP/SAVPF 0 126\r\na=mid:0\r\na=ice-ufrag:peer\r\na=ice-pwd:0a1b2c3d4e5f60718293a4b5\r\n\
a=candidate:1 1 UDP 2130706431 127.0.0.1 9 typ host\r\n\
a=fingerprint:SHA-256 4A:AD:B9:B1:3F:82:18:3B:54:02:12:DF:3E:5D:49:6B:19:E5:7C:AB:3E:92:6A:C0:3E:D0:11:6B:FB:9E:64:F4\r\n\
a=setup:active\r\na=rtcp-mux\r\na=rtpmap:0 PCMU/8000\r\na=rtpmap:126 telephone-event/8000\r\na=fmtp:126 0-16\r\na=sendrecv\r\n";

/// When a call came, and when it was answered.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The INVITE was read.
    pub came: Instant,
    /// The 200 was sent.
    pub answered: Instant,
}

/// The called side.
#[derive(Clone, Default)]
pub struct Peer {
    seen: Arc<Mutex<HashMap<String, Seen>>>,
}

impl Peer {
    /// Listens from now on.
    pub async fn start(address: &str) -> Result<Self, Error> {
        let socket = UdpSocket::bind(address).await?;
        let peer = Self::default();
        let (this, address) = (peer.clone(), address.to_owned());
        tokio::spawn(async move {
            let mut buffer = vec![0; 65_536];
            // an error is what ICMP says of a server that has gone
            loop {
                let Ok((len, from)) = socket.recv_from(&mut buffer).await else {
                    continue;
                };
                let came = Instant::now();
                let Ok(text) = std::str::from_utf8(&buffer[..len]) else {
                    continue;
                };
                let Some(reply) = answer(text, &address) else {
                    continue;
                };
                let _sent = socket.send_to(reply.as_bytes(), from).await;
                if text.starts_with("INVITE ") {
                    this.note(text, came);
                }
            }
        });
        Ok(peer)
    }

    fn note(&self, invite: &str, came: Instant) {
        let answered = Instant::now();
        if let Some(number) = sip::called(invite) {
            // the first one: what comes again was waited for in vain
            self.calls()
                .entry(number.to_owned())
                .or_insert(Seen { came, answered });
        }
    }

    /// What is known of the call to that number, once.
    pub fn take(&self, number: &str) -> Option<Seen> {
        self.calls().remove(number)
    }

    fn calls(&self) -> std::sync::MutexGuard<'_, HashMap<String, Seen>> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn answer(request: &str, address: &str) -> Option<String> {
    let method = request.split(' ').next()?;
    let body = match method {
        "INVITE" => ANSWER,
        "ACK" => return None,
        _ if sip::status(request).is_some() => return None,
        _ => "",
    };
    Some(sip::reply(request, "200 OK", "peer", address, body))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ack_and_a_reply_get_no_answer() {
        let invite = "INVITE sip:9@127.0.0.1 SIP/2.0\r\nTo: <sip:9@a>\r\nCSeq: 1 INVITE\r\n\r\n";
        let reply = answer(invite, "127.0.0.1:5").expect("an answer");
        assert!(reply.contains("To: <sip:9@a>;tag=peer\r\n") && reply.ends_with(ANSWER));
        assert_eq!(
            answer(&invite.replace("INVITE", "ACK"), "127.0.0.1:5"),
            None
        );
        assert_eq!(answer(&reply, "127.0.0.1:5"), None);
    }
}
