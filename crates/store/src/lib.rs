//! rtc_json store
