//! Reading and changing a text that passed a filter.

use crate::{
    filter::without_receiving,
    line::{is_unspecified, payload_type, Line, Lines, Media},
    Candidates, Direction,
};

/// What a text that went to the SIP side says of the transport of its audio, for [`crate::Placement::keep`]: the first
/// accepted audio section with a candidate (one that shares the transport of another has none). Empty, with port 0, if
/// there is no such section.
pub fn candidates(sdp: &str) -> Candidates {
    let mut session = ("", "");
    let mut found: Option<Candidates> = None;
    let mut inside = Inside::Session;
    for line in Lines::new(sdp) {
        match (Line::of(line), inside, &mut found) {
            (Line::Media(value), ..) => {
                if found.as_ref().is_some_and(|found| !found.lines.is_empty()) {
                    break;
                }
                inside = Inside::of(value);
                found = (inside == Inside::Audio).then(|| Candidates {
                    port: port(value),
                    ..Candidates::default()
                });
            }
            (Line::Ufrag(value), Inside::Session, _) => session.0 = value,
            (Line::Connection(value), Inside::Session, _) if session.1.is_empty() => {
                session.1 = value;
            }
            (Line::Ufrag(value), _, Some(found)) => value.clone_into(&mut found.ufrag),
            (Line::Connection(value), _, Some(found)) if found.connection.is_empty() => {
                value.clone_into(&mut found.connection);
            }
            (Line::Candidate(_) | Line::EndOfCandidates, _, Some(found)) => {
                found.lines.push_str(line);
                found.lines.push_str("\r\n");
            }
            _ => {}
        }
    }
    let mut found = found
        .filter(|found| !found.lines.is_empty())
        .unwrap_or_default();
    if found.port != 0 {
        if found.ufrag.is_empty() {
            session.0.clone_into(&mut found.ufrag);
        }
        if found.connection.is_empty() {
            session.1.clone_into(&mut found.connection);
        }
    }
    found
}

/// Direction of the first accepted audio section, with `c=0.0.0.0` read as [`crate::Filtered::direction`] does for the
/// SIP side; `SendRecv` if there is none.
pub fn direction(sdp: &str) -> Direction {
    #[derive(Clone, Copy, Default)]
    struct Said<'a> {
        direction: Option<Direction>,
        connection: Option<&'a str>,
        ice: bool,
    }
    let mut session = Said::default();
    let mut section = Said::default();
    let mut section_port = 0;
    let mut inside = Inside::Session;
    for line in Lines::new(sdp) {
        let said = match inside {
            Inside::Session => &mut session,
            _ => &mut section,
        };
        match Line::of(line) {
            Line::Media(_) if inside == Inside::Audio => break,
            Line::Media(value) => {
                inside = Inside::of(value);
                section = Said::default();
                section_port = port(value);
            }
            Line::Direction(value) => said.direction = said.direction.or(Some(value)),
            Line::Connection(value) => said.connection = said.connection.or(Some(value)),
            Line::Ufrag(_) => said.ice = true,
            _ => {}
        }
    }
    if inside != Inside::Audio {
        return Direction::default();
    }
    let direction = section.direction.or(session.direction).unwrap_or_default();
    let nowhere = section
        .connection
        .or(session.connection)
        .is_some_and(is_unspecified);
    if nowhere && !((section.ice || session.ice) && section_port == 9) {
        return without_receiving(direction);
    }
    direction
}

/// A later offer or answer of our own, made from the last text that was sent: every accepted audio section gets the
/// direction, the version in `o=` is raised by one (RFC 3264, section 8), all else stays as it is.
///
/// In an offer `a=setup` may stay as the last text had it: `actpass`, or the role that was agreed (RFC 8842, section
/// 5.5). An answer made from an offer must not say `actpass`; that is the caller's to put right.
pub fn with_direction(last: &str, dir: Direction) -> String {
    let mut out = String::with_capacity(last.len() + 32);
    let mut inside = Inside::Session;
    // the section waits for its direction line
    let mut waits = false;
    let push = |out: &mut String, waits: &mut bool| {
        if std::mem::take(waits) {
            out.push_str("a=");
            out.push_str(dir.name());
            out.push_str("\r\n");
        }
    };
    for line in Lines::new(last) {
        match Line::of(line) {
            Line::Media(value) => {
                push(&mut out, &mut waits);
                inside = Inside::of(value);
                waits = inside == Inside::Audio;
            }
            Line::Direction(_) if inside == Inside::Audio => {
                push(&mut out, &mut waits);
                continue;
            }
            Line::Origin(value) => {
                raised(&mut out, value);
                continue;
            }
            _ => {}
        }
        out.push_str(line);
        out.push_str("\r\n");
    }
    push(&mut out, &mut waits);
    out
}

