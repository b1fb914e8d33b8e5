//! Records of the kernel side: none may panic, whatever lengths they state.

#![no_main]

use std::os::unix::ffi::OsStrExt as _;

use agent_guard::kernel::record::{self, Record};
use agent_guard_common::{
    ABI,
    event::{Exec, Header, Judged, Lifecycle},
};
use libfuzzer_sys::fuzz_target;

/// Text out of `bytes`: every byte becomes one replacement character at most.
fn bounded(text: &str, bytes: usize) {
    assert!(text.len() <= 3 * bytes);
}

/// Reads a record as the daemon does.
fn read(data: &[u8]) {
    match record::decode(data) {
        Ok(Record::Judged(judged)) => {
            let [first, second] = &judged.path;
            for (seen, text) in [(&judged.first, first), (&judged.second, second)] {
                let Some(path) = record::path(seen, text) else { continue };
                let path = path.as_os_str().as_bytes();
                assert!(path.starts_with(if seen.cut == 0 { b"/" } else { b"..." }));
                assert!(path.len() <= text.len() + 3);
            }
            bounded(&record::text(&judged.header.comm), judged.header.comm.len());
        }
        Ok(Record::Exec(exec)) => {
            let (exe, args) = record::command(&exec);
            bounded(&exe, exec.exe.len());
            bounded(&args.concat(), exec.args.len());
            bounded(&record::text(&exec.header.comm), exec.header.comm.len());
        }
        Ok(Record::Fork(lifecycle) | Record::Exit(lifecycle)) => {
            bounded(&record::text(&lifecycle.header.comm), lifecycle.header.comm.len());
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

fuzz_target!(|data: &[u8]| {
    read(data);
    // The same as a record of every kind that is as long as it has to be.
    let kinds = [size_of::<Header>(), size_of::<Judged>(), size_of::<Exec>(), size_of::<Lifecycle>()];
    for (kind, size) in (0_u16..).zip(kinds.into_iter().chain([size_of::<Lifecycle>()])) {
        let mut whole = vec![0; size];
        for (to, from) in whole.iter_mut().zip(data) {
            *to = *from;
        }
        // As `Header` begins: size, kind, ABI.
        whole[..4].copy_from_slice(&u32::try_from(size).unwrap_or_default().to_ne_bytes());
        whole[4..6].copy_from_slice(&kind.to_ne_bytes());
        whole[6..8].copy_from_slice(&u16::try_from(ABI).unwrap_or_default().to_ne_bytes());
        read(&whole);
    }
});
