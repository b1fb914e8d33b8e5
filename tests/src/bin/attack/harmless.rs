//! Operations that leave everything as it is, even if nobody stops them.

use anyhow::Result;
use rustix::fs::Mode;

use crate::Attack;
use crate::sys::{args, errno, errno_of, path};

pub(crate) const ATTACKS: &[(&str, Attack)] = &[
    ("exec-here", exec_here),
    ("chmod-0755", |a| args(a).map(|[name]| errno_of(rustix::fs::chmod(name, Mode::from_raw_mode(0o755))))),
];

/// Of a file that is no program: `ENOEXEC`, after it was opened for it. This process stays what it is.
fn exec_here(a: &[&str]) -> Result<i32> {
    let [name] = args(a)?;
    let name = path(name)?;
    let arguments = [name.as_ptr(), std::ptr::null()];
    let none = [std::ptr::null::<libc::c_char>()];
    // SAFETY: C strings and lists that end in a null pointer.
    Ok(errno(unsafe { libc::execve(name.as_ptr(), arguments.as_ptr(), none.as_ptr()) }))
}
