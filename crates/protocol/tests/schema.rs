//! The committed schema is the one that the types make.

use std::path::Path;

#[test]
fn the_committed_schema_is_that_of_the_types() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/schema/rtc-json.schema.json");
    let mut made = serde_json::to_string_pretty(&rtc_json_protocol::schema::schema()).unwrap();
    made.push('\n');
    if std::env::var_os("RTC_JSON_SCHEMA").is_some_and(|how| how == "write") {
        std::fs::write(&file, &made).unwrap();
    }
    let committed = std::fs::read_to_string(&file).unwrap();
    assert!(committed == made, "run make docs");
}
