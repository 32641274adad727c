//! Who calls: numbers, names and the header fields that a browser sees of an INVITE or gives to one.
//!
//! - in: [`is_trusted`], [`remote_of`], [`shown_headers`], [`diversion`]
//! - out: [`header_lines`], [`asserted`]
//!
//! An identity that the network asserts (P-Asserted-Identity, RFC 3325) counts only from a peer that the operator trusts.
//! Who asks for privacy (RFC 3323) gets it from everybody.

use std::net::IpAddr;

use ipnet::IpNet;
use rtc_json_sip::{self as sip, Message, NameAddr, Uri};

use crate::config::HeaderList;

/// Header fields of an INVITE that a browser is shown at most, the bytes of one, and of all.
const MAX_HEADERS: usize = 32;
const MAX_VALUE: usize = 1024;
const MAX_BYTES: usize = 8192;
/// Longest number and name that are kept.
const MAX_NAME: usize = 128;

/// Asserted by somebody for somebody else: worth nothing from a stranger, and never a browser's to give.
const ASSERTED: [&str; 2] = ["p-asserted-identity", "remote-party-id"];
/// Further fields that say who calls or by whom the call came.
const IDENTIFYING: [&str; 8] = [
    "p-preferred-identity",
    "diversion",
    "history-info",
    "identity",
    "referred-by",
    "reply-to",
    "call-info",
    "organization",
];

/// The far side, as a browser may know it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Party {
    /// Its number; `anonymous` if it wants to be private.
    pub number: String,
    /// Its name.
    pub name: Option<String>,
}

/// Do the operator's networks hold that address?
pub(crate) fn is_trusted(peers: &[IpNet], address: Option<IpAddr>) -> bool {
    // an IPv4 address may come in the clothes of IPv6
    let address = address.map(|a| a.to_canonical());
    address.is_some_and(|a| peers.iter().any(|net| net.contains(&a)))
}

/// Who has sent a request. `trusted`: see [`is_trusted`].
pub(crate) fn remote_of(message: &Message<'_>, trusted: bool) -> Party {
    if Privacy::of(message).identity {
        return Party {
            number: "anonymous".to_owned(),
            name: None,
        };
    }
    let from = message
        .header("From")
        .and_then(|value| NameAddr::parse(&value).ok());
    let asserted = trusted.then(|| asserted_of(message)).flatten();
    let number = asserted.as_ref().or(from.as_ref()).map(number_of);
    let number = shortened(number.unwrap_or_default());
    // a name that the network does not know may come from the caller himself, as long as he is the one
    let own = from.filter(|from| shortened(number_of(from)) == number);
    let name = asserted
        .and_then(|a| a.display)
        .or_else(|| own.and_then(|from| from.display));
    Party {
        number,
        name: name.map(shortened),
    }
}

/// The header fields that the operator lets a browser see.
pub(crate) fn shown_headers(
    message: &Message<'_>,
    list: &HeaderList,
    trusted: bool,
) -> Vec<(String, String)> {
    let privacy = Privacy::of(message);
    let hidden = |name: &str| {
        let is = |known: &&str| known.eq_ignore_ascii_case(name);
        let asserted = ASSERTED.iter().any(&is);
        asserted && (!trusted || privacy.identity)
            || privacy.identity && IDENTIFYING.iter().any(&is)
            || privacy.history && is(&"history-info")
    };
    let mut bytes = 0;
    message
        .all_headers()
        .filter(|(name, value)| list.allows(name) && !hidden(name) && value.len() <= MAX_VALUE)
        .take(MAX_HEADERS)
        // half a value would be worse than none
        .filter(|(name, value)| {
            let len = name.len() + value.len();
            let fits = bytes + len <= MAX_BYTES;
            bytes += if fits { len } else { 0 };
            fits
        })
        .map(|(name, value)| (name.to_owned(), value.into_owned()))
        .collect()
}

