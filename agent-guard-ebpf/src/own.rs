//! What needs no rule: what no program can do without and nothing is lost by.

use agent_guard_common::{Op, subject::Session};

use crate::{
    judge::{Generation, Judgement, needs_no_rule},
    kernel::{Dentry, Device, Task},
    walk::Spot,
};

/// How reading from and writing to a file is judged.
#[derive(Clone, Copy)]
pub struct Kind(u32);

impl Kind {
    const BUILTIN: u32 = 0;
    const SCOPED: u32 = 1;
    const UNSCOPED: u32 = 2;

    /// Of a file, which may be a device or about the task itself.
    ///
    /// VERIFIER: mixed with a zero that it doesn't know, or it follows each kind through each operation.
    #[inline(always)]
    pub fn of(session: &Session, task: Task, dentry: Dentry) -> Self {
        let kind = match dentry.inode() {
            None => Self::SCOPED,
            Some(inode) => match inode.device() {
                Device::Character(number) if needs_no_rule(session, number) => Self::BUILTIN,
                Device::None if inode.is_own_proc_file(dentry, task) => Self::BUILTIN,
                Device::None => Self::SCOPED,
                _ => Self::UNSCOPED,
            },
        };
        Self(kind ^ session.pad)
    }

    /// The decision about one operation.
    #[inline(always)]
    pub fn judge(self, tables: &Generation, session: &Session, spot: &Spot, op: Op) -> Judgement {
        if self.0 == Self::BUILTIN {
            return Judgement::builtin();
        }
        spot.judge(tables, session, op, self.0 == Self::UNSCOPED)
    }
}
