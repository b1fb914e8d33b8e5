//! Tasks and programs.

use aya_ebpf::helpers::generated::{
    bpf_get_current_task_btf, bpf_probe_read_kernel_str, bpf_probe_read_user, bpf_task_pt_regs,
};

use agent_guard_common::layout::ABSENT;

use super::{File, Path, load, offset, probe};

/// `struct task_struct *`, typed.
#[derive(Clone, Copy)]
pub struct Task(pub *const u8);

/// `struct linux_binprm *`.
#[derive(Clone, Copy)]
pub struct Bprm(pub *const u8);

/// `PF_EXITING`, `PF_IO_WORKER`, `PF_KTHREAD` (`include/linux/sched.h`, the same from 6.1 to 7.2).
const PF_EXITING: u32 = 4;
const PF_IO_WORKER: u32 = 0x10;
const PF_KTHREAD: u32 = 0x20_0000;
/// `TS_COMPAT` (`arch/x86/include/asm/thread_info.h`): the task is in a 32-bit call.
const TS_COMPAT: u32 = 2;
/// `io_uring_enter`, the same number on every architecture and for 32-bit calls.
const IO_URING_ENTER: u64 = 426;

impl Task {
    /// The task that makes the call.
    #[inline(always)]
    pub fn current() -> Self {
        // SAFETY: the helper takes nothing and always returns the current task.
        Self(unsafe { bpf_get_current_task_btf() }.cast_const().cast())
    }

    /// Whether no program keeps anything for the task.
    #[inline(always)]
    pub fn has_no_storage(self) -> bool {
        load!(self.0, task_bpf_storage, u64) == 0
    }

    /// Thread number, of the initial namespace.
    #[inline(always)]
    pub fn tid(self) -> u32 {
        load!(self.0, task_pid, u32)
    }

    /// Process number, of the initial namespace.
    #[inline(always)]
    pub fn tgid(self) -> u32 {
        load!(self.0, task_tgid, u32)
    }

    /// Whether it runs kernel code only.
    #[inline(always)]
    pub fn is_kernels(self) -> bool {
        load!(self.0, task_flags, u32) & PF_KTHREAD != 0
    }

    /// Whether it has begun to end.
    #[inline(always)]
    pub fn ends(self) -> bool {
        load!(self.0, task_flags, u32) & PF_EXITING != 0
    }

    /// Whether it has ended, but for its parent's hearing of it. Its children have other parents then (`exit_notify`,
    /// kernel/exit.c).
    #[inline(always)]
    pub fn has_ended(self) -> bool {
        load!(self.0, task_exit_state, u32) != 0
    }

    /// The user and the group that it is of, in the initial name space.
    #[inline(always)]
    pub fn ids(self) -> (u32, u32) {
        let cred = load!(self.0, task_cred, *const u8);
        (load!(cred, cred_uid, u32), load!(cred, cred_gid, u32))
    }

    /// Its name.
    #[inline(always)]
    pub fn name(self) -> [u8; 16] {
        probe!(self.0.expose_provenance() as u64, task_comm, [u8; 16]).unwrap_or([0; 16])
    }

    /// Whether no other thread of its process goes on; to be asked once it has begun to end itself (`do_exit`, kernel/exit.c,
    /// counts down before its tracepoint).
    #[inline(always)]
    pub fn was_last(self) -> bool {
        let shared = load!(self.0, task_signal, *const u8);
        load!(shared, signal_live, u32) == 0
    }

    /// Parent process.
    #[inline(always)]
    pub fn parent_tgid(self) -> u32 {
        let parent = load!(self.0, task_real_parent, *const u8);
        load!(parent, task_tgid, u32)
    }

    /// The directory that it is in, `struct dentry *`.
    #[inline(always)]
    pub fn directory(self) -> u64 {
        let fs = load!(self.0, task_fs, *const u8);
        Path(fs.wrapping_add(offset!(fs_struct_pwd))).dentry().address()
    }

    /// Its mount name space, typed.
    #[inline(always)]
    pub fn mount_namespace(self) -> *const u8 {
        let nsproxy = load!(self.0, task_nsproxy, *const u8);
        load!(nsproxy, nsproxy_mnt_ns, *const u8)
    }

    /// The kernel's count of changes of its mount name space. Two name spaces can have the same: an unmount that goes on to
    /// others counts once for all of them (`__touch_mnt_namespace`, fs/namespace.c).
    #[inline(always)]
    pub fn mount_changes(self) -> u64 {
        load!(self.mount_namespace(), mnt_namespace_event, u64)
    }

    /// When the process started, nanoseconds since boot.
    #[inline(always)]
    pub fn start(self) -> u64 {
        let leader = load!(self.0, task_group_leader, *const u8);
        load!(leader, task_start_boottime, u64)
    }

    /// The kernel's own name of the thread, `struct pid *`.
    #[inline(always)]
    pub fn pid(self) -> u64 {
        load!(self.0, task_thread_pid, u64)
    }

    /// The kernel's own name of the process.
    #[inline(always)]
    pub fn leader_pid(self) -> u64 {
        let leader = load!(self.0, task_group_leader, *const u8);
        load!(leader, task_thread_pid, u64)
    }

    /// Whether a file system acts for the task with rights of its own, as overlayfs does on its layers, within an ordinary
    /// system call. A ring's requests can have other rights than the task, too, but by its own choice: those don't count.
    #[inline(always)]
    pub fn is_acted_for(self) -> bool {
        load!(self.0, task_cred, u64) != load!(self.0, task_real_cred, u64) && self.can_restart()
    }

