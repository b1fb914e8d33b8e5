//! Names of users, and who belongs to a group.

use std::{
    ffi::{CStr, OsStr},
    fs,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

/// Name of a user, if the host knows one.
#[must_use]
pub fn user_name(uid: u32) -> Option<String> {
    about(uid).map(|(name, _)| name)
}

/// Number of a user, by name or by the number itself, if the host knows one by that name.
#[must_use]
pub fn user_id(user: &str) -> Option<u32> {
    if let Ok(number) = user.parse() {
        return Some(number);
    }
    let name = std::ffi::CString::new(user).ok()?;
    let mut buffer = vec![0; 4096];
    // SAFETY: zeroes are a valid value of this plain structure.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    let (room, length) = (buffer.as_mut_ptr(), buffer.len());
    // SAFETY: all pointers are valid for the lengths given, and outlive the call.
    let code = unsafe { libc::getpwnam_r(name.as_ptr(), &raw mut entry, room, length, &raw mut found) };
    (code == 0 && !found.is_null()).then_some(entry.pw_uid)
}

/// Home directory of a user, if the host knows one.
#[must_use]
pub fn home_of(uid: u32) -> Option<PathBuf> {
    about(uid).map(|(_, home)| home).filter(|home| home.is_absolute())
}

/// Home directories of this host's own users who can log in, in order: those of `/etc/passwd`, and what they lead to. A
/// directory service isn't asked for all that it knows.
#[must_use]
pub fn homes() -> Vec<PathBuf> {
    let users = fs::read_to_string("/etc/passwd").unwrap_or_else(|error| {
        tracing::warn!(%error, "/etc/passwd can't be read: home directories outside of /home aren't known");
        String::new()
    });
    let mut homes: Vec<_> = users.lines().filter_map(home_in).collect();
    let real: Vec<_> = homes.iter().filter_map(|home| fs::canonicalize(home).ok()).collect();
    homes.extend(real);
    homes.sort();
    homes.dedup();
    homes
}

/// The home directory in a line of passwd(5); none of somebody who can't log in.
fn home_in(line: &str) -> Option<PathBuf> {
    const NOBODYS: [&str; 5] = ["nologin", "false", "sync", "halt", "shutdown"];
    let mut fields = line.split(':').skip(5);
    let (home, shell) = (Path::new(fields.next()?), Path::new(fields.next()?));
    let usable = shell.file_name().is_none_or(|name| !NOBODYS.iter().any(|nobodys| name == *nobodys));
    (usable && home.is_absolute() && home.parent().is_some()).then(|| home.to_owned())
}

/// Name and home directory of a user.
fn about(uid: u32) -> Option<(String, PathBuf)> {
    let mut buffer = vec![0; 4096];
    // SAFETY: zeroes are a valid value of this plain structure.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are valid for the lengths given, and outlive the call.
    let code =
        unsafe { libc::getpwuid_r(uid, &raw mut entry, buffer.as_mut_ptr(), buffer.len(), &raw mut found) };
    if code != 0 || found.is_null() || entry.pw_name.is_null() || entry.pw_dir.is_null() {
        return None;
    }
    // SAFETY: the call filled in strings in our buffer, each ended by a zero byte.
    let (name, home) = unsafe { (CStr::from_ptr(entry.pw_name), CStr::from_ptr(entry.pw_dir)) };
    Some((name.to_string_lossy().into_owned(), PathBuf::from(OsStr::from_bytes(home.to_bytes()))))
}

/// Whether a user belongs to a group: as primary group or as a member in `/etc/group`.
#[must_use]
pub fn in_group(uid: u32, gid: u32, group: &str) -> bool {
    let Ok(groups) = fs::read_to_string("/etc/group") else { return false };
    groups.lines().any(|line| {
        let mut fields = line.split(':');
        let (name, id, members) = (fields.next(), fields.nth(1), fields.next());
        if name != Some(group) {
            return false;
        }
        id == Some(gid.to_string().as_str())
            || user_name(uid)
                .is_some_and(|user| members.is_some_and(|members| members.split(',').any(|m| m == user)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn homes_of_those_who_log_in() {
        assert_eq!(home_in("ci:x:1:1:a,b:/srv/ci:/bin/bash"), Some("/srv/ci".into()));
        assert_eq!(home_in("ci:x:1:1::/srv/ci:"), Some("/srv/ci".into()));
        for line in [
            "bin:x:2:2:bin:/bin:/usr/sbin/nologin",
            "sync:x:4:65534:sync:/bin:/bin/sync",
            "x:x:5:5::/:/bin/sh",
            "x:x:5:5::relative:/bin/sh",
            "x:x:5:5::/srv/x",
            "",
        ] {
            assert_eq!(home_in(line), None, "{line}");
        }
        assert!(homes().contains(&PathBuf::from("/root")));
    }

    #[test]
    fn root_has_a_name() {
        assert_eq!(user_name(0).as_deref(), Some("root"));
        assert_eq!(user_name(u32::MAX - 7), None);
        assert!(in_group(0, 0, "root"));
        assert!(!in_group(4242, 4242, "root"));
    }
}
