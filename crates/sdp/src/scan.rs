//! First pass: what a text says, and which of its sections may stay.

use std::ops::Range;

use crate::{
    error::{malformed, Error, Faults},
    line::{cut, is_placeholder, payload_type, words, Line, Lines, Media},
    policy::{Format, Policy},
    Direction, Kind,
};

/// More sections than any page has; it bounds the work on a hostile text.
const MAX_SECTIONS: usize = 64;

/// What the first pass found.
pub(crate) struct Scan<'a> {
    /// What the session level says for all sections.
    pub session: Scope<'a>,
    pub sections: Vec<Section<'a>>,
    /// The lines of the session level, then those of the audio sections, with what they are: the second pass needs no
    /// others. Neighbours that pass as they are stand together as one [`Line::Other`].
    pub lines: Vec<(Line<'a>, &'a str)>,
    /// Where the last of `lines` begins, if the line behind it can be added to it.
    run: Option<usize>,
    /// How many of `lines` are of the session level.
    pub session_lines: usize,
    /// Identification tags of each BUNDLE group (RFC 8843).
    bundles: Vec<&'a str>,
}

/// Attributes that stand on session level or in a section.
#[derive(Clone, Copy, Default)]
pub(crate) struct Scope<'a> {
    pub ufrag: Option<&'a str>,
    pub pwd: Option<&'a str>,
    pub setup: Option<&'a str>,
    pub connection: Option<&'a str>,
    pub direction: Option<Direction>,
    pub print: Print,
}

/// Fingerprints of a scope.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Print {
    #[default]
    None,
    /// Only ones that are too weak or broken.
    Weak,
    /// At least one that will do.
    Strong,
}

pub(crate) struct Section<'a> {
    pub media: Media<'a>,
    /// The text behind the `m=` line.
    pub text: &'a str,
    /// Which of [`Scan::lines`] are its own.
    pub lines: Range<usize>,
    pub scope: Scope<'a>,
    pub mid: Option<&'a str>,
    pub bundle_only: bool,
    pub rtcp_mux: bool,
    /// Lines of `a=candidate`, and whether one of them is the placeholder.
    pub candidates: usize,
    pub placeholder: bool,
    /// Bit n: foundation n is taken.
    pub foundations: u64,
    /// Payload types that stay, in order of preference.
    pub order: Vec<u8>,
    pub telephone_event: bool,
    pub fate: Fate,
}

/// What becomes of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Refused,
    /// It stays, and brings its transport itself.
    Accepted {
        /// Section whose transport it used by its BUNDLE group and that goes: its lines move here.
        heir_of: Option<usize>,
    },
    /// It stays, and shares the transport of another section that stays.
    Bundled,
}

impl<'a> Section<'a> {
    /// `text` begins behind the `m=` line; where it ends is not yet known.
    fn new(media: Media<'a>, text: &'a str, lines: usize) -> Self {
        Section {
            media,
            text,
            lines: lines..lines,
            scope: Scope::default(),
            mid: None,
            bundle_only: false,
            rtcp_mux: false,
            candidates: 0,
            placeholder: false,
            foundations: 0,
            order: Vec::new(),
            telephone_event: false,
            fate: Fate::Refused,
        }
    }

    pub fn accepted(&self) -> bool {
        self.fate != Fate::Refused
    }

    /// Does it stay, and bring its transport itself?
    pub fn leads(&self) -> bool {
        matches!(self.fate, Fate::Accepted { .. })
    }

    /// Does the payload type in front of the value of a format line stay?
    #[inline]
    pub fn keeps(&self, value: &str) -> bool {
        match payload_type(value) {
            Some((pt, _)) => self.order.contains(&pt),
            // what it asks for, it asks for every codec that stayed (RFC 4585, section 4.2)
            None => value.starts_with("* "),
        }
    }

    fn see(&mut self, line: &Line<'a>) {
        match *line {
            Line::Mid(mid) => self.mid = Some(mid),
            Line::BundleOnly => self.bundle_only = true,
            Line::RtcpMux => self.rtcp_mux = true,
            Line::Candidate(value) => {
                self.candidates += 1;
                if is_placeholder(value) {
                    self.placeholder = true;
                } else if let Ok(n) = cut(value, b' ').0.parse() {
                    self.foundations |= 1u64.checked_shl(n).unwrap_or(0);
                }
            }
            _ => self.scope.see(line),
        }
    }
}

