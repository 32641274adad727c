//! Second pass: writing what stays.

use std::{fmt::Write, net::IpAddr};

use crate::{
    error::Error,
    line::{is_placeholder, is_unspecified, words, Line, Lines},
    policy::Policy,
    scan::{is_dtls_srtp, is_strong, scan, Fate, Print, Scan, Section},
    Candidates, Direction, Filtered, Kind, Placement,
};

/// Filters what a browser sent, on its way to the SIP side.
///
/// DTLS-SRTP and ICE are demanded whatever the policy says. The section gets the placeholder candidate
/// `a=candidate:1 1 udp 1 0.0.0.0 9 typ host` beside its own candidates: with it a peer that cannot wait for candidates
/// (Asterisk) does ICE all the same and learns the browser's addresses from its checks (peer-reflexive candidates, RFC
/// 8445, section 7.3.1.3). A `c=` line without a place names the browser's address.
///
/// `a=ice-options:trickle` and `a=end-of-candidates` pass. The first is a property of the browser, and a peer that
/// understands it (RFC 8838) is by it kept from giving up early; the second says that no candidate will be signalled any
/// more, which is true, and forbids no peer-reflexive one.
///
/// # Errors
///
/// [`Error::Malformed`] for what is no SDP, [`Error::NotAcceptable`] if no audio section can stay.
pub fn from_browser(
    sdp: &str,
    kind: Kind,
    policy: &Policy,
    placement: &Placement<'_>,
) -> Result<Filtered, Error> {
    let scan = scan(sdp, kind, policy, true)?;
    // some room for the placeholder, the address and kept candidates
    let kept = placement.keep.map_or(0, |keep| keep.lines.len());
    let mut writer = Writer {
        out: String::with_capacity(sdp.len() + kept + 256),
        scan: &scan,
        dtls: true,
        placement: Some(placement),
    };
    writer.write();
    let text = writer.out;
    Ok(filtered(text, &scan, false))
}

/// Filters what the SIP side sent, on its way to the browser. DTLS-SRTP and ICE are demanded if the policy says so.
///
/// # Errors
///
/// [`Error::Malformed`] for what is no SDP, [`Error::NotAcceptable`] if no audio section can stay.
pub fn from_sip(sdp: &str, kind: Kind, policy: &Policy) -> Result<Filtered, Error> {
    let dtls = policy.require_dtls;
    let scan = scan(sdp, kind, policy, dtls)?;
    let mut writer = Writer {
        out: String::with_capacity(sdp.len() + 64),
        scan: &scan,
        dtls,
        placement: None,
    };
    writer.write();
    let text = writer.out;
    Ok(filtered(text, &scan, true))
}

fn filtered(text: String, scan: &Scan<'_>, sip: bool) -> Filtered {
    let (at, first) = scan
        .sections
        .iter()
        .enumerate()
        .find(|(_, section)| section.accepted())
        .expect("a scan without an accepted section is an error");
    let scope = scan.scope(at);
    let mut direction = scope.direction.unwrap_or_default();
    let ancestor = match first.fate {
        Fate::Accepted { heir_of } => heir_of.map(|ancestor| &scan.sections[ancestor]),
        Fate::Bundled | Fate::Refused => None,
    };
    let trickles = scope.ufrag.is_some() && port(first, ancestor) == "9";
    if sip && !trickles && scope.connection.is_some_and(is_unspecified) {
        direction = without_receiving(direction);
    }
    let from = ancestor
        .filter(|ancestor| inherits_candidates(first, ancestor))
        .unwrap_or(first);
    Filtered {
        text,
        direction,
        telephone_event: first.telephone_event,
        candidates: from
            .candidates
            .saturating_sub(usize::from(from.placeholder)),
    }
}

/// What is left of a direction when its writer can receive nothing.
pub(crate) fn without_receiving(direction: Direction) -> Direction {
    match direction {
        Direction::SendRecv | Direction::SendOnly => Direction::SendOnly,
        Direction::RecvOnly | Direction::Inactive => Direction::Inactive,
    }
}

struct Writer<'a> {
    out: String,
    scan: &'a Scan<'a>,
    /// DTLS-SRTP is demanded: what could take its place goes.
    dtls: bool,
    /// From a browser only.
    placement: Option<&'a Placement<'a>>,
}

/// What a section needs that brings its transport itself.
#[derive(Clone, Copy)]
struct Lead<'a> {
    /// The section whose transport it used and that goes: the lines that it lacks come from there.
    ancestor: Option<&'a Section<'a>>,
    extra: Extra<'a>,
}

/// What is said of candidates beside, or instead of, what the section says.
#[derive(Clone, Copy)]
enum Extra<'a> {
    Nothing,
    /// These in place of its own.
    Kept(&'a Candidates),
    /// The placeholder, with this foundation, behind its own.
    Placeholder(u32),
}

