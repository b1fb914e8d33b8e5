//! Who is whose parent, among tasks that are only known by their addresses. In a program under RCU, as all are: a task that
//! was in a list when the program began can be read until it ends.

use agent_guard_common::{attach::Relative, subject::Guard};
use aya_ebpf::helpers::generated::bpf_get_current_task;

use super::{Task, offset, probe, probe_at};

/// `struct task_struct *`, as a number.
#[derive(Clone, Copy)]
pub struct Address(pub u64);

impl Address {
    /// The task that makes the call.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper takes nothing.
        Self(unsafe { bpf_get_current_task() })
    }

    /// The first thread of a task's process.
    #[inline(always)]
    pub fn leader_of(task: Task) -> Option<Self> {
        probe!(task.0 as u64, task_group_leader, u64).map(Self)
    }

    /// The process it is of. The same for all its threads, and after one of them has executed a program in the place of all
    /// (`de_thread`, fs/exec.c, copies the start).
    #[inline(always)]
    pub fn process(self) -> Option<Relative> {
        let leader = probe!(self.0, task_group_leader, u64)?;
        let start = probe!(leader, task_start_boottime, u64)?;
        let tgid = probe!(leader, task_tgid, u32)?;
        Some(Relative { start: start / Guard::TICK, tgid, pad: 0 })
    }

    /// Its parent: the thread that made it, or another one of that process, or whoever takes in orphans.
    #[inline(always)]
    pub fn parent(self) -> Option<Self> {
        probe!(self.0, task_real_parent, u64).map(Self)
    }

    /// The list of its children.
    #[inline(always)]
    pub fn children(self) -> Siblings {
        Siblings(self.0.wrapping_add(offset!(task_children) as u64))
    }
}

/// A `struct list_head *` among children: their list itself, or the place of one in it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Siblings(pub u64);

impl Siblings {
    /// The next place. Its own one if it isn't in the list any more (`list_del_init` in `__unhash_process`, kernel/exit.c).
    #[inline(always)]
    pub fn next(self) -> Option<Self> {
        probe_at::<u64>(self.0).map(Self)
    }

    /// The child that has this place.
    #[inline(always)]
    pub fn child(self) -> Address {
        Address(self.0.wrapping_sub(offset!(task_sibling) as u64))
    }
}
