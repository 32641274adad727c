//! JSON files that others wrote to break parsers.

use std::path::PathBuf;

use rtc_json_protocol::{parse, variable, Limits};

/// Proper JSON that our own rules refuse: a key twice.
const REFUSED_BY_RULE: [&str; 2] = [
    "y_object_duplicated_key.json",
    "y_object_duplicated_key_and_value.json",
];

/// Of those that a parser may take or leave: numbers that no integer holds, and one that is so small that it is 0.
const TAKEN_OF_EITHER: [&str; 5] = [
    "i_number_double_huge_neg_exp.json",
    "i_number_real_underflow.json",
    "i_number_too_big_neg_int.json",
    "i_number_too_big_pos_int.json",
    "i_number_very_big_negative_int.json",
];

fn files() -> Option<Vec<(String, Vec<u8>)>> {
    let corpora = std::env::var_os("RTC_JSON_CORPORA").map_or_else(
        || {
            PathBuf::from(concat!(
                env!("CARGO_MANIFEST_DIR"),
                "/../../../shared/corpora"
            ))
        },
        PathBuf::from,
    );
    let folder = corpora.join("json");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        println!("skipped: there are no JSON files in {}", folder.display());
        return None;
    };
    let mut files: Vec<(String, Vec<u8>)> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .map(|path| {
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            (name, std::fs::read(path).unwrap())
        })
        .collect();
    files.sort();
    assert_eq!(files.len(), 318);
    Some(files)
}

fn limits() -> Limits {
    Limits {
        max_frame: 1 << 20,
        ..Limits::default()
    }
}

#[test]
fn none_is_a_message() {
    for (name, content) in files().unwrap_or_default() {
        assert!(parse(&content, &limits()).is_err(), "{name}");
        assert_eq!(variable(&content, "type"), None, "{name}");
    }
}

#[test]
fn as_a_value_it_is_taken_or_refused() {
    let mut either = Vec::new();
    for (name, content) in files().unwrap_or_default() {
        let mut frame = br#"{"type":"ping","payload":{"x":"#.to_vec();
        frame.extend_from_slice(&content);
        frame.extend_from_slice(br#"},"id":"1"}"#);
        let taken = parse(&frame, &limits()).is_ok();
        match name.as_bytes()[0] {
            b'y' => assert_eq!(taken, !REFUSED_BY_RULE.contains(&name.as_str()), "{name}"),
            b'n' => assert!(!taken, "{name}"),
            _ if taken => either.push(name),
            _ => {}
        }
    }
    if !either.is_empty() {
        assert_eq!(either, TAKEN_OF_EITHER);
    }
}
