//! rtc_json sip
