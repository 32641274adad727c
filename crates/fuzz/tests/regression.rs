//! Replays the inputs in `fuzz/regression`: what was once found, and one of each kind that a target is for.

use std::path::{Path, PathBuf};

use rtc_json_fuzz::TARGETS;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regression")
}

fn replay(name: &str) {
    let (_, target) = TARGETS
        .into_iter()
        .find(|(target, _)| *target == name)
        .expect("a target");
    let mut inputs: Vec<PathBuf> = std::fs::read_dir(folder().join(name))
        .expect("its folder")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    inputs.sort();
    assert!(!inputs.is_empty(), "no inputs for {name}");
    for path in inputs {
        let input = std::fs::read(&path).expect("a file");
        println!("{}", path.display());
        target(&input);
        // cut short and with a byte too many, it must do no harm either
        target(&input[..input.len() / 2]);
        target(&[&input[..], b"\xff"].concat());
    }
}

#[test]
fn frames() {
    replay("frames");
}

#[test]
fn sdp() {
    replay("sdp");
}

#[test]
fn sip() {
    replay("sip");
}

#[test]
fn token() {
    replay("token");
}

#[test]
fn arena() {
    replay("arena");
}

#[test]
fn ffi() {
    replay("ffi");
}

#[test]
fn every_folder_has_a_target_and_every_target_a_program() {
    for entry in std::fs::read_dir(folder()).expect("the folder") {
        let name = entry.expect("an entry").file_name();
        let name = name.to_string_lossy();
        assert!(TARGETS.iter().any(|(target, _)| *target == name), "{name}");
    }
    let manifest =
        std::fs::read_to_string(folder().join("../Cargo.toml")).expect("fuzz/Cargo.toml");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
