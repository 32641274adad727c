//! The static library that the Kamailio module is linked with. All of it is in `crates/`; the C surface is
//! [`rtc_json_ffi`], described in `include/rtc_json.h`.

pub use rtc_json_ffi::*;
