//! rtc_json sdp
