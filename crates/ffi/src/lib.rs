//! rtc_json ffi
