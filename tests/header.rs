//! The committed C header is what the source of the core says.

#[test]
fn the_committed_header_is_current() {
    let generated = include_str!(concat!(env!("OUT_DIR"), "/rtc_json.h"));
    let committed = include_str!("../include/rtc_json.h");
    assert!(
        generated == committed,
        "include/rtc_json.h is not what crates/ffi/src/lib.rs says: run `make header`"
    );
}