impl<'a> Scope<'a> {
    fn see(&mut self, line: &Line<'a>) {
        // a second answer to the same question: the far side could read the other one, so neither is valid
        let once = |old: Option<&str>, new| Some(old.map_or(new, |_| ""));
        match *line {
            Line::Ufrag(v) => self.ufrag = once(self.ufrag, v),
            Line::Pwd(v) => self.pwd = once(self.pwd, v),
            Line::Setup(v) => self.setup = once(self.setup, v),
            Line::Connection(v) => self.connection = self.connection.or(Some(v)),
            Line::Direction(v) => self.direction = self.direction.or(Some(v)),
            Line::Fingerprint(_) => self.print = Print::Strong,
            Line::WeakFingerprint if self.print == Print::None => self.print = Print::Weak,
            _ => {}
        }
    }

    /// What holds in a scope: its own word, or that of the one around it.
    pub fn within(self, outer: Scope<'a>) -> Scope<'a> {
        Scope {
            ufrag: self.ufrag.or(outer.ufrag),
            pwd: self.pwd.or(outer.pwd),
            setup: self.setup.or(outer.setup),
            connection: self.connection.or(outer.connection),
            direction: self.direction.or(outer.direction),
            print: match self.print {
                Print::None => outer.print,
                own => own,
            },
        }
    }
}

/// Reads `text` and decides about every section of it. `dtls`: DTLS-SRTP and ICE are demanded.
pub(crate) fn scan<'a>(
    text: &'a str,
    kind: Kind,
    policy: &Policy,
    dtls: bool,
) -> Result<Scan<'a>, Error> {
    let mut scan = match read(text, policy) {
        Ok(scan) => scan,
        // one byte that has no place there says more than what it led to
        Err(error) => return Err(control_bytes(text).unwrap_or(error)),
    };
    scan.read_leaders();
    scan.judge(kind, policy, dtls)?;
    Ok(scan)
}

fn read<'a>(text: &'a str, policy: &Policy) -> Result<Scan<'a>, Error> {
    let mut scan = Scan {
        session: Scope::default(),
        // enough for most texts, and no more than an allocator has at hand
        sections: Vec::with_capacity(2),
        lines: Vec::with_capacity(24),
        run: None,
        session_lines: 0,
        bundles: Vec::new(),
    };
    let mut lines = Lines::new(text);
    let mut formats = Formats::new(policy);
    let mut origin = false;
    // blank lines may follow the last line, no others
    let mut blank = false;
    // in a section that is not audio
    let mut passing = false;
    let mut number = 0;
    let mut start = 0;
    loop {
        let begin = lines.end;
        let Some(line) = lines.next() else { break };
        number += 1;
        if line.is_empty() {
            blank = true;
            continue;
        }
        if number == 1 && line != "v=0" {
            break;
        }
        let bytes = line.as_bytes();
        if blank || bytes.len() < 2 || bytes[1] != b'=' || !bytes[0].is_ascii_lowercase() {
            return Err(malformed(number, "not of the form x=value"));
        }
        // most of a page's text is about sections that are refused: of them only the place matters, and the transport
        // where an audio section turns out to use it (see read_leaders)
        if passing && bytes[0] == b'a' && !line.starts_with("a=mid:") {
            start = lines.end;
            continue;
        }
        let what = meaning(line);
        match what {
            Line::Media(value) => {
                scan.close(text, start, &formats, policy);
                let media = Media::parse(value).ok_or_else(|| {
                    malformed(number, "m= needs a kind, a port, a profile and a format")
                })?;
                if scan.sections.len() == MAX_SECTIONS {
                    return Err(malformed(number, "too many m= lines"));
                }
                passing = !media.is_audio();
                if !passing {
                    formats = Formats::new(policy);
                }
                let body = &text[lines.end..];
                scan.sections
                    .push(Section::new(media, body, scan.lines.len()));
                start = lines.end;
                continue;
            }
            _ => start = lines.end,
        }
        if let (Line::Mid(mid), Some(section)) = (what, scan.sections.last()) {
            // (RFC 5888, section 4); it decides what a BUNDLE group means
            let taken = |other: &Section<'_>| other.mid == Some(mid);
            if mid.is_empty() || section.mid.is_some() || scan.sections.iter().any(taken) {
                return Err(malformed(number, "a=mid is empty, or not the only one"));
            }
        }
        let Some(section) = scan.sections.last_mut() else {
            match what {
                Line::Origin(_) if origin => return Err(malformed(number, "a second o= line")),
                Line::Origin(_) => origin = true,
                Line::Bundle(tags) => {
                    let many = scan.bundles.len() == MAX_SECTIONS
                        || tags.bytes().filter(|b| *b == b' ').count() > MAX_SECTIONS;
                    if many {
                        return Err(malformed(number, "too many BUNDLE groups or members"));
                    }
                    scan.bundles.push(tags);
                }
                _ => scan.session.see(&what),
            }
            scan.keep(text, begin, what, line);
            continue;
        };
        if !passing {
            if let Line::Rtpmap(value) = what {
                formats.see(value, policy);
            }
            section.see(&what);
            scan.keep(text, begin, what, line);
        } else {
            section.see(&what);
        }
    }
    scan.close(text, start, &formats, policy);
    if scan.lines.is_empty() {
        return Err(malformed(1, "an SDP begins with v=0"));
    }
    if lines.control {
        return Err(control());
    }
    // a bare CR would be a line end to one reader and not to another
    if lines.bare_return {
        return Err(malformed(0, "it holds a CR without LF"));
    }
    if !origin {
        return Err(malformed(0, "there is no o= line before the first m= line"));
    }
    Ok(scan)
}

