//! The kernel side as user space sees it: load, layout from BTF, identities, pins, generations, rings.
//!
//! No policy knowledge here: tables come in compiled.

pub mod btf;
pub mod enforcement;
pub mod host;
pub mod identity;
pub mod layout;
pub mod load;
pub mod maps;
pub mod memory;
pub mod programs;
pub mod record;
pub mod support;
mod symbols;
pub mod tables;
pub mod tree;

use std::path::PathBuf;

/// Why the kernel side could not be set up or talked to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Not root.
    #[error("agent-guard daemon must run as root: loading programs and pinning them needs it")]
    NotRoot,
    /// No BTF.
    #[error(
        "this kernel has no BTF ({}: {source}); it must be built with CONFIG_DEBUG_INFO_BTF=y; `agent-guard doctor` says what else this host needs",
        support::BTF
    )]
    NoBtf {
        /// What reading it said.
        source: std::io::Error,
    },
    /// The list of LSMs can't be read.
    #[error(
        "the list of security modules can't be read (/sys/kernel/security/lsm: {source}); mount securityfs: mount -t securityfs securityfs /sys/kernel/security"
    )]
    NoLsmList {
        /// What reading it said.
        source: std::io::Error,
    },
    /// No BPF file system.
    #[error("{path} is not on a BPF file system; mount it: mount -t bpf bpf /sys/fs/bpf")]
    NoBpfFs {
        /// Where pins should go.
        path: PathBuf,
    },
    /// BTF can't be read.
    #[error("this kernel's BTF can't be read: {0}")]
    Btf(#[from] btf::Error),
    /// A structure isn't as expected.
    #[error(transparent)]
    Layout(#[from] layout::Error),
    /// aya can't read BTF.
    #[error("this kernel's BTF can't be used: {0}")]
    AyaBtf(#[from] aya::BtfError),
    /// A hook is missing.
    #[error(
        "this kernel has no LSM hook {0}, without which no policy can be enforced; `agent-guard doctor` says what it can enforce"
    )]
    NoHook(&'static str),
    /// The object can't be loaded.
    #[error("the kernel refused the maps of the kernel side: {0}")]
    Object(#[from] aya::EbpfError),
    /// A program can't be loaded.
    #[error("the kernel refused program {name}: {source}")]
    Program {
        /// Name of the program.
        name: &'static str,
        /// What it said, the verifier's log included.
        source: Box<aya::programs::ProgramError>,
    },
    /// The kernel is locked down.
    #[error(
        "this kernel is locked down (lockdown=confidentiality), so programs may not read its memory and none can be loaded; \
         boot with lockdown=integrity or without: {0}"
    )]
    LockedDown(Box<Error>),
    /// The object lacks a program.
    #[error("the kernel side in this binary has no program {0}")]
    NoProgram(&'static str),
    /// A link can't be made or pinned.
    #[error("program {name} can't be pinned: {what}")]
    Pin {
        /// Name of the program.
        name: &'static str,
        /// What went wrong.
        what: String,
    },
    /// A map failed.
    #[error("map {name}: {source}")]
    Map {
        /// Name of the map.
        name: &'static str,
        /// What went wrong.
        source: Box<aya::maps::MapError>,
    },
    /// A system call failed.
    #[error("{call} for {object} failed: {source}")]
    Call {
        /// The call.
        call: &'static str,
        /// On what.
        object: String,
        /// What it said.
        source: std::io::Error,
    },
    /// Control groups aren't mounted.
    #[error(
        "control groups (cgroup2) are mounted nowhere, so questions for names can't be brought to the daemon; mount them: \
         mount -t cgroup2 cgroup2 /sys/fs/cgroup"
    )]
    NoControlGroups,
    /// The kernel side has no room for the control groups that a policy enrolls, or they can't be looked at.
    #[error("the policy's control groups: {0}")]
    Groups(String),
    /// The kernel side was loaded by another version.
    #[error(
        "{path} holds the kernel side of another version of agent-guard, whose sessions may still run; end them (agent-guard session kill), remove {path}, or go back to that version"
    )]
    OtherVersion {
        /// Where its pins are.
        path: PathBuf,
    },
}

impl Error {
    fn map(name: &'static str) -> impl Fn(aya::maps::MapError) -> Self {
        move |source| Self::Map { name, source: Box::new(source) }
    }

    /// For an object of a file system.
    pub fn looking_at(path: &std::path::Path) -> impl FnOnce(std::io::Error) -> Self {
        Self::call("open", path.display().to_string())
    }

    pub(crate) fn call(call: &'static str, object: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let object = object.into();
        move |source| Self::Call { call, object, source }
    }
}
