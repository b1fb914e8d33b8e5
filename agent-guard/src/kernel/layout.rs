//! Resolves [`KernelLayout`] against the running kernel's BTF.
//!
//! One table says for every field which structure, which member and which type is expected. The type is
//! checked, because an offset of the wrong type would be a silent failure.

use agent_guard_common::layout::{ABSENT, KernelLayout};

use super::btf::{Btf, Shape};

/// What a member has to be.
#[derive(Clone, Copy, Debug)]
enum Expect {
    /// An integer of one of these sizes in bytes.
    Int(&'static [u32]),
    /// A pointer to this structure; empty for any.
    Pointer(&'static str),
    /// This structure; empty for any.
    Struct(&'static str),
    /// A `list_head`, or a pointer to this structure.
    List(&'static str),
    /// An array of bytes.
    Bytes,
    /// A bit, by its place in bits; or nothing, where the kernel doesn't have it.
    Bit,
    /// An array of this structure.
    Array(&'static str),
}

/// Where a field of the layout is found.
struct Field {
    /// Name in [`KernelLayout`].
    name: &'static str,
    set: fn(&mut KernelLayout) -> &mut u32,
    /// Structure.
    of: &'static str,
    /// Paths of the member in different kernels, the first that exists counts.
    paths: &'static [&'static str],
    expect: Expect,
}

/// Declares the table: layout field, structure, paths, expectation.
macro_rules! fields {
    ($($name:ident: $of:literal $($path:literal)|+ => $expect:expr;)+) => {
        const FIELDS: &[Field] = &[$(Field {
            name: stringify!($name),
            set: |layout| &mut layout.$name,
            of: $of,
            paths: &[$($path),+],
            expect: $expect,
        },)+];
    };
}

use Expect::{Array, Bit, Bytes, Int, List, Pointer, Struct};

fields! {
    task_flags: "task_struct" "flags" => Int(&[4]);
    task_tgid: "task_struct" "tgid" => Int(&[4]);
    task_pid: "task_struct" "pid" => Int(&[4]);
    task_real_parent: "task_struct" "real_parent" => Pointer("task_struct");
    task_group_leader: "task_struct" "group_leader" => Pointer("task_struct");
    task_children: "task_struct" "children" => Struct("list_head");
    task_sibling: "task_struct" "sibling" => Struct("list_head");
    task_signal: "task_struct" "signal" => Pointer("signal_struct");
    signal_live: "signal_struct" "live.counter" => Int(&[4]);
    task_exit_state: "task_struct" "exit_state" => Int(&[4]);
    task_start_boottime: "task_struct" "start_boottime" => Int(&[8]);
    task_bpf_storage: "task_struct" "bpf_storage" => Pointer("bpf_local_storage");
    task_mm: "task_struct" "mm" => Pointer("mm_struct");
    task_thread_pid: "task_struct" "thread_pid" => Pointer("pid");
    task_cred: "task_struct" "cred" => Pointer("cred");
    task_real_cred: "task_struct" "real_cred" => Pointer("cred");
    task_nsproxy: "task_struct" "nsproxy" => Pointer("nsproxy");
    nsproxy_mnt_ns: "nsproxy" "mnt_ns" => Pointer("mnt_namespace");
    mnt_namespace_event: "mnt_namespace" "event" => Int(&[8]);
    task_thread_status: "task_struct" "thread_info.status" => Int(&[4]);
    task_comm: "task_struct" "comm" => Bytes;
    cred_uid: "cred" "uid" => Struct("");
    cred_gid: "cred" "gid" => Struct("");
    cred_euid: "cred" "euid" => Struct("");
    cred_egid: "cred" "egid" => Struct("");
    cred_cap_permitted: "cred" "cap_permitted" => Struct("");
    user_ns_level: "user_namespace" "level" => Int(&[4]);
    mm_arg_start: "mm_struct" "arg_start" => Int(&[8]);
    mm_arg_end: "mm_struct" "arg_end" => Int(&[8]);
    bprm_cred: "linux_binprm" "cred" => Pointer("cred");
    bprm_mm: "linux_binprm" "mm" => Pointer("mm_struct");
    bprm_p: "linux_binprm" "p" => Int(&[8]);
    bprm_exec: "linux_binprm" "exec" => Int(&[8]);
    bprm_argc: "linux_binprm" "argc" => Int(&[4]);
    bprm_file: "linux_binprm" "file" => Pointer("file");
    bprm_is_check: "linux_binprm" "is_check" => Bit;
    mm_pgd: "mm_struct" "pgd" => Pointer("");
    task_fs: "task_struct" "fs" => Pointer("fs_struct");
    task_files: "task_struct" "files" => Pointer("files_struct");
    files_fdt: "files_struct" "fdt" => Pointer("fdtable");
    fdt_max_fds: "fdtable" "max_fds" => Int(&[4]);
    fdt_fd: "fdtable" "fd" => Pointer("");
    fdt_close_on_exec: "fdtable" "close_on_exec" => Pointer("");
    cgroup_root: "cgroup" "root" => Pointer("cgroup_root");
    cgroup_kn: "cgroup" "kn" => Pointer("kernfs_node");
    cgroup_root_hierarchy_id: "cgroup_root" "hierarchy_id" => Int(&[4]);
    kernfs_node_id: "kernfs_node" "id" => Int(&[8]);
    fs_struct_pwd: "fs_struct" "pwd" => Struct("path");
    bprm_filename: "linux_binprm" "filename" => Pointer("");
    file_f_path: "file" "f_path" | "__f_path" => Struct("path");
    file_f_mode: "file" "f_mode" => Int(&[4]);
    file_f_flags: "file" "f_flags" => Int(&[4]);
    file_private_data: "file" "private_data" => Pointer("");
    vma_vm_file: "vm_area_struct" "vm_file" => Pointer("file");
    path_mnt: "path" "mnt" => Pointer("vfsmount");
    path_dentry: "path" "dentry" => Pointer("dentry");
    vfsmount_mnt_root: "vfsmount" "mnt_root" => Pointer("dentry");
    vfsmount_mnt_flags: "vfsmount" "mnt_flags" => Int(&[4]);
    mount_mnt: "mount" "mnt" => Struct("vfsmount");
    mount_mnt_parent: "mount" "mnt_parent" => Pointer("mount");
    mount_mnt_mountpoint: "mount" "mnt_mountpoint" => Pointer("dentry");
    mount_mnt_ns: "mount" "mnt_ns" => Pointer("mnt_namespace");
    mount_next_of_sb: "mount" "mnt_instance" | "mnt_next_for_sb" => List("mount");
    dentry_d_parent: "dentry" "d_parent" => Pointer("dentry");
    dentry_d_inode: "dentry" "d_inode" => Pointer("inode");
    dentry_d_sb: "dentry" "d_sb" => Pointer("super_block");
    dentry_d_name: "dentry" "d_name" | "__d_name" => Struct("qstr");
    dentry_d_iname: "dentry" "d_iname" | "d_shortname.string" => Bytes;
    qstr_len: "qstr" "len" => Int(&[4]);
    qstr_hash: "qstr" "hash" => Int(&[4]);
    qstr_name: "qstr" "name" => Pointer("");
    inode_i_ino: "inode" "i_ino" => Int(&[8]);
    inode_i_generation: "inode" "i_generation" => Int(&[4]);
    inode_i_mode: "inode" "i_mode" => Int(&[2]);
    inode_i_nlink: "inode" "i_nlink" => Int(&[4]);
    inode_i_rdev: "inode" "i_rdev" => Int(&[4]);
    sb_s_dev: "super_block" "s_dev" => Int(&[4]);
    sb_s_root: "super_block" "s_root" => Pointer("dentry");
    sb_s_mounts: "super_block" "s_mounts" => List("mount");
    sb_s_magic: "super_block" "s_magic" => Int(&[8]);
    proc_inode_pid: "proc_inode" "pid" => Pointer("pid");
    proc_inode_sysctl_entry: "proc_inode" "sysctl_entry" => Pointer("ctl_table");
    ctl_table_procname: "ctl_table" "procname" => Pointer("");
    proc_inode_vfs_inode: "proc_inode" "vfs_inode" => Struct("inode");
    iattr_ia_valid: "iattr" "ia_valid" => Int(&[4]);
    socket_sk: "socket" "sk" => Pointer("sock");
    sock_family: "sock" "__sk_common.skc_family" => Int(&[2]);
    sock_protocol: "sock" "sk_protocol" => Int(&[2]);
    sock_type: "sock" "sk_type" => Int(&[2]);
    sock_state: "sock" "__sk_common.skc_state" => Int(&[1]);
    sock_daddr: "sock" "__sk_common.skc_daddr" => Int(&[4]);
    sock_rcv_saddr: "sock" "__sk_common.skc_rcv_saddr" => Int(&[4]);
    sock_dport: "sock" "__sk_common.skc_dport" => Int(&[2]);
    sock_num: "sock" "__sk_common.skc_num" => Int(&[2]);
    sock_v6_daddr: "sock" "__sk_common.skc_v6_daddr" => Struct("in6_addr");
    sock_v6_rcv_saddr: "sock" "__sk_common.skc_v6_rcv_saddr" => Struct("in6_addr");
    sock_net: "sock" "__sk_common.skc_net.net" => Pointer("net");
    net_cookie: "net" "net_cookie" => Int(&[8]);
    msghdr_msg_name: "msghdr" "msg_name" => Pointer("");
    msghdr_msg_namelen: "msghdr" "msg_namelen" => Int(&[4]);
    unix_sock_path: "unix_sock" "path" => Struct("path");
    unix_sock_addr: "unix_sock" "addr" => Pointer("unix_address");
    unix_address_len: "unix_address" "len" => Int(&[4]);
    unix_address_name: "unix_address" "name" => Array("sockaddr_un");
    regs_syscall: "pt_regs" "orig_ax" | "orig_rax" | "syscallno" => Int(&[4, 8]);
}

/// Why a layout could not be resolved.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// The kernel has no such member.
    #[error("this kernel's BTF has no {of}.{path}, which the hooks must read; this kernel is not supported")]
    Missing {
        /// Structure.
        of: &'static str,
        /// Member.
        path: &'static str,
    },
    /// The member isn't what it should be.
    #[error("{of}.{path} is {found:?} in this kernel, not {expected}; this kernel is not supported")]
    Type {
        /// Structure.
        of: &'static str,
        /// Member.
        path: &'static str,
        /// What it is.
        found: Shape,
        /// What it should be.
        expected: String,
    },
}

/// The kernel's usual list (`include/linux/types.h`).
const LIST: &str = "list_head";

fn fits(shape: &Shape, expect: Expect) -> bool {
    match (shape, expect) {
        (Shape::Int(size), Int(sizes)) => sizes.contains(size),
        (Shape::Pointer(to), Pointer(name)) => name.is_empty() || to == name,
        (Shape::Struct(of), Struct(name)) => name.is_empty() || of == name,
        (Shape::Struct(of), List(_)) => of == LIST,
        (Shape::Pointer(to), List(name)) => to == name,
        (Shape::Bytes, Bytes) => true,
        (Shape::Array(of), Array(name)) => of == name,
        _ => false,
    }
}

/// Resolves every field.
///
/// # Errors
///
/// The first field that the kernel doesn't have, or has with another type.
pub fn resolve(btf: &Btf) -> Result<KernelLayout, Error> {
    let (layout, errors) = attempt(btf);
    errors.into_iter().next().map_or(Ok(layout), Err)
}

/// All fields that the kernel doesn't have, or has with another type.
#[must_use]
pub fn unresolved(btf: &Btf) -> Vec<Error> {
    attempt(btf).1
}

/// Resolves what can be resolved.
fn attempt(btf: &Btf) -> (KernelLayout, Vec<Error>) {
    let (mut layout, mut errors) = (KernelLayout::ABSENT, Vec::new());
    for field in FIELDS {
        match place(btf, field) {
            Ok(offset) => *(field.set)(&mut layout) = offset,
            Err(error) => errors.push(error),
        }
    }
    let listed =
        |of, path| btf.member(of, path).is_some_and(|place| place.shape == Shape::Struct(LIST.into()));
    layout.is_s_mounts_list = u32::from(listed("super_block", "s_mounts"));
    errors.extend(arguments(btf, &mut layout).err());
    (layout, errors)
}

/// Where a field is.
fn place(btf: &Btf, field: &Field) -> Result<u32, Error> {
    if matches!(field.expect, Bit) {
        let found = field.paths.iter().find_map(|path| btf.bit(field.of, path));
        return Ok(found.unwrap_or(ABSENT));
    }
    let found = field.paths.iter().find_map(|path| Some((*path, btf.member(field.of, path)?)));
    let Some((path, place)) = found else {
        let path = field.paths.first().copied().unwrap_or(field.name);
        return Err(Error::Missing { of: field.of, path });
    };
    if !fits(&place.shape, field.expect) || place.offset == ABSENT {
        let expected = format!("{:?}", field.expect);
        return Err(Error::Type { of: field.of, path, found: place.shape, expected });
    }
    Ok(place.offset)
}

/// Hooks whose arguments have other places in other kernels.
fn arguments(btf: &Btf, layout: &mut KernelLayout) -> Result<(), Error> {
    layout.arg_setattr_dentry = argument(btf, "bpf_lsm_inode_setattr", "dentry")?;
    // The last one; only pointers can be told apart by what they are.
    let (of, path) = ("bpf_lsm_perf_event_open", "type");
    let count = btf.parameters(of).and_then(|parameters| u32::try_from(parameters.len()).ok());
    layout.arg_perf_type = match count {
        Some(count @ 1..=2) => count - 1,
        _ => return Err(Error::Missing { of, path }),
    };
    Ok(())
}

/// The place of an argument, which is one of the first two.
fn argument(btf: &Btf, of: &'static str, path: &'static str) -> Result<u32, Error> {
    let parameters = btf.parameters(of).ok_or(Error::Missing { of, path })?;
    let at = parameters.iter().position(|name| name == path).and_then(|at| u32::try_from(at).ok());
    at.filter(|at| *at <= 1).ok_or(Error::Missing { of, path })
}

#[cfg(test)]
mod tests;