/// The number that has sent the call on to here: the latest in Diversion (RFC 5806), else the latest in History-Info that
/// says why it did (RFC 7044).
pub(crate) fn diversion(message: &Message<'_>) -> Option<String> {
    let privacy = Privacy::of(message);
    if privacy.identity {
        return None;
    }
    let number = match message.list("Diversion").first() {
        Some(value) => {
            let by = NameAddr::parse(value).ok()?;
            let private = by.param("privacy").flatten().map(|p| p.trim_matches('"'));
            if private
                .is_some_and(|p| p.eq_ignore_ascii_case("full") || p.eq_ignore_ascii_case("uri"))
            {
                return None;
            }
            number_of(&by)
        }
        None if privacy.history => return None,
        None => {
            let entries = message.list("History-Info");
            let sent_on = entries.iter().rev().find_map(|value| {
                let by = NameAddr::parse(value).ok()?;
                // header fields of the URI: why it was left, and whether that is to be told
                let (_, fields) = by.uri.split_once('?')?;
                let fields = fields.to_ascii_lowercase();
                let has = |name: &str| fields.split('&').any(|field| field.starts_with(name));
                has("reason=").then(|| (!has("privacy=")).then(|| number_of(&by)))
            });
            sent_on.flatten()?
        }
    };
    Some(shortened(number)).filter(|number| !number.is_empty())
}

/// The header lines of the fields that a browser gives to its INVITE.
///
/// # Errors
/// The name of the first one that is not allowed.
pub(crate) fn header_lines<'h>(
    headers: &'h [(String, String)],
    list: &HeaderList,
) -> Result<String, &'h str> {
    let mut lines = String::new();
    for (name, value) in headers {
        // a single letter is the compact form of one of SIP's own, whatever pattern it fits
        let never = name.len() < 2
            || ASSERTED
                .iter()
                .any(|known| known.eq_ignore_ascii_case(name));
        if never || !list.allows(name) || value.contains(char::is_control) {
            return Err(name);
        }
        lines.push_str(&format!("{name}: {value}\r\n"));
    }
    Ok(lines)
}

/// The header line in which this server asserts an agent's identity (RFC 3325, section 9.1): it has authenticated him. Without
/// a name, for that one is the browser's own choice.
pub(crate) fn asserted(dn: &str, domain: &str) -> String {
    let user = sip::escape_user(dn);
    ["P-Asserted-Identity: <sip:", &user, "@", domain, ">\r\n"].concat()
}

/// What Privacy asks for.
struct Privacy {
    /// That nobody learns who calls.
    identity: bool,
    /// That nobody learns how the call came here (RFC 7044, section 10.1).
    history: bool,
}

impl Privacy {
    fn of(message: &Message<'_>) -> Self {
        let mut wanted = Privacy {
            identity: false,
            history: false,
        };
        for value in message.headers("Privacy") {
            for word in value.split([';', ',']).map(str::trim) {
                match word.to_ascii_lowercase().as_str() {
                    "none" => {
                        return Privacy {
                            identity: false,
                            history: false,
                        }
                    }
                    // "critical" alone says nothing more, but whoever writes it is serious
                    "id" | "user" | "header" | "critical" => wanted.identity = true,
                    "history" => wanted.history = true,
                    _ => {}
                }
            }
        }
        wanted
    }
}

/// The asserted identity: a SIP URI before a number alone (RFC 3325, section 9.1: at most one of each).
fn asserted_of(message: &Message<'_>) -> Option<NameAddr> {
    let mut known: Vec<NameAddr> = message
        .list("P-Asserted-Identity")
        .iter()
        .filter_map(|value| NameAddr::parse(value).ok())
        .filter(|address| Uri::parse(&address.uri).is_ok_and(|uri| !uri.user.is_empty()))
        .collect();
    let is_tel = |a: &NameAddr| {
        a.uri
            .get(..4)
            .is_some_and(|s| s.eq_ignore_ascii_case("tel:"))
    };
    known.sort_by_key(is_tel);
    let name = known.iter().find_map(|address| address.display.clone());
    let mut first = known.into_iter().next()?;
    first.display = first.display.or(name);
    Some(first)
}

