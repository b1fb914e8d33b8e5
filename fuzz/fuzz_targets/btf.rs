//! A kernel's types: reading them and resolving the layout may fail, but not panic.

#![no_main]

use agent_guard::kernel::{
    btf::Btf,
    layout,
    support::{self, PROGRAMS},
};
use agent_guard_common::layout::{ABSENT, KernelLayout};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let btf = match Btf::parse(data) {
        Ok(btf) => btf,
        Err(error) => {
            assert!(!error.to_string().is_empty());
            return;
        }
    };
    let hooks = PROGRAMS.iter().filter(|program| support::present(&btf, program)).count();
    assert!(hooks <= PROGRAMS.len());
    match layout::resolve(&btf) {
        // One field stands for all: none may be left out of a layout that resolves.
        Ok(layout) => assert!(layout != KernelLayout::ABSENT && layout.regs_syscall != ABSENT),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});
