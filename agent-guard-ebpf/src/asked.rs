//! What a hook asks for, on its way through map memory to the event, the hold and its digest.

use agent_guard_common::{Op, event::Hook};

use crate::kernel::{Address, Untyped};

/// What is asked for, in plain numbers, all of its bytes told: it goes through map memory.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Asked {
    /// What is acted on; for a rename its source.
    pub first: Untyped,
    /// Target of a rename or a link.
    pub second: Untyped,
    /// Where a socket wants to go; family 0 for files. A Unix socket is a file, or its name is in [`More`].
    pub address: Address,
    /// What else belongs to it: the type of a new file, the flags of a rename, an ioctl.
    pub detail: u32,
    /// Protocol of that socket.
    pub protocol: u16,
    /// The operation that events name.
    pub op: Op,
    /// Where.
    pub hook: Hook,
    /// Generation that judges; 0 if there is none.
    pub generation: u32,
    /// 1 if what the hook returns reaches the system call, so that it can be started again.
    pub restarts: u32,
    /// The process that somebody outside of sessions acts on; 0 for what sessions do, see [`More`].
    pub target: u32,
}

impl Asked {
    /// Begins anew where it is.
    ///
    /// VERIFIER: of hooks that have no room for it on the stack.
    #[inline(always)]
    pub fn begin(&mut self, op: Op, hook: Hook, protocol: u16) {
        self.first = Untyped::NONE;
        self.second = Untyped::NONE;
        self.address = Address::NONE;
        self.detail = 0;
        self.protocol = protocol;
        self.op = op;
        self.hook = hook;
        self.generation = 0;
        self.restarts = 1;
        self.target = 0;
    }

    /// What somebody outside of sessions does to a process: told, not judged. Nobody's objects are part of it.
    #[inline(always)]
    pub fn witnessed(op: Op, hook: Hook, target: u32, detail: u32) -> Self {
        Self {
            first: Untyped::NONE,
            second: Untyped::NONE,
            address: Address::NONE,
            detail,
            protocol: 0,
            op,
            hook,
            generation: 0,
            restarts: 0,
            target,
        }
    }
}

/// What is asked for besides, by few hooks.
///
/// VERIFIER: not in [`Asked`], which is on the stack.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct More {
    /// The process that is acted on, 0 for none.
    pub target: u32,
    /// 1 more than the number of the capability that is used, 0 for none.
    pub capability: u32,
    /// What else an answer is about: a digest of the arguments that aren't objects.
    pub arguments: u64,
    /// Where the kernel has the abstract name of a Unix socket, 0 for none; it doesn't change while that is bound.
    pub name: u64,
    /// Its length.
    pub name_length: u32,
    /// VERIFIER: what it copies has to be initialised.
    pub pad: u32,
}

impl More {
    /// Nothing.
    pub const NONE: Self = Self { target: 0, capability: 0, arguments: 0, name: 0, name_length: 0, pad: 0 };
}
