//! rtc_json protocol
