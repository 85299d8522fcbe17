//! What a QEMU answers over its qtest socket: any bytes, and then nothing.
#![no_main]

use std::io::Write;
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use cxl_harness::qemu::qtest::{PortWidth, Qtest, Width};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let (ours, mut qemu) = UnixStream::pair().unwrap();
    // Less than a socket's buffer: nobody reads meanwhile.
    qemu.write_all(&data[..data.len().min(32 << 10)]).unwrap();
    qemu.shutdown(Shutdown::Write).unwrap();
    let mut qtest = Qtest::over(ours, Duration::from_secs(5));
    let mut bytes = [0; 24];
    for round in 0..256u64 {
        let done = match round % 5 {
            0 => qtest.load(round, Width::Four).map(drop),
            1 => qtest.store(round, round, Width::Eight),
            2 => qtest.port_in(round as u16, PortWidth::One).map(drop),
            3 => qtest.read_memory(round, &mut bytes),
            _ => qtest.write_memory(round, &bytes),
        };
        let Err(error) = done else { continue };
        assert!(error.to_string().len() < 2048, "{error}");
        // A failure stays.
        assert!(qtest.check().is_err() && qtest.load(0, Width::One).is_err());
        return;
    }
});
