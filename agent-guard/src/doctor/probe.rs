//! What only the running kernel can answer: whether it takes programs and maps.

use aya::{
    maps::MapType,
    programs::{LsmAttachType, ProgramType},
    sys::{is_map_supported, is_program_supported},
};

/// What the kernel says to a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// It can.
    Yes,
    /// It doesn't know that.
    No,
    /// It refuses, and this is what it says.
    Refused(String),
    /// Only root may ask.
    NotAsked,
}

/// The kernel, to be asked.
pub trait Probe {
    /// Whether root asks.
    fn is_root(&self) -> bool;
    /// Whether a program for an LSM hook passes the verifier and can be attached. It does nothing, and is gone at once.
    fn lsm_program(&self) -> Answer;
    /// Whether there are ring buffers.
    fn ring_buffer(&self) -> Answer;
    /// Whether tasks can carry values.
    fn task_storage(&self) -> Answer;
    /// Bytes that are free for root on the file system that holds a directory.
    fn free_bytes(&self, directory: &std::path::Path) -> Option<u64>;
}

/// The running kernel.
#[derive(Clone, Copy, Debug)]
pub struct Running;

impl Running {
    fn ask<E: std::error::Error>(self, question: impl FnOnce() -> Result<bool, E>) -> Answer {
        if !self.is_root() {
            return Answer::NotAsked;
        }
        match question() {
            Ok(true) => Answer::Yes,
            Ok(false) => Answer::No,
            Err(error) => Answer::Refused(chain(&error)),
        }
    }
}

/// An error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    text
}

impl Probe for Running {
    fn is_root(&self) -> bool {
        rustix::process::geteuid().is_root()
    }

    fn lsm_program(&self) -> Answer {
        self.ask(|| is_program_supported(ProgramType::Lsm(LsmAttachType::Mac)))
    }

    fn ring_buffer(&self) -> Answer {
        self.ask(|| is_map_supported(MapType::RingBuf))
    }

    fn task_storage(&self) -> Answer {
        self.ask(|| is_map_supported(MapType::TaskStorage))
    }

    fn free_bytes(&self, directory: &std::path::Path) -> Option<u64> {
        let found = directory.ancestors().find_map(|at| rustix::fs::statvfs(at).ok())?;
        Some(found.f_bfree.saturating_mul(found.f_frsize))
    }
}
