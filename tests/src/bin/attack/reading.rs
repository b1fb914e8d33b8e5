//! Reading and executing, by whatever name.

use std::os::fd::AsRawFd;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use anyhow::{Context, Result, bail};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};

use crate::Attack;
use crate::inplace::{Map, map};
use crate::sys::{args, errno, errno_of, in_fork, need, open, outcome, path, proc_fd};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("readdir", |a| args(a).map(|[name]| outcome(open(name, libc::O_RDONLY | libc::O_DIRECTORY)))),
    ("open-read-nonblock", |a| args(a).map(|[name]| outcome(open(name, libc::O_RDONLY | libc::O_NONBLOCK)))),
    ("open-path", |a| args(a).map(|[name]| outcome(open(name, libc::O_PATH)))),
    ("open-read-opath", open_read_opath),
    ("openat2-read", openat2_read),
    ("cat", cat),
    ("exec", |a| args(a).map(|[name]| exec(name))),
    ("exec-fd", exec_fd),
    ("exec-proc", exec_proc),
    ("exec-script", exec_script),
    ("exec-loader", exec_loader),
    ("map-exec", |a| args(a).and_then(|[name]| mapped(name, Map::Execute))),
    ("mprotect-exec", |a| args(a).and_then(|[name]| mapped(name, Map::ExecuteLater))),
];

/// First with O_PATH, which reads nothing, then for reading through `/proc/self/fd`.
fn open_read_opath(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let file = need("can't open it with O_PATH", open(name, libc::O_PATH))?;
    Ok(outcome(open(&proc_fd(&file), libc::O_RDONLY)))
}

fn openat2_read(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    Ok(errno_of(rustix::fs::openat2(CWD, name, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)))
}

/// By another program, which says so if it may not.
fn cat(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    said(Command::new("cat").arg(name))
}

/// Whether a program succeeded, or said that it was not permitted to.
fn said(command: &mut Command) -> Result<i32> {
    let output = command.output().context("can't start the program")?;
    let text = String::from_utf8_lossy(&output.stderr);
    match output.status.success() {
        true => Ok(0),
        false if text.contains("Operation not permitted") => Ok(libc::EPERM),
        // The loader doesn't say why it can't map something as code.
        false if text.contains("failed to map segment") => Ok(libc::EPERM),
        false => bail!("{}, and it said {:?}", output.status, text.trim()),
    }
}

/// In a child, which becomes the program.
fn exec(name: &str) -> i32 {
    errno_of(Command::new(name).status())
}

/// From a descriptor that can do nothing else.
fn exec_fd(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let file = need("can't open it with O_PATH", open(name, libc::O_PATH))?;
    let arguments = [c"program".as_ptr(), std::ptr::null()];
    let none = [std::ptr::null::<libc::c_char>()];
    in_fork(|| {
        let empty = c"".as_ptr();
        // SAFETY: C strings and lists that end in a null pointer; the child either becomes the program or ends.
        errno(unsafe {
            libc::syscall(
                libc::SYS_execveat,
                file.as_raw_fd(),
                empty,
                arguments.as_ptr(),
                none.as_ptr(),
                libc::AT_EMPTY_PATH,
            )
        })
    })
}

fn exec_proc(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let file = need("can't open it with O_PATH", open(name, libc::O_PATH))?;
    Ok(exec(&format!("/proc/{}/fd/{}", std::process::id(), file.as_raw_fd())))
}

/// As the interpreter of a script that lies elsewhere.
fn exec_script(a: &[&str]) -> Result<i32> {
    let [script, name] = args(a)?;
    std::fs::write(script, format!("#!{name}\n")).with_context(|| format!("can't write {script}"))?;
    std::fs::set_permissions(script, std::fs::Permissions::from_mode(0o755))
        .with_context(|| format!("can't make {script} a program"))?;
    let result = exec(script);
    std::fs::remove_file(script).with_context(|| format!("can't remove {script}"))?;
    Ok(result)
}

/// By the dynamic loader, which maps it instead of executing it.
fn exec_loader(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    said(Command::new("/lib64/ld-linux-x86-64.so.2").arg(name))
}

/// Opened for reading, then mapped.
fn mapped(name: &str, how: Map) -> Result<i32> {
    path(name)?;
    Ok(map(need("can't open it for reading", open(name, libc::O_RDONLY))?.as_raw_fd(), how))
}
