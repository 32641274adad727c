//! The torture messages of RFC 4475.

use std::path::PathBuf;

use rtc_json_sip::{
    answered_elsewhere, contact_expires, min_expires, split_list, Dialog, Message, NameAddr, Uri,
};

/// Wrong in their start line or in their length; the others can at least be taken apart.
const REFUSED: [&str; 10] = [
    "badvers", "bigcode", "clerr", "ltgtruri", "lwsruri", "lwsstart", "mcl01", "ncl", "test",
    "trws",
];

fn messages() -> Option<Vec<(String, Vec<u8>)>> {
    let corpora = std::env::var_os("RTC_JSON_CORPORA").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/corpora"
            ))
        },
        PathBuf::from,
    );
    let folder = corpora.join("sip-rfc4475");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!(
            "skipped: there are no torture messages in {}",
            folder.display()
        );
        return None;
    };
    let mut messages: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "dat"))
        .map(|path| {
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    messages.sort();
    assert_eq!(messages.len(), 50);
    Some(messages)
}

/// Asks a message everything that can be asked.
fn exercise(message: &Message<'_>) {
    for name in [
        "From",
        "To",
        "Contact",
        "Via",
        "Route",
        "Record-Route",
        "Subject",
        "Date",
    ] {
        for value in message.headers(name) {
            assert!(!value.contains(char::is_control), "{name}: {value:?}");
            for element in split_list(&value) {
                if let Ok(addr) = NameAddr::parse(element) {
                    let again = NameAddr::parse(&addr.to_string());
                    assert_eq!(again.as_ref(), Ok(&addr), "{element}");
                    let _ = Uri::parse(&addr.uri);
                }
            }
        }
    }
    let _ = Dialog::incoming(message, "tag").map(|dialog| dialog.route_headers());
    let _ = Dialog::from_reply(message).map(|dialog| dialog.request_uri().to_owned());
    let _ = contact_expires(message, "sip:a@b");
    let _ = min_expires(message);
    let _ = answered_elsewhere(message);
    let _ = (
        message.cseq(),
        message.cseq_method(),
        message.content_type(),
    );
}

#[test]
fn each_message_is_taken_apart_or_refused() {
    let Some(messages) = messages() else { return };
    let mut refused = Vec::new();
    for (name, raw) in &messages {
        match Message::parse(raw) {
            Ok(message) => exercise(&message),
            Err(_) => refused.push(name.as_str()),
        }
    }
    assert_eq!(refused, REFUSED);
}

#[test]
fn cut_anywhere_nothing_breaks() {
    let Some(messages) = messages() else { return };
    for (_, raw) in &messages {
        for end in 0..raw.len() {
            if let Ok(message) = Message::parse(&raw[..end]) {
                exercise(&message);
            }
        }
    }
}

#[test]
fn the_tortuous_invite_reads_right() {
    let Some(messages) = messages() else { return };
    let raw = &messages.iter().find(|(name, _)| name == "wsinv").unwrap().1;
    let message = Message::parse(raw).unwrap();
    assert_eq!(message.method(), Some("INVITE"));
    assert_eq!(message.cseq(), Some(9));
    assert_eq!(message.header("s").unwrap(), "");
    let to = NameAddr::parse(&message.header("To").unwrap()).unwrap();
    assert_eq!(to.tag(), Some("1918181833n"));
    let from = NameAddr::parse(&message.header("From").unwrap()).unwrap();
    assert_eq!(from.display.as_deref(), Some("J Rosenberg \\\""));
    assert_eq!(from.tag(), Some("98asjd8"));
    assert_eq!(message.list("Via").len(), 3);
    assert_eq!(
        message.list("Route"),
        ["<sip:services.example.com;lr;unknownwith=value;unknown-no-value>"]
    );
    let contact = NameAddr::parse(&message.header("Contact").unwrap()).unwrap();
    assert_eq!(contact.display.as_deref(), Some("Quoted string \"\""));
    assert_eq!(contact.param("newparam"), Some(Some("newvalue")));
    assert_eq!(contact.param("secondparam"), Some(None));
    assert_eq!(contact.param("q"), Some(Some("0.33")));
    assert_eq!(message.body().len(), 150);
}
