//! The files that operations are measured on, and those that rules name.

use std::ffi::CStr;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::Path;

use anyhow::{Context, Result};

/// Where sessions may do everything.
pub(crate) const ALLOWED: &CStr = c"/b";
/// The same.
pub(crate) const SCOPE: &str = "/b";
/// Where they may change nothing.
pub(crate) const OUTSIDE: &str = "/d";
/// Below it is what rules name.
const RULES: &str = "/r";
/// Below it is what critical rules name, whatever the number of others.
pub(crate) const CRITICAL: [&str; 2] = ["/srv/critical-1", "/srv/critical-2"];

/// A file of 4096 bytes.
pub(crate) const FILE: &str = "f";
/// A name that is free.
pub(crate) const NEW: &str = "new";
/// A file that is renamed.
pub(crate) const FIRST: &str = "first";
/// Its other name.
pub(crate) const SECOND: &str = "second";
/// This program.
pub(crate) const PROGRAM: &str = "bench";

/// Where somebody listens.
pub(crate) const HOST: Ipv4Addr = Ipv4Addr::LOCALHOST;
/// Where nobody may connect to (an address for documentation, RFC 5737).
pub(crate) const NO_HOST: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The port at both.
pub(crate) const PORT: u16 = 7070;

/// The directory whose files have that many directories above them: `/b`, `/b/1`, `/b/1/2`.
pub(crate) fn dir(root: &str, depth: usize) -> String {
    let mut dir = root.to_owned();
    for level in 1..depth {
        dir.push_str(&format!("/{level}"));
    }
    dir
}

/// Makes everything but what rules name. Every directory has the same files, so names take as long to find.
pub(crate) fn make(depths: &[usize]) -> Result<()> {
    let me = std::env::current_exe().context("can't find this program")?;
    for dir in CRITICAL {
        fs::create_dir_all(dir).with_context(|| format!("can't create {dir}"))?;
    }
    for root in [SCOPE, OUTSIDE] {
        for &depth in depths {
            let dir = dir(root, depth);
            fs::create_dir_all(&dir).with_context(|| format!("can't create {dir}"))?;
            for name in [FILE, FIRST] {
                let path = format!("{dir}/{name}");
                fs::write(&path, [b'x'; 4096]).with_context(|| format!("can't write {path}"))?;
            }
            let program = format!("{dir}/{PROGRAM}");
            fs::copy(&me, &program).with_context(|| format!("can't copy this program to {program}"))?;
        }
    }
    Ok(())
}

/// What a rule names, by its number: 500 files in a directory.
pub(crate) fn ruled(number: usize) -> String {
    format!("{RULES}/{}/{}", number / 500, number % 500)
}

/// Makes what so many rules name.
pub(crate) fn make_ruled(count: usize) -> Result<()> {
    for number in 0..count {
        let path = ruled(number);
        let made = match File::create(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {
                let dir = Path::new(&path).parent().context("a path has no parent")?;
                fs::create_dir_all(dir).and_then(|()| File::create(&path))
            }
            made => made,
        };
        made.with_context(|| format!("can't create {path}"))?;
        if number % 20_000 == 19_999 {
            eprintln!("{} of {count} files made", number + 1);
        }
    }
    Ok(())
}

/// Forgets names and objects that the kernel has looked up: rules about many files would leave many of them, and
/// finding others would take longer.
pub(crate) fn forget_looked_up() -> Result<()> {
    rustix::fs::sync();
    fs::write("/proc/sys/vm/drop_caches", "2").context("can't drop the caches")
}

/// A command of some hundred bytes that a rule is about until its end, where it isn't.
pub(crate) const COMMAND: [&CStr; 8] = [
    c"benched",
    c"true",
    c"--config",
    c"/etc/benched/production.yaml",
    c"--selector=app.kubernetes.io/name=shop",
    c"--output=json",
    c"--wait",
    c"deployment/shop-frontend",
];

/// The rule.
pub(crate) const COMMAND_RULE: [&str; 5] = ["benched", "...", "--force", "...", "deployment/*"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_is_the_number_of_directories_above() {
        assert_eq!(dir("/b", 1), "/b");
        assert_eq!(dir("/b", 6), "/b/1/2/3/4/5");
    }

    #[test]
    fn rules_name_distinct_files() {
        assert_eq!(ruled(0), "/r/0/0");
        assert_eq!(ruled(99_999), "/r/199/499");
    }
}
