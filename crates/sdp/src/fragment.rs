//! Candidates that travel after the description: `application/trickle-ice-sdpfrag` (RFC 8840, section 9).

/// Media type of a fragment.
pub const FRAGMENT_TYPE: &str = "application/trickle-ice-sdpfrag";

/// A candidate, or the end of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trickled {
    /// `a=mid` of its section; empty if none was named.
    pub mid: String,
    /// `candidate:…` as a browser has it; none for `end-of-candidates`.
    pub candidate: Option<String>,
}

/// The fragment that brings candidates of the first section in use of `sdp` (our last description) to the far side. `lines` are
/// candidates as a browser has them (`candidate:…`), an empty one stands for the end of them.
///
/// None if the description has no ICE credentials.
pub fn fragment(sdp: &str, lines: &[String]) -> Option<String> {
    let used = |section: &&str| section.split(' ').nth(1).is_some_and(|port| port != "0");
    // the part before the first "m=" may hold what all sections share
    let mut parts = sdp.split("\nm=");
    let session = parts.next()?;
    let section = parts.find(used)?;
    let of = |prefix: &str| {
        let mut lines = section.lines().chain(session.lines());
        lines.find(|line| line.starts_with(prefix))
    };
    let mut text = String::new();
    let mut line = |line: &str| {
        text.push_str(line);
        text.push_str("\r\n");
    };
    line(of("a=ice-ufrag:")?);
    line(of("a=ice-pwd:")?);
    // RFC 8840, section 9.2: a pseudo media line for each section, with its mid
    line("m=audio 9 RTP/AVP 0");
    if let Some(mid) = of("a=mid:") {
        line(mid);
    }
    for candidate in lines {
        if candidate.is_empty() {
            line("a=end-of-candidates");
        } else {
            line(&format!("a={candidate}"));
        }
    }
    Some(text)
}

/// The candidates of a fragment, in their order. What it does not know it passes over.
pub fn trickled(fragment: &str) -> Vec<Trickled> {
    let mut mid = String::new();
    let mut found = Vec::new();
    for line in fragment.lines() {
        if let Some(name) = line.strip_prefix("a=mid:") {
            name.trim().clone_into(&mut mid);
        } else if line.starts_with("a=candidate:") {
            found.push(Trickled {
                mid: mid.clone(),
                candidate: Some(line["a=".len()..].trim_end().to_owned()),
            });
        } else if line.trim_end() == "a=end-of-candidates" {
            found.push(Trickled {
                mid: mid.clone(),
                candidate: None,
            });
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const SDP: &str =
        "v=0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\na=ice-ufrag:u\r\na=ice-pwd:p\r\na=mid:0\r\n";
    const CANDIDATE: &str = "candidate:1 1 udp 2113937151 192.0.2.1 50000 typ host";

    #[test]
    fn what_is_written_is_read_again() {
        let text = fragment(SDP, &[CANDIDATE.to_owned(), String::new()]).expect("credentials");
        assert!(
            text.starts_with("a=ice-ufrag:u\r\na=ice-pwd:p\r\nm=audio 9 "),
            "{text}"
        );
        let found = trickled(&text);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].mid, "0");
        assert_eq!(found[0].candidate.as_deref(), Some(CANDIDATE));
        assert_eq!(found[1].candidate, None);
    }

    #[test]
    fn a_refused_section_is_passed_over() {
        let refused =
            "v=0\r\nm=video 0 UDP/TLS/RTP/SAVPF 96\r\na=mid:v\r\na=ice-ufrag:x\r\na=ice-pwd:y\r\n";
        let text = SDP.replace("v=0\r\n", refused);
        let text = fragment(&text, &[CANDIDATE.to_owned()]).expect("credentials");
        assert!(
            text.starts_with("a=ice-ufrag:u\r\na=ice-pwd:p\r\n"),
            "{text}"
        );
        assert!(text.contains("a=mid:0\r\n"), "{text}");
    }

    #[test]
    fn without_credentials_there_is_nothing_to_say() {
        assert_eq!(fragment("v=0\r\n", &[CANDIDATE.to_owned()]), None);
    }

    #[test]
    fn rubbish_is_passed_over() {
        assert!(trickled("a=candidate\r\nfoo\r\n\r\na=mid:\r\na=candidat:x\n").is_empty());
    }
}
