//! Messages recorded from real runs (tests/samples) are those that the types and their schema describe.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use rtc_json_protocol::{parse, schema::schema, Limits};
use serde_json::Value;

fn samples() -> Vec<(String, PathBuf, Value)> {
    let mut found = Vec::new();
    for direction in ["client", "server"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/samples")
            .join(direction);
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let messages: Vec<Value> = serde_json::from_str(&text).unwrap();
            assert!(!messages.is_empty(), "{}", path.display());
            for message in messages {
                let kind = message["type"].as_str().unwrap().to_owned();
                assert_eq!(path.file_stem().unwrap().to_str(), Some(kind.as_str()));
                found.push((format!("{direction}.{kind}"), path.clone(), message));
            }
        }
    }
    found
}

/// The schema of one message, by its name in `$defs`.
fn validator(name: &str) -> jsonschema::Validator {
    let mut whole = schema();
    let Some(object) = whole.as_object_mut() else {
        unreachable!("a schema is an object")
    };
    object.remove("oneOf");
    object.insert("$ref".to_owned(), format!("#/$defs/{name}").into());
    jsonschema::draft202012::new(&whole).unwrap()
}

#[test]
fn there_is_a_sample_of_every_message() {
    let recorded: BTreeSet<String> = samples().into_iter().map(|(name, ..)| name).collect();
    let described: BTreeSet<String> = schema()["$defs"]
        .as_object()
        .unwrap()
        .keys()
        .filter(|name| name.contains('.'))
        .cloned()
        .collect();
    assert_eq!(recorded, described);
}

#[test]
fn every_sample_is_what_the_schema_says() {
    for (name, path, message) in samples() {
        let complaints: Vec<String> = validator(&name)
            .iter_errors(&message)
            .map(|error| format!("{}: {error}", error.instance_path))
            .collect();
        assert!(complaints.is_empty(), "{}: {complaints:?}", path.display());
    }
}

#[test]
fn every_sample_of_a_client_is_parsed() {
    for (name, path, message) in samples() {
        if name.starts_with("client.") {
            let frame = message.to_string();
            let request = parse(frame.as_bytes(), &Limits::default())
                .unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            assert_eq!(request.id, message["id"].as_str().unwrap());
        }
    }
}

/// Without a key that it needs, a message is refused by the schema and, if it is a client's, by the parser.
#[test]
fn what_is_needed_is_needed_by_both() {
    let mut refused = 0;
    for (name, _, message) in samples() {
        let valid = validator(&name);
        let keys: Vec<String> = message["payload"]
            .as_object()
            .map(|payload| payload.keys().cloned().collect())
            .unwrap_or_default();
        for key in keys {
            let mut less = message.clone();
            less["payload"].as_object_mut().unwrap().remove(&key);
            let by_schema = !valid.is_valid(&less);
            refused += usize::from(by_schema);
            if name.starts_with("client.") {
                let by_parser = parse(less.to_string().as_bytes(), &Limits::default()).is_err();
                assert_eq!(by_schema, by_parser, "{name} without {key}");
            }
        }
    }
    assert!(refused > 100, "{refused}");
}