/// Makes a text of the browser the successor of `last`, the text that was sent before it in the same dialog: `o=` becomes
/// that of `last` with its version raised by one. RFC 3264 (section 8) asks for an unbroken line of versions, which the
/// browser cannot keep: it does not know of our own offers (hold), and a page that was loaded anew begins from scratch.
pub fn follow(text: &mut String, last: &str) {
    let Some(last) = Lines::new(last).find_map(origin) else {
        return;
    };
    let mut lines = Lines::new(text);
    let mut start = 0;
    let range = loop {
        match lines.next() {
            Some(line) if origin(line).is_some() => break start..lines.end,
            Some(_) => start = lines.end,
            None => return,
        }
    };
    let mut line = String::with_capacity(last.len() + 8);
    raised(&mut line, last);
    text.replace_range(range, &line);
}

/// Is the far side's new offer no more than a change of direction against the last text it sent, so that it can be
/// answered without the browser? Both as [`crate::from_sip`] gave them.
///
/// Sections, ports, addresses, profiles, ICE credentials, fingerprints and every line about media must be the same.
/// Not compared are: `o=`, `s=`, `t=`; directions; the order of lines and of payload types; payload types that are new
/// (the far side had answered with fewer than it now offers again; those agreed must all be there, and mean the same);
/// candidates, which change no agreed path while the credentials are the same; `a=connection`; `c=` if the new one is
/// 0.0.0.0 (hold as RFC 2543 had it) or the old one was; `a=setup` if the new one is `actpass`.
///
/// In doubt the answer is no: to ask the browser is never wrong.
pub fn only_direction_differs(old: &str, new: &str) -> bool {
    let (old, new) = (Picture::of(old), Picture::of(new));
    old.sections.len() == new.sections.len()
        && same_connection(old.session.connection, new.session.connection)
        && same_setup(old.session.setup, new.session.setup)
        && old.session.lines == new.session.lines
        && old
            .sections
            .iter()
            .zip(&new.sections)
            .all(|(old, new)| old.is_continued_by(new))
}

/// Do two texts of one side come from the same certificates? If not, a new DTLS association is to begin (RFC 8842, section 5.5).
pub fn same_fingerprints(a: &str, b: &str) -> bool {
    let prints = |text| {
        let mut found: Vec<String> = Lines::new(text)
            .filter_map(|line| line.strip_prefix("a=fingerprint:"))
            .map(str::to_ascii_lowercase)
            .collect();
        found.sort_unstable();
        found.dedup();
        found
    };
    prints(a) == prints(b)
}

/// In which part of a text a line stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Inside {
    Session,
    /// An audio section that is not refused.
    Audio,
    Other,
}

impl Inside {
    fn of(media: &str) -> Inside {
        match Media::parse(media) {
            Some(media) if media.is_audio() && !media.no_port => Inside::Audio,
            _ => Inside::Other,
        }
    }
}

fn port(media: &str) -> u16 {
    Media::parse(media)
        .and_then(|media| media.port.split('/').next()?.parse().ok())
        .unwrap_or(0)
}

fn origin(line: &str) -> Option<&str> {
    match Line::of(line) {
        Line::Origin(value) => Some(value),
        _ => None,
    }
}

/// Writes an `o=` line with the version, its third word, raised by one. It may have any number of digits.
fn raised(out: &mut String, origin: &str) {
    out.push_str("o=");
    for (n, word) in origin.split(' ').enumerate() {
        if n > 0 {
            out.push(' ');
        }
        if n != 2 || word.is_empty() || !word.bytes().all(|b| b.is_ascii_digit()) {
            out.push_str(word);
            continue;
        }
        let nines = word.bytes().rev().take_while(|&b| b == b'9').count();
        let (head, tail) = word.split_at(word.len() - nines);
        match head.bytes().last() {
            Some(digit) => {
                out.push_str(&head[..head.len() - 1]);
                out.push(char::from(digit + 1));
            }
            None => out.push('1'),
        }
        out.extend(std::iter::repeat_n('0', tail.len()));
    }
    out.push_str("\r\n");
}

/// What [`only_direction_differs`] compares.
#[derive(Default)]
struct Picture<'a> {
    session: Part<'a>,
    sections: Vec<Part<'a>>,
}

#[derive(Default)]
struct Part<'a> {
    media: Option<Media<'a>>,
    connection: Option<&'a str>,
    setup: Option<&'a str>,
    /// Lines that must be the same, sorted.
    lines: Vec<&'a str>,
    /// Lines about a payload type, sorted.
    formats: Vec<(u8, &'a str)>,
}