impl<'a> Scan<'a> {
    /// Notes a line, which begins at `begin` in `text`, for the second pass.
    #[inline]
    fn keep(&mut self, text: &'a str, begin: usize, what: Line<'a>, line: &'a str) {
        if !what.passes() {
            self.run = None;
            self.lines.push((what, line));
            return;
        }
        // only CRLF may stand within a run, since it is written as it is
        match (self.run, self.lines.last_mut()) {
            (Some(start), Some((_, run))) if text.as_bytes()[..begin].ends_with(b"\r\n") => {
                *run = &text[start..begin + line.len()];
            }
            _ => {
                self.run = Some(begin);
                self.lines.push((Line::Other, line));
            }
        }
    }

    /// All lines of the session level, or of the last section, are read; the next part begins at `end`.
    fn close(&mut self, text: &'a str, end: usize, formats: &Formats, policy: &Policy) {
        self.run = None;
        let Some(section) = self.sections.last_mut() else {
            self.session_lines = self.lines.len();
            return;
        };
        let rest = text.len() - end;
        section.text = &section.text[..section.text.len() - rest];
        section.lines.end = self.lines.len();
        if section.media.is_audio() {
            let mut listed = [0; 128];
            let mut count = 0;
            let mut seen = 0u128;
            let mut words = section.media.formats;
            while !words.is_empty() {
                let (word, rest) = cut(words, b' ');
                words = rest;
                if let Some((pt, "")) = payload_type(word) {
                    // each payload type once, so that there are never more than 128
                    if seen & (1 << pt) == 0 {
                        listed[count] = pt;
                        count += 1;
                    }
                    seen |= 1 << pt;
                }
            }
            (section.order, section.telephone_event) =
                policy.order(&listed[..count], &formats.table);
        }
    }
}

/// What a line is, with the fingerprints told apart.
#[inline]
fn meaning(line: &str) -> Line<'_> {
    match Line::of(line) {
        Line::Fingerprint(value) if !is_strong(value) => Line::WeakFingerprint,
        other => other,
    }
}

/// Meaning of each payload type of a section.
struct Formats {
    table: [Format; 128],
    /// Bit n: payload type n had its `rtpmap`.
    mapped: u128,
}

impl Formats {
    fn new(policy: &Policy) -> Self {
        Formats {
            table: *policy.fixed(),
            mapped: 0,
        }
    }

    fn see(&mut self, value: &str, policy: &Policy) {
        let Some((pt, format)) = policy.rtpmap(value) else {
            return;
        };
        let known = &mut self.table[usize::from(pt)];
        // two meanings for one payload type: the far side could choose the one that is not allowed
        let clash = self.mapped & (1 << pt) != 0 && *known != format;
        *known = if clash { Format::NONE } else { format };
        self.mapped |= 1 << pt;
    }
}

impl<'a> Scan<'a> {
    /// Reads the other sections whose transport is that of an audio section.
    fn read_leaders(&mut self) {
        // one bit for each of the at most 64 sections
        let mut read = 0u64;
        for at in 0..self.sections.len() {
            if !self.sections[at].media.is_audio() {
                continue;
            }
            let Some(leader) = self.leader(at) else {
                continue;
            };
            let section = &mut self.sections[leader];
            if section.media.is_audio() || read & (1 << leader) != 0 {
                continue;
            }
            read |= 1 << leader;
            for line in Lines::new(section.text).filter(|line| line.starts_with("a=")) {
                section.see(&meaning(line));
            }
        }
    }

    fn judge(&mut self, kind: Kind, policy: &Policy, dtls: bool) -> Result<(), Error> {
        let mut first = Faults::default();
        let mut any = false;
        for at in 0..self.sections.len() {
            let section = &self.sections[at];
            let offered_later = kind == Kind::Offer && section.bundle_only;
            if !section.media.is_audio() || (section.media.no_port && !offered_later) {
                continue;
            }
            let faults = self.faults(at, kind, dtls);
            if faults.is_empty() {
                self.sections[at].fate = Fate::Accepted { heir_of: None };
                any = true;
            } else if first.is_empty() {
                first = faults;
            }
        }
        if !any {
            first.add(Faults::AUDIO, first.is_empty());
            return Err(first.into_error(kind, policy));
        }
        for at in 0..self.sections.len() {
            if self.sections[at].accepted() {
                self.sections[at].fate = self.fate_in_bundle(at);
            }
        }
        Ok(())
    }

