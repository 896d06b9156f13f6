#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| shadow_fuzz::http2::check(bytes));