impl<'a> Writer<'a> {
    fn write(&mut self) {
        let scan = self.scan;
        let first = scan.sections.iter().position(Section::leads);
        let kept = first.and_then(|at| self.kept(at));
        // the kept address replaces the one that holds for their section, wherever it stands
        let own = first.is_some_and(|at| scan.sections[at].scope.connection.is_some());
        self.session_level(kept.filter(|_| !own));
        for (at, section) in scan.sections.iter().enumerate() {
            let heir_of = match section.fate {
                Fate::Refused => {
                    self.refused(section);
                    continue;
                }
                Fate::Bundled => {
                    self.accepted(section, None);
                    continue;
                }
                Fate::Accepted { heir_of } => heir_of,
            };
            let ancestor = heir_of.map(|ancestor| &scan.sections[ancestor]);
            let extra = match kept.filter(|_| first == Some(at)) {
                Some(kept) => Extra::Kept(kept),
                None => self.placeholder(section, ancestor),
            };
            self.accepted(section, Some(Lead { ancestor, extra }));
        }
    }

    /// The candidates to repeat, if they still belong to this text.
    fn kept(&self, at: usize) -> Option<&'a Candidates> {
        let keep = self.placement?.keep?;
        let ufrag = self.scan.scope(at).ufrag;
        let valid = keep.port != 0 && !keep.lines.is_empty() && ufrag == Some(&*keep.ufrag);
        valid.then_some(keep)
    }

    fn placeholder(&self, section: &Section<'_>, ancestor: Option<&Section<'_>>) -> Extra<'a> {
        let from = ancestor.filter(|ancestor| inherits_candidates(section, ancestor));
        if self.placement.is_none()
            || section.placeholder
            || from.is_some_and(|ancestor| ancestor.placeholder)
        {
            return Extra::Nothing;
        }
        // candidates of one foundation would count as alike (RFC 8445, section 5.1.1.3); 0 is left alone
        let own = section.foundations | from.map_or(0, |ancestor| ancestor.foundations) | 1;
        let taken = own
            | self
                .placement
                .and_then(|p| p.keep)
                .map_or(0, placeholder_before);
        Extra::Placeholder(taken.trailing_ones())
    }

    fn session_level(&mut self, kept: Option<&Candidates>) {
        for &(what, line) in &self.scan.lines[..self.scan.session_lines] {
            match what {
                Line::Bundle(tags) => self.bundle(line, tags),
                Line::Connection(value) => self.connection(value, kept),
                Line::WeakFingerprint if self.dtls => {}
                Line::Crypto if self.dtls => {}
                _ => self.line(line),
            }
        }
    }

    fn accepted(&mut self, section: &'a Section<'a>, lead: Option<Lead<'a>>) {
        let mut extra = lead.map_or(Extra::Nothing, |lead| lead.extra);
        let kept = match extra {
            Extra::Kept(kept) => Some(kept),
            _ => None,
        };
        self.media(section, lead);
        // keys in the SDP beside, or instead of, DTLS
        let drops_crypto = self.dtls || is_dtls_srtp(section.media.protocol);
        let mut candidates = 0;
        for &(what, line) in &self.scan.lines[section.lines.clone()] {
            match what {
                Line::Rtpmap(value) | Line::OfFormat(value) if !section.keeps(value) => {}
                Line::WeakFingerprint if self.dtls => {}
                Line::Crypto if drops_crypto => {}
                Line::BundleOnly if lead.is_some() => {}
                Line::Connection(value) => self.connection(value, kept),
                Line::Candidate(_) | Line::EndOfCandidates if kept.is_some() => {
                    self.extra(&mut extra);
                }
                Line::Candidate(_) => {
                    self.line(line);
                    candidates += 1;
                    if candidates == section.candidates {
                        self.extra(&mut extra);
                    }
                }
                Line::Ufrag(_) if section.candidates == 0 => {
                    self.extra(&mut extra);
                    self.line(line);
                }
                _ => self.line(line),
            }
        }
        if let Some(ancestor) = lead.and_then(|lead| lead.ancestor) {
            self.inheritance(section, ancestor, kept);
        }
        self.extra(&mut extra);
    }

    /// `m=` of an accepted section.
    fn media(&mut self, section: &Section<'_>, lead: Option<Lead<'_>>) {
        let media = &section.media;
        self.out.push_str("m=");
        self.out.push_str(media.kind);
        self.out.push(' ');
        match lead {
            Some(Lead {
                extra: Extra::Kept(kept),
                ..
            }) => self.number(u32::from(kept.port)),
            Some(lead) => self.out.push_str(port(section, lead.ancestor)),
            None => self.out.push_str(media.port),
        }
        self.out.push(' ');
        self.out.push_str(media.protocol);
        for &pt in &section.order {
            self.out.push(' ');
            self.number(u32::from(pt));
        }
        self.out.push_str("\r\n");
    }

    /// Refused in place: what remains is what RFC 3264 (section 6) and the BUNDLE group need to count it.
    fn refused(&mut self, section: &Section<'_>) {
        let media = &section.media;
        let format = media.formats.split(' ').next().unwrap_or(media.formats);
        for part in ["m=", media.kind, " 0 ", media.protocol, " "] {
            self.out.push_str(part);
        }
        self.line(format);
        if let Some(value) = section.scope.connection {
            self.connection(value, None);
        }
        if let Some(mid) = section.mid {
            self.out.push_str("a=mid:");
            self.line(mid);
        }
        self.line("a=inactive");
    }

    /// The transport lines of the ancestor that this section, and the session, lack.
    fn inheritance(
        &mut self,
        section: &Section<'_>,
        ancestor: &Section<'_>,
        kept: Option<&Candidates>,
    ) {
        let has = section.scope.within(self.scan.session);
        let candidates = kept.is_none() && inherits_candidates(section, ancestor);
        for line in Lines::new(ancestor.text) {
            let lacks = match Line::of(line) {
                Line::Ufrag(_) => has.ufrag.is_none(),
                Line::Pwd(_) => has.pwd.is_none(),
                Line::Setup(_) => has.setup.is_none(),
                Line::Fingerprint(value) => {
                    has.print == Print::None && (is_strong(value) || !self.dtls)
                }
                Line::Connection(value) => {
                    if has.connection.is_none() {
                        self.connection(value, kept);
                    }
                    false
                }
                Line::RtcpMux => !section.rtcp_mux,
                Line::Candidate(_) | Line::EndOfCandidates => candidates,
                _ => false,
            };
            if lacks {
                self.line(line);
            }
        }
    }

    /// `a=group:BUNDLE` without the sections that are refused; nothing if none stays.
    fn bundle(&mut self, line: &str, tags: &str) {
        let tags = || words(tags);
        if tags().all(|tag| self.scan.stays(tag)) {
            return self.line(line);
        }
        if !tags().any(|tag| self.scan.stays(tag)) {
            return;
        }
        self.out.push_str("a=group:BUNDLE");
        for tag in tags().filter(|tag| self.scan.stays(tag)) {
            self.out.push(' ');
            self.out.push_str(tag);
        }
        self.out.push_str("\r\n");
    }

    /// `c=`: where a browser named no place, its address; else as it is.
    fn connection(&mut self, value: &str, kept: Option<&Candidates>) {
        let browser = self
            .placement
            .and_then(|placement| placement.browser_addr)
            .filter(|_| kept.is_none() && is_unspecified(value));
        self.out.push_str("c=");
        match (kept, browser.map(|address| address.to_canonical())) {
            (Some(kept), _) if !kept.connection.is_empty() => self.out.push_str(&kept.connection),
            (_, Some(address)) => {
                self.address(address);
            }
            _ => self.out.push_str(value),
        }
        self.out.push_str("\r\n");
    }

    /// Writes what waits, once.
    fn extra(&mut self, extra: &mut Extra<'_>) {
        match std::mem::replace(extra, Extra::Nothing) {
            Extra::Nothing => {}
            Extra::Kept(kept) => self.out.push_str(&kept.lines),
            Extra::Placeholder(foundation) => {
                self.out.push_str("a=candidate:");
                self.number(foundation);
                self.line(" 1 udp 1 0.0.0.0 9 typ host");
            }
        }
    }

    fn address(&mut self, address: IpAddr) {
        match address {
            // nearly every browser, so without the formatting machinery
            IpAddr::V4(address) => {
                self.out.push_str("IN IP4 ");
                for (at, part) in address.octets().into_iter().enumerate() {
                    if at != 0 {
                        self.out.push('.');
                    }
                    self.number(u32::from(part));
                }
            }
            IpAddr::V6(address) => {
                self.out.push_str("IN IP6 ");
                // writing to a String cannot fail
                let _ = write!(self.out, "{address}");
            }
        }
    }

    fn number(&mut self, n: u32) {
        if n >= 10 {
            self.number(n / 10);
        }
        self.out.push(char::from(b'0' + (n % 10) as u8));
    }

    #[inline]
    fn line(&mut self, line: &str) {
        self.out.push_str(line);
        self.out.push_str("\r\n");
    }
}

/// The port of a section that brings its transport itself. With `bundle-only` it was that of the section which goes.
fn port<'a>(section: &Section<'a>, ancestor: Option<&Section<'a>>) -> &'a str {
    match ancestor {
        _ if !section.media.no_port => section.media.port,
        Some(ancestor) if !ancestor.media.no_port => ancestor.media.port,
        _ => "9",
    }
}

/// Do the candidates of the ancestor belong to the section too?
fn inherits_candidates(section: &Section<'_>, ancestor: &Section<'_>) -> bool {
    let same = section.scope.ufrag.is_none() || section.scope.ufrag == ancestor.scope.ufrag;
    same && section.candidates == 0
}

/// The foundation that the placeholder had before an ICE restart, as a bit: the new one gets another. Asterisk tells candidates
/// by foundation and address, and begins no new ICE session for credentials alone.
fn placeholder_before(keep: &Candidates) -> u64 {
    keep.lines
        .lines()
        .filter_map(|line| line.strip_prefix("a=candidate:"))
        .filter(|value| is_placeholder(value))
        .filter_map(|value| words(value).next()?.parse::<u32>().ok())
        .fold(0, |bits, foundation| {
            bits | 1u64.checked_shl(foundation).unwrap_or(0)
        })
}