    fn faults(&self, at: usize, kind: Kind, dtls: bool) -> Faults {
        let section = &self.sections[at];
        let mut faults = Faults::default();
        faults.add(Faults::CODEC, section.order.is_empty());
        if !dtls {
            return faults;
        }
        let profile = section.media.protocol;
        faults.add(Faults::PROFILE, !is_dtls_srtp(profile));
        let scope = self.scope(at);
        faults.add(Faults::FINGERPRINT, scope.print != Print::Strong);
        let setup = match scope.setup {
            Some("active" | "passive") => true,
            Some("actpass") => kind == Kind::Offer,
            _ => false,
        };
        faults.add(Faults::SETUP, !setup);
        faults.add(Faults::UFRAG, !scope.ufrag.is_some_and(|v| is_ice(v, 4)));
        faults.add(Faults::PWD, !scope.pwd.is_some_and(|v| is_ice(v, 22)));
        faults
    }

    /// What holds for a section: its own words, those of the session, and those of the section that leads its BUNDLE
    /// group, where alone the transport of the group need stand (RFC 8843, section 7.1.3).
    pub fn scope(&self, at: usize) -> Scope<'a> {
        let own = self.sections[at].scope.within(self.session);
        match self.leader(at) {
            Some(leader) if leader != at => own.within(Scope {
                direction: None,
                ..self.sections[leader].scope
            }),
            _ => own,
        }
    }

    /// The section named first in the BUNDLE group of this one.
    pub fn leader(&self, at: usize) -> Option<usize> {
        self.members(at)?.next()
    }

    fn fate_in_bundle(&self, at: usize) -> Fate {
        let leads = match self.members(at) {
            Some(mut members) => members.find(|&m| self.sections[m].accepted()) == Some(at),
            None => true,
        };
        if !leads {
            return Fate::Bundled;
        }
        let heir_of = self.leader(at).filter(|&leader| leader != at);
        Fate::Accepted { heir_of }
    }

    /// The sections of the BUNDLE group in which this one is, in the group's order.
    fn members(&self, at: usize) -> Option<impl Iterator<Item = usize> + '_> {
        let mid = self.sections[at].mid?;
        let tags = self
            .bundles
            .iter()
            .find(|tags| words(tags).any(|tag| tag == mid))?;
        Some(words(tags).filter_map(|tag| self.sections.iter().position(|s| s.mid == Some(tag))))
    }

    /// Is this identification tag that of a section that stays?
    pub fn stays(&self, tag: &str) -> bool {
        self.sections
            .iter()
            .any(|s| s.mid == Some(tag) && s.accepted())
    }
}

/// Control bytes have no place in an SDP (RFC 8866, section 9).
fn control() -> Error {
    malformed(0, "it holds control bytes other than tabs and line ends")
}

/// The error of a text with control bytes.
#[cold]
fn control_bytes(text: &str) -> Option<Error> {
    let odd = |b: u8| b.is_ascii_control() && !matches!(b, b'\n' | b'\r' | b'\t');
    text.bytes().any(odd).then(control)
}

/// A fingerprint by sha-256 or stronger (RFC 8122, section 5), whole: a cut one could never match.
pub(crate) fn is_strong(value: &str) -> bool {
    let (hash, digest) = cut(value, b' ');
    let length = match hash {
        h if h.eq_ignore_ascii_case("sha-256") => 32,
        h if h.eq_ignore_ascii_case("sha-384") => 48,
        h if h.eq_ignore_ascii_case("sha-512") => 64,
        _ => return false,
    };
    let digest = digest.as_bytes();
    digest.len() == length * 3 - 1
        && digest.chunks(3).all(|byte| {
            byte[0].is_ascii_hexdigit()
                && byte[1].is_ascii_hexdigit()
                && byte.get(2).is_none_or(|&colon| colon == b':')
        })
}

/// DTLS-SRTP over UDP (RFC 5764, section 8).
pub(crate) fn is_dtls_srtp(profile: &str) -> bool {
    profile.eq_ignore_ascii_case("UDP/TLS/RTP/SAVPF")
        || profile.eq_ignore_ascii_case("UDP/TLS/RTP/SAVP")
}

/// `ice-ufrag` or `ice-pwd` (RFC 8839, section 5.4).
fn is_ice(value: &str, least: usize) -> bool {
    (least..=256).contains(&value.len())
        && value
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b == b'+' || b == b'/')
}
