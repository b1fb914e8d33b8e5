//! Where the running kernel keeps the fields that the hooks read.
//!
//! User space resolves every offset from the running kernel's BTF and sets one frozen `.rodata`
//! struct before the load, so the verifier sees constants and checks the types of typed loads.

/// Stands for a field that this kernel doesn't have.
pub const ABSENT: u32 = u32::MAX;

/// Declares [`KernelLayout`] and its all-absent value from one list.
macro_rules! layout {
    ($($(#[$doc:meta])* $name:ident),+ $(,)?) => {
        /// Byte offsets of kernel struct members, named `struct_member`; [`ABSENT`] where missing.
        #[repr(C)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub struct KernelLayout {
            $($(#[$doc])* pub $name: u32,)+
        }

        impl KernelLayout {
            /// Nothing resolved yet.
            pub const ABSENT: Self = Self { $($name: ABSENT,)+ };

            /// Names of all fields, in the order of the struct.
            pub const NAMES: &'static [&'static str] = &[$(stringify!($name),)+];
        }
    };
}

layout! {
    /// `task_struct.flags`, unsigned int.
    task_flags,
    /// `task_struct.tgid`, `pid_t`.
    task_tgid,
    /// `task_struct.pid`, `pid_t`.
    task_pid,
    /// `task_struct.real_parent`, pointer to `task_struct`.
    task_real_parent,
    /// `task_struct.group_leader`, pointer to `task_struct`.
    task_group_leader,
    /// `task_struct.children`, struct `list_head`: of a task's children.
    task_children,
    /// `task_struct.sibling`, struct `list_head`: the place in that list.
    task_sibling,
    /// `task_struct.signal`, pointer to `signal_struct`: what the threads of a process share.
    task_signal,
    /// `signal_struct.live`, `atomic_t`: how many of them haven't begun to end.
    signal_live,
    /// `task_struct.exit_state`, int: not 0 once its children have other parents.
    task_exit_state,
    /// `task_struct.start_boottime`, u64, nanoseconds since boot.
    task_start_boottime,
    /// `task_struct.bpf_storage`, pointer to `bpf_local_storage`.
    task_bpf_storage,
    /// `task_struct.mm`, pointer to `mm_struct`.
    task_mm,
    /// `task_struct.thread_pid`, pointer to pid.
    task_thread_pid,
    /// `task_struct.cred`, pointer to cred: what the task acts as.
    task_cred,
    /// `task_struct.real_cred`, pointer to cred: who the task is.
    task_real_cred,
    /// `task_struct.nsproxy`, pointer to nsproxy.
    task_nsproxy,
    /// `nsproxy.mnt_ns`, pointer to `mnt_namespace`.
    nsproxy_mnt_ns,
    /// `mnt_namespace.event`, u64: changes with every mount.
    mnt_namespace_event,
    /// `task_struct.thread_info.status`, u32: on x86 whether the task is in a 32-bit call.
    task_thread_status,
    /// `task_struct.comm`, 16 bytes: the name of a thread.
    task_comm,
    /// `cred.uid`, `kuid_t`.
    cred_uid,
    /// `cred.gid`, `kgid_t`.
    cred_gid,
    /// `cred.euid`, `kuid_t`.
    cred_euid,
    /// `cred.egid`, `kgid_t`.
    cred_egid,
    /// `cred.cap_permitted`, `kernel_cap_t`: 64 bits.
    cred_cap_permitted,
    /// `user_namespace.level`, int: 0 for the first one.
    user_ns_level,
    /// `mm_struct.arg_start`, unsigned long.
    mm_arg_start,
    /// `mm_struct.arg_end`, unsigned long.
    mm_arg_end,
    /// `linux_binprm.cred`, pointer to cred.
    bprm_cred,
    /// `linux_binprm.mm`, pointer to `mm_struct`: of the program that is to be executed.
    bprm_mm,
    /// `linux_binprm.p`, unsigned long: where its arguments begin.
    bprm_p,
    /// `linux_binprm.exec`, unsigned long: where its environment ends.
    bprm_exec,
    /// `linux_binprm.argc`, int.
    bprm_argc,
    /// `linux_binprm.file`, pointer to file.
    bprm_file,
    /// `linux_binprm.is_check`, one bit: its place in bits; absent before 6.14.
    bprm_is_check,
    /// `mm_struct.pgd`, pointer: the first of the page tables.
    mm_pgd,
    /// `task_struct.fs`, pointer to `fs_struct`.
    task_fs,
    /// `task_struct.files`, pointer to `files_struct`.
    task_files,
    /// `files_struct.fdt`, pointer to `fdtable`.
    files_fdt,
    /// `fdtable.max_fds`, unsigned int.
    fdt_max_fds,
    /// `fdtable.fd`, pointer to pointers to file.
    fdt_fd,
    /// `fdtable.close_on_exec`, pointer to unsigned long.
    fdt_close_on_exec,
    /// `cgroup.root`, pointer to `cgroup_root`.
    cgroup_root,
    /// `cgroup.kn`, pointer to `kernfs_node`.
    cgroup_kn,
    /// `cgroup_root.hierarchy_id`, int: 0 for the unified one.
    cgroup_root_hierarchy_id,
    /// `kernfs_node.id`, u64.
    kernfs_node_id,
    /// `fs_struct.pwd`, struct path.
    fs_struct_pwd,
    /// `linux_binprm.filename`, pointer to char.
    bprm_filename,
    /// `file.f_path`, struct path.
    file_f_path,
    /// `file.f_mode`, `fmode_t`.
    file_f_mode,
    /// `file.f_flags`, unsigned int.
    file_f_flags,
    /// `file.private_data`, pointer: for a descriptor of a map `struct bpf_map`.
    file_private_data,
    /// `vm_area_struct.vm_file`, pointer to file.
    vma_vm_file,
    /// `path.mnt`, pointer to `vfsmount`.
    path_mnt,
    /// `path.dentry`, pointer to dentry.
    path_dentry,
    /// `vfsmount.mnt_root`, pointer to dentry.
    vfsmount_mnt_root,
    /// `vfsmount.mnt_flags`, int.
    vfsmount_mnt_flags,
    /// `mount.mnt`, the `vfsmount` inside.
    mount_mnt,
    /// `mount.mnt_parent`, pointer to mount.
    mount_mnt_parent,
    /// `mount.mnt_mountpoint`, pointer to dentry.
    mount_mnt_mountpoint,
    /// `mount.mnt_ns`, pointer to `mnt_namespace`.
    mount_mnt_ns,
    /// `mount.mnt_instance`, struct `list_head`; `mnt_next_for_sb`, pointer to mount, from 6.18 on.
    mount_next_of_sb,
    /// `dentry.d_parent`, pointer to dentry.
    dentry_d_parent,
    /// `dentry.d_inode`, pointer to inode.
    dentry_d_inode,
    /// `dentry.d_sb`, pointer to `super_block`.
    dentry_d_sb,
    /// `dentry.d_name`, struct qstr.
    dentry_d_name,
    /// `dentry.d_iname`, bytes; `d_shortname` from 6.13 on: where short names are.
    dentry_d_iname,
    /// `qstr.len`, u32.
    qstr_len,
    /// `qstr.hash`, u32.
    qstr_hash,
    /// `qstr.name`, pointer to unsigned char.
    qstr_name,
    /// `inode.i_ino`, unsigned long (u64 from 7.0 on).
    inode_i_ino,
    /// `inode.i_generation`, u32.
    inode_i_generation,
    /// `inode.i_mode`, `umode_t`.
    inode_i_mode,
    /// `inode.i_nlink`, unsigned int.
    inode_i_nlink,
    /// `inode.i_rdev`, `dev_t`.
    inode_i_rdev,
    /// `super_block.s_dev`, `dev_t`.
    sb_s_dev,
    /// `super_block.s_root`, pointer to dentry.
    sb_s_root,
    /// `super_block.s_mounts`, struct `list_head`; pointer to mount from 6.18 on.
    sb_s_mounts,
    /// `super_block.s_magic`, unsigned long: which file system.
    sb_s_magic,
    /// `proc_inode.pid`, pointer to pid: the process that a file in `/proc` is about.
    proc_inode_pid,
    /// `proc_inode.sysctl_entry`, pointer to `ctl_table`: what a file below `/proc/sys` is about.
    proc_inode_sysctl_entry,
    /// `ctl_table.procname`, pointer to char.
    ctl_table_procname,
    /// `proc_inode.vfs_inode`, the inode inside.
    proc_inode_vfs_inode,
    /// `iattr.ia_valid`, unsigned int.
    iattr_ia_valid,
    /// `socket.sk`, pointer to sock.
    socket_sk,
    /// `sock.__sk_common.skc_family`, unsigned short.
    sock_family,
    /// `sock.sk_protocol`, u16.
    sock_protocol,
    /// `sock.sk_type`, u16.
    sock_type,
    /// `sock.__sk_common.skc_state`, unsigned char.
    sock_state,
    /// `sock.__sk_common.skc_daddr`, __be32: the peer's IPv4 address.
    sock_daddr,
    /// `sock.__sk_common.skc_rcv_saddr`, __be32: the own one that is bound to.
    sock_rcv_saddr,
    /// `sock.__sk_common.skc_dport`, __be16: the peer's port.
    sock_dport,
    /// `sock.__sk_common.skc_num`, __u16: the own port in host order.
    sock_num,
    /// `sock.__sk_common.skc_v6_daddr`, struct in6_addr.
    sock_v6_daddr,
    /// `sock.__sk_common.skc_v6_rcv_saddr`, struct in6_addr.
    sock_v6_rcv_saddr,
    /// `sock.__sk_common.skc_net.net`, pointer to net.
    sock_net,
    /// `net.net_cookie`, u64: another one for each network name space.
    net_cookie,
    /// `msghdr.msg_name`, pointer.
    msghdr_msg_name,
    /// `msghdr.msg_namelen`, int.
    msghdr_msg_namelen,
    /// `unix_sock.path`, struct path.
    unix_sock_path,
    /// `unix_sock.addr`, pointer to `unix_address`: what it is bound to; never changes.
    unix_sock_addr,
    /// `unix_address.len`, int: bytes of the address in there.
    unix_address_len,
    /// `unix_address.name`, array of `sockaddr_un`.
    unix_address_name,
    /// Number of the system call in `pt_regs`: `orig_ax`, or `syscallno` on arm64.
    regs_syscall,
    /// Place of the type among the arguments of LSM hook `perf_event_open`: 0, or 1 behind the attributes up to 6.13.
    arg_perf_type,
    /// 1 if `super_block.s_mounts` is a list.
    is_s_mounts_list,
    /// Place of the dentry among the arguments of LSM hook `inode_setattr`: 0, or 1 behind the mount's id map.
    arg_setattr_dentry,
}

#[cfg(feature = "user")]
mod pod {
    // SAFETY: plain u32 fields, `repr(C)`, no padding.
    unsafe impl aya::Pod for super::KernelLayout {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_u32_a_name() {
        assert_eq!(size_of::<KernelLayout>(), 4 * KernelLayout::NAMES.len());
    }
}
