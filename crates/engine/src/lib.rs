//! rtc_json engine