impl<'a> Picture<'a> {
    fn of(sdp: &'a str) -> Self {
        let mut picture = Picture::default();
        for line in Lines::new(sdp) {
            let part = picture.sections.last_mut().unwrap_or(&mut picture.session);
            match Line::of(line) {
                Line::Media(value) => picture.sections.push(Part {
                    media: Media::parse(value),
                    ..Part::default()
                }),
                Line::Connection(value) => part.connection = Some(value),
                Line::Setup(value) => part.setup = Some(value),
                Line::Origin(_)
                | Line::Direction(_)
                | Line::Candidate(_)
                | Line::EndOfCandidates => {}
                Line::Rtpmap(value) | Line::OfFormat(value) => match payload_type(value) {
                    Some((pt, _)) => part.formats.push((pt, line)),
                    None => part.lines.push(line),
                },
                _ if is_passing(line) => {}
                _ => part.lines.push(line),
            }
        }
        for part in picture.sections.iter_mut().chain([&mut picture.session]) {
            part.lines.sort_unstable();
            part.formats.sort_unstable();
        }
        picture
    }
}

/// Lines that say nothing about the media that flow.
fn is_passing(line: &str) -> bool {
    line.is_empty()
        || [
            "s=",
            "t=",
            "a=connection:",
            "a=remote-candidates:",
            "a=ice-options:",
        ]
        .iter()
        .any(|start| line.starts_with(start))
}

impl Part<'_> {
    fn is_continued_by(&self, new: &Self) -> bool {
        let (Some(was), Some(is)) = (self.media, new.media) else {
            return false;
        };
        was.kind == is.kind
            && was.port == is.port
            && was.protocol == is.protocol
            && same_connection(self.connection, new.connection)
            && same_setup(self.setup, new.setup)
            && self.lines == new.lines
            && self.formats_continue_in(new, was.formats, is.formats)
    }

    /// Every agreed payload type is there, with the same lines about it.
    fn formats_continue_in(&self, new: &Self, was: &str, is: &str) -> bool {
        let (Some(agreed), Some(offered)) = (payload_types(was), payload_types(is)) else {
            return was == is && self.formats == new.formats;
        };
        let about = |(pt, _): &&(u8, &str)| agreed & (1 << pt) != 0;
        agreed & !offered == 0
            && self
                .formats
                .iter()
                .filter(about)
                .eq(new.formats.iter().filter(about))
    }
}

/// Bit n: payload type n is listed. `None` if these are no payload types.
fn payload_types(formats: &str) -> Option<u128> {
    formats
        .split(' ')
        .filter(|word| !word.is_empty())
        .try_fold(0, |all, word| match payload_type(word) {
            Some((pt, "")) => Some(all | 1 << pt),
            _ => None,
        })
}

/// Is the address still the same one? 0.0.0.0 is the hold of RFC 2543, and no address.
fn same_connection(old: Option<&str>, new: Option<&str>) -> bool {
    old == new || old.is_some_and(is_unspecified) || new.is_some_and(is_unspecified)
}

fn same_setup(old: Option<&str>, new: Option<&str>) -> bool {
    old == new || new == Some("actpass")
}

/// A later offer with further candidates: they stand behind those that the first accepted audio section with candidates has
/// (or at its end), the version in `o=` is raised by one. `lines` are as browsers name them (`candidate:…`); what is not is
/// left out, and so is what stands there already.
pub fn with_candidates(last: &str, lines: &[String]) -> String {
    let known = candidates(last).lines;
    let fresh: String = lines
        .iter()
        .filter(|line| line.starts_with("candidate:") && !line.contains(char::is_control))
        .map(|line| format!("a={line}\r\n"))
        .filter(|line| !known.contains(line.as_str()))
        .collect();
    let mut out = String::with_capacity(last.len() + fresh.len() + 8);
    let mut placed = fresh.is_empty();
    let mut behind = false;
    for line in Lines::new(last) {
        let kind = Line::of(line);
        let candidate = matches!(kind, Line::Candidate(_));
        if behind && !candidate && !placed {
            out.push_str(&fresh);
            placed = true;
        }
        behind |= candidate;
        match kind {
            Line::Origin(value) => raised(&mut out, value),
            _ => {
                out.push_str(line);
                out.push_str("\r\n");
            }
        }
    }
    if behind && !placed {
        out.push_str(&fresh);
    }
    out
}

/// Do both say the same, apart from the version in `o=`?
pub fn same_but_for_version(a: &str, b: &str) -> bool {
    let owner = |value: &str| {
        let mut words = value.split(' ');
        (
            words.next().map(str::to_owned),
            words.next().map(str::to_owned),
            words.nth(1).map(str::to_owned),
        )
    };
    let (mut a, mut b) = (Lines::new(a), Lines::new(b));
    loop {
        match (a.next(), b.next()) {
            (None, None) => return true,
            (Some(a), Some(b)) => match (origin(a), origin(b)) {
                (Some(a), Some(b)) if owner(a) == owner(b) => {}
                _ if a == b => {}
                _ => return false,
            },
            _ => return false,
        }
    }
}
