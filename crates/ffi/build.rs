//! Makes the Rust side of `include/rtc_json_host.h`.

use std::env;
use std::path::PathBuf;

fn main() {
    let header = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it"))
        .join("../../include/rtc_json_host.h");
    println!("cargo:rerun-if-changed={}", header.display());
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets it")).join("host.rs");
    bindgen::Builder::default()
        .header(header.to_string_lossy())
        .allowlist_type("rtc_json_.*")
        .default_enum_style(bindgen::EnumVariation::ModuleConsts)
        .derive_default(true)
        .layout_tests(true)
        .generate()
        .expect("include/rtc_json_host.h is valid C")
        .write_to_file(out)
        .expect("OUT_DIR can be written");
}
