//! Counts the instructions of system calls, without the guard and with it.
//!
//! Runs in a machine that counts instructions (`cargo xtask bench` starts it): there a nanosecond of guest time is
//! one instruction, so the clock is the counter. docs/bench.md describes the method.
//!
//! - `bench list` says which operations and cases there are;
//! - `bench run [--programs] [--op O]... [--case C]...`, outside of every session, measures them and prints one JSON object a row;
//! - `bench measure OP CONFINEMENT DIR EXPECTED`, in a session or not, is the process that is measured;
//! - `bench supervise PID FD` lets everything that a seccomp filter asks about go on;
//! - `bench true` is what is executed where executing is measured.
#![cfg_attr(not(test), no_main)]

mod cases;
mod child;
mod confine;
mod guard;
mod measure;
mod network;
mod ops;
mod places;
mod programs;
mod run;
mod supervise;
mod sys;
mod workloads;

use anyhow::{Result, bail};

/// What the C library starts, in place of the standard library's own. That looks at descriptors, signals and
/// `/proc/self/maps` before it gets to our `main`, and all of this would count as part of executing `bench true`,
/// even in different ways: under Landlock `/proc` can't be opened.
#[cfg(not(test))]
// SAFETY: nothing else here is called `main`, and this is its type.
#[unsafe(no_mangle)]
extern "C" fn main(count: libc::c_int, words: *const *const libc::c_char) -> libc::c_int {
    if count >= 2 {
        // SAFETY: the kernel has put as many C strings there as it says.
        let word = unsafe { std::ffi::CStr::from_ptr(*words.add(1)) };
        if word == c"true" {
            return 0;
        }
    }
    let words: Vec<String> = std::env::args().skip(1).collect();
    match dispatch(&words.iter().map(String::as_str).collect::<Vec<_>>()) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("bench: {error:#}");
            1
        }
    }
}

#[cfg_attr(test, expect(dead_code, reason = "the tests have a main of their own"))]
fn dispatch(words: &[&str]) -> Result<()> {
    match words {
        ["list"] => list(),
        ["run", args @ ..] => run::main(args),
        ["measure", args @ ..] => measure::main(args),
        ["supervise", pid, fd] => supervise::main(pid, fd),
        _ => {
            bail!("usage: bench list | run [--op O]... [--case C]... | measure ... | supervise PID FD | true")
        }
    }
}

/// What `cargo xtask bench` may be asked for.
fn list() -> Result<()> {
    for op in ops::Op::ALL {
        println!("op {}", op.name());
    }
    for workload in workloads::Workload::ALL {
        println!("op {}", workload.name());
    }
    for case in cases::ALL {
        println!("case {}", case.name);
    }
    Ok(())
}
