#![no_main]
libfuzzer_sys::fuzz_target!(|data: &[u8]| lippycat_fuzz::config(data));