    /// Whether the call that the task is in can be started again: an ordinary thread in an ordinary system
    /// call. What `io_uring` does for a task is none, neither in its workers nor inside `io_uring_enter`. What it does at the
    /// end of another call isn't told apart: it isn't done either, but ends with the number that starts a call again.
    #[inline(always)]
    pub fn can_restart(self) -> bool {
        if load!(self.0, task_flags, u32) & (PF_IO_WORKER | PF_KTHREAD) != 0 {
            return false;
        }
        // SAFETY: the task is the current one, which has registers; the helper checks the type.
        let regs = unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as u64;
        // An interrupt or trap has a negative number here: nothing to go back to.
        match probe!(regs, regs_syscall, u64) {
            Some(number) => number != IO_URING_ENTER && (number as i64) >= 0,
            None => false,
        }
    }

    /// The number of the system call that the task is in; none where it means something else (32-bit calls) or there is none.
    #[inline(always)]
    pub fn system_call(self) -> Option<u64> {
        if load!(self.0, task_thread_status, u32) & TS_COMPAT != 0 {
            return None;
        }
        // SAFETY: the task is the current one, which has registers; the helper checks the type.
        let regs = unsafe { bpf_task_pt_regs(self.0.cast_mut().cast()) } as u64;
        probe!(regs, regs_syscall, u64)
    }

    /// Whether a program that is executed gets other rights than the task has: another user or group to act as, or
    /// capabilities.
    #[inline(always)]
    pub fn gains(self, bprm: Bprm) -> bool {
        let (now, then) = (load!(self.0, task_cred, *const u8), load!(bprm.0, bprm_cred, *const u8));
        load!(now, cred_euid, u32) != load!(then, cred_euid, u32)
            || load!(now, cred_egid, u32) != load!(then, cred_egid, u32)
            || permitted(then, 0) & !permitted(now, 0) != 0
            || permitted(then, 4) & !permitted(now, 4) != 0
    }

    /// Copies the arguments that the program was started with. They are in the new image, which no
    /// instruction of the program has run in yet.
    #[inline(always)]
    pub fn arguments(self, to: &mut [u8; agent_guard_common::event::ARGS_BYTES]) -> u32 {
        let mm = load!(self.0, task_mm, *const u8);
        if mm.is_null() {
            return 0;
        }
        let start = load!(mm, mm_arg_start, u64);
        let end = load!(mm, mm_arg_end, u64);
        let length = end.wrapping_sub(start);
        let length = if length > to.len() as u64 { to.len() as u32 } else { length as u32 };
        // VERIFIER: the bound has to be on the very register that is passed on.
        let length = length & (2 * to.len() as u32 - 1);
        if length > to.len() as u32 {
            return 0;
        }
        // SAFETY: the destination has room for the length; the helper checks the source.
        let code = unsafe {
            bpf_probe_read_user(
                to.as_mut_ptr().cast(),
                length,
                core::ptr::with_exposed_provenance(start as usize),
            )
        };
        if code == 0 { length } else { 0 }
    }
}

/// Half of the permitted capabilities: up to 6.2 they are two words.
#[inline(always)]
fn permitted(cred: *const u8, at: usize) -> u32 {
    load!(cred.wrapping_add(at), cred_cap_permitted, u32)
}

/// `struct user_namespace *`.
#[derive(Clone, Copy)]
pub struct UserNamespace(pub *const u8);

impl UserNamespace {
    /// Whether it is the first one, whose capabilities are those of the host.
    #[inline(always)]
    pub fn is_the_hosts(self) -> bool {
        load!(self.0, user_ns_level, u32) == 0
    }
}

impl Bprm {
    /// The file that is executed: of a script first itself, then its interpreter.
    #[inline(always)]
    pub fn file(self) -> File {
        File(load!(self.0, bprm_file, *const u8))
    }

    /// Whether somebody only asks whether it could be executed (`AT_EXECVE_CHECK`, from 6.14 on).
    #[inline(always)]
    pub fn only_checks(self) -> bool {
        let bit = offset!(bprm_is_check);
        if bit == ABSENT as usize {
            return false;
        }
        let address = self.0.wrapping_add(bit / 8);
        // SAFETY: the verifier checks type and offset, and turns faults into zeroes.
        let byte = unsafe { core::ptr::read_volatile(address) };
        byte >> (bit % 8) & 1 != 0
    }

    /// The first of the page tables of its memory.
    #[inline(always)]
    pub fn page_tables(self) -> u64 {
        let mm = load!(self.0, bprm_mm, *const u8);
        load!(mm, mm_pgd, u64)
    }

    /// Where its arguments are in that memory; its environment comes behind them.
    #[inline(always)]
    pub fn arguments_at(self) -> u64 {
        load!(self.0, bprm_p, u64)
    }

    /// Where its environment ends.
    #[inline(always)]
    pub fn environment_end(self) -> u64 {
        load!(self.0, bprm_exec, u64)
    }

    /// How many arguments it has.
    #[inline(always)]
    pub fn argument_count(self) -> u32 {
        load!(self.0, bprm_argc, u32)
    }

    /// Copies the name that the program is executed by; returns its length.
    #[inline(always)]
    pub fn filename(self, to: &mut [u8; agent_guard_common::event::EXE_BYTES]) -> u32 {
        let name = load!(self.0, bprm_filename, u64);
        // SAFETY: the destination has that room; the helper checks the source.
        let length = unsafe {
            bpf_probe_read_kernel_str(
                to.as_mut_ptr().cast(),
                to.len() as u32,
                core::ptr::with_exposed_provenance(name as usize),
            )
        };
        if length > 0 { (length as u32).saturating_sub(1) } else { 0 }
    }
}