/// The number in an address: its URI's user part, or the whole URI where it has none.
pub(crate) fn number_of(address: &NameAddr) -> String {
    let Ok(uri) = Uri::parse(&address.uri) else {
        return address.uri.clone();
    };
    if uri.user.is_empty() {
        return address.uri.clone();
    }
    let digits = |user: &str| user.starts_with(|c: char| c == '+' || c.is_ascii_digit());
    let user = match uri.user.split_once(';') {
        // a telephone number with its parameters (RFC 3261, section 19.1.6)
        Some((number, _)) if digits(number) => number,
        _ => uri.user,
    };
    if uri.scheme.eq_ignore_ascii_case("tel") {
        // RFC 3966, section 5.1.1: they mean nothing
        return user.replace(['-', '.', '(', ')'], "");
    }
    sip::unescape_user(user)
}

fn shortened(mut text: String) -> String {
    let mut end = text.len().min(MAX_NAME);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.truncate(end);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn invite(fields: &str) -> String {
        format!("INVITE sip:5001@gw SIP/2.0\r\nCall-ID: c\r\n{fields}Content-Length: 0\r\n\r\n")
    }

    fn remote(fields: &str, trusted: bool) -> (String, Option<String>) {
        let raw = invite(fields);
        let message = Message::parse(raw.as_bytes()).expect("a good message");
        let party = remote_of(&message, trusted);
        (party.number, party.name)
    }

    fn shown(fields: &str, list: &str, trusted: bool) -> Vec<(String, String)> {
        let raw = invite(fields);
        let message = Message::parse(raw.as_bytes()).expect("a good message");
        shown_headers(&message, &HeaderList::parse(list), trusted)
    }

    fn diverted(fields: &str) -> Option<String> {
        let raw = invite(fields);
        diversion(&Message::parse(raw.as_bytes()).expect("a good message"))
    }

    fn party(number: &str, name: Option<&str>) -> (String, Option<String>) {
        (number.to_owned(), name.map(str::to_owned))
    }

    const FROM: &str = "From: \"Bob\" <sip:1003@pbx>;tag=1\r\n";

    #[test]
    fn networks_of_the_operator() {
        let peers: Vec<IpNet> = ["192.0.2.0/24", "2001:db8::1/128"]
            .map(|net| net.parse().expect("a network"))
            .into();
        let trusted = |a: &str| is_trusted(&peers, a.parse().ok());
        assert!(trusted("192.0.2.7") && trusted("2001:db8::1") && trusted("::ffff:192.0.2.7"));
        assert!(!trusted("192.0.3.7") && !trusted("2001:db8::2") && !trusted("not an address"));
        assert!(!is_trusted(&[], "192.0.2.7".parse().ok()));
    }

    #[test]
    fn an_asserted_identity_counts_from_trusted_peers_only() {
        let asserted = |value: &str| format!("{FROM}P-Asserted-Identity: {value}\r\n");
        let sip = asserted("\"Real\" <sip:+4912@net>");
        assert_eq!(remote(&sip, true), party("+4912", Some("Real")));
        assert_eq!(remote(&sip, false), party("1003", Some("Bob")));
        assert_eq!(
            remote(&asserted("<sips:+4912@net;user=phone>"), true),
            party("+4912", None)
        );
        assert_eq!(
            remote(&asserted("tel:+1-212-(555).1212;phone-context=x"), true),
            party("+12125551212", None)
        );
        // both forms, in two fields or one
        let both = asserted("<tel:+4913>, \"Real\" <sip:alice@net>");
        assert_eq!(remote(&both, true), party("alice", Some("Real")));
        let two = format!(
            "{}P-Asserted-Identity: \"T\" <tel:+4913>\r\n",
            asserted("<sip:alice@net>")
        );
        assert_eq!(remote(&two, true), party("alice", Some("T")));
        // nothing in it that could be shown
        for useless in ["<http://x>", "<sip:net>", "rubbish", ""] {
            assert_eq!(
                remote(&asserted(useless), true),
                party("1003", Some("Bob")),
                "{useless}"
            );
        }
        // the network knows the number, the caller says the name
        assert_eq!(
            remote(&asserted("<sip:1003@net>"), true),
            party("1003", Some("Bob"))
        );
    }

    #[test]
    fn who_wants_privacy_gets_it() {
        let asserted = format!("{FROM}P-Asserted-Identity: \"Real\" <sip:+4912@net>\r\n");
        for (value, private) in [
            ("id", true),
            ("user", true),
            ("header", true),
            ("critical", true),
            ("header; id;critical", true),
            ("ID", true),
            ("id,user", true),
            ("none", false),
            ("none;id", false),
            ("session", false),
            ("history", false),
            ("identity", false),
        ] {
            let fields = format!("{asserted}Privacy: {value}\r\n");
            for trusted in [true, false] {
                let (number, name) = remote(&fields, trusted);
                assert_eq!(number == "anonymous", private, "{value}");
                assert_eq!(name.is_none(), private, "{value}");
            }
        }
        let two = format!("{asserted}Privacy: session\r\nPrivacy: id\r\n");
        assert_eq!(remote(&two, true), party("anonymous", None));
    }

    #[test]
    fn numbers_of_addresses() {
        let number =
            |uri: &str| number_of(&NameAddr::parse(&format!("<{uri}>")).expect("an address"));
        assert_eq!(number("sip:5001*%23@h"), "5001*#");
        assert_eq!(number("sip:+4912;phone-context=x@h;user=phone"), "+4912");
        assert_eq!(number("sip:a;b@h"), "a;b");
        assert_eq!(number("sip:host"), "sip:host");
        assert_eq!(number("mailto:x"), "mailto:x");
        let long = format!(
            "From: \"{}\" <sip:{}@h>\r\n",
            "ä".repeat(100),
            "1".repeat(500)
        );
        let (number, name) = remote(&long, false);
        assert_eq!((number.len(), name.map(|n| n.len())), (128, Some(128)));
        assert_eq!(remote("", true), party("", None));
    }

    #[test]
    fn the_operator_chooses_what_is_shown() {
        let fields = format!(
            "{FROM}X-Genesys-CallUUID: 7;x=\"a, b\"\r\nx-genesys-queue: sales\r\nX-Other: no\r\n\
             User-to-User: 56a390f3d2b7310023;encoding=hex\r\nX-Genesys-Fold: a\r\n b\x01c\r\n\
             P-Asserted-Identity: <sip:+4912@net>\r\nRemote-Party-ID: <sip:+4912@net>\r\n"
        );
        let list = "X-Genesys-*,User-to-User,P-Asserted-Identity,Remote-Party-ID";
        let names = |found: &[(String, String)]| -> Vec<String> {
            found.iter().map(|(name, _)| name.clone()).collect()
        };
        let all = shown(&fields, list, true);
        assert_eq!(
            names(&all),
            [
                "X-Genesys-CallUUID",
                "x-genesys-queue",
                "User-to-User",
                "X-Genesys-Fold",
                "P-Asserted-Identity",
                "Remote-Party-ID"
            ]
        );
        assert_eq!(all[0].1, "7;x=\"a, b\"");
        assert_eq!(
            all[2].1, "56a390f3d2b7310023;encoding=hex",
            "RFC 7433: as it came"
        );
        assert_eq!(all[3].1, "a b c");
        assert_eq!(
            names(&shown(&fields, list, false)).len(),
            4,
            "no identity from a stranger"
        );
        assert_eq!(shown(&fields, "", true), []);
        let private = format!("{fields}Diversion: <sip:1@h>\r\nPrivacy: id\r\n");
        let all_of_them = format!("{list},Diversion");
        assert_eq!(names(&shown(&private, &all_of_them, true)).len(), 4);
    }

    #[test]
    fn what_is_shown_is_bounded() {
        let many: String = (0..100).map(|n| format!("X-N{n}: v\r\n")).collect();
        assert_eq!(shown(&many, "X-*", true).len(), MAX_HEADERS);
        let long = format!("X-A: {}\r\nX-B: {}\r\n", "a".repeat(1024), "b".repeat(1025));
        assert_eq!(shown(&long, "X-*", true).len(), 1, "none is cut in two");
        let much: String = (0..20)
            .map(|n| format!("X-{n}: {}\r\n", "a".repeat(1000)))
            .collect();
        assert_eq!(shown(&much, "X-*", true).len(), 8);
    }

    #[test]
    fn who_sent_the_call_on() {
        assert_eq!(
            diverted(
                "Diversion: \"B\" <sip:+4913@h>;reason=no-answer\r\nDiversion: <tel:+49-14>\r\n"
            )
            .as_deref(),
            Some("+4913")
        );
        assert_eq!(
            diverted("Diversion: <tel:+49-14>;reason=x, <sip:1@h>\r\n").as_deref(),
            Some("+4914")
        );
        for hidden in [
            "Diversion: <sip:1@h>;privacy=full\r\n",
            "Diversion: <sip:1@h>;privacy=\"URI\"\r\n",
            "Diversion: <sip:1@h>\r\nPrivacy: id\r\n",
            "Diversion: rubbish\r\n",
            "History-Info: <sip:1@h?Reason=SIP%3Bcause%3D302&Privacy=history>;index=1\r\n",
            "History-Info: <sip:1@h?Reason=SIP>;index=1\r\nPrivacy: history\r\n",
            "History-Info: <sip:1@h>;index=1, <sip:2@h>;index=1.1\r\n",
            "",
        ] {
            assert_eq!(diverted(hidden), None, "{hidden}");
        }
        assert_eq!(
            diverted("Diversion: <sip:1@h>;privacy=off\r\n").as_deref(),
            Some("1")
        );
        let history = "History-Info: <sip:+4915@h?Reason=SIP%3Bcause%3D480>;index=1, \
                       <sip:+4916@h?Reason=SIP%3Bcause%3D302>;index=1.1, <sip:5001@h>;index=1.2\r\n";
        assert_eq!(diverted(history).as_deref(), Some("+4916"));
    }

    #[test]
    fn what_a_browser_may_add() {
        let list =
            HeaderList::parse("X-*,P-Asserted-Identity,Remote-Party-ID,Privacy,x*,User-to-User");
        let lines = |name: &str, value: &str| {
            header_lines(&[(name.to_owned(), value.to_owned())], &list).map_err(str::to_owned)
        };
        assert_eq!(
            lines("X-Case", "a; b=\"c\"").as_deref(),
            Ok("X-Case: a; b=\"c\"\r\n")
        );
        assert_eq!(lines("privacy", "id").as_deref(), Ok("privacy: id\r\n"));
        assert_eq!(
            lines("User-to-User", "00ff;encoding=hex").as_deref(),
            Ok("User-to-User: 00ff;encoding=hex\r\n")
        );
        for name in [
            "Subject",
            "P-Asserted-Identity",
            "p-asserted-identity",
            "Remote-Party-ID",
            "x",
            "X",
        ] {
            assert_eq!(lines(name, "v"), Err(name.to_owned()));
        }
        assert_eq!(lines("X-A", "v\r\nVia: w"), Err("X-A".to_owned()));
        let two = [
            ("X-A".to_owned(), "1".to_owned()),
            ("Y".to_owned(), "2".to_owned()),
        ];
        assert_eq!(header_lines(&two, &list), Err("Y"));
        assert_eq!(header_lines(&[], &list).as_deref(), Ok(""));
    }

    #[test]
    fn the_agent_is_asserted_without_a_name() {
        assert_eq!(
            asserted("50#01", "pbx"),
            "P-Asserted-Identity: <sip:50%2301@pbx>\r\n"
        );
    }
}
