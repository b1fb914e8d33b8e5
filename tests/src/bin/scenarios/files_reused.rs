//! Inode numbers that are used again: a rule and a scope are about the object that had the number.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, policy_of, rule};
use crate::fixture::mounted::Mounted;
use crate::fixture::world::{directory, exists};
use crate::fixture::{Guard, Server, World};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "files_reused",
    "a new object with the inode number of a deleted one has neither its rules nor its scope",
    files_reused,
)];

const RULED: &str = "/srv/volume/prod/f";
const SCOPED: &str = "/srv/volume/own/f";

fn number(path: &str) -> Result<u64> {
    Ok(Path::new(path).metadata().with_context(|| format!("can't look at {path}"))?.ino())
}

/// Makes files in a directory until one has that number.
fn again(dir: &str, wanted: u64) -> Result<String> {
    for turn in 0..256 {
        let path = format!("{dir}/{turn}");
        fs::write(&path, "").with_context(|| format!("can't make {path}"))?;
        if number(&path)? == wanted {
            return Ok(path);
        }
    }
    anyhow::bail!("the number {wanted} isn't used again below {dir}")
}

fn files_reused() -> Result<()> {
    World::new()?;
    let volume = Mounted::image("ext4", "/srv/volume")?;
    for dir in ["prod", "own", "work", "elsewhere"] {
        directory(&format!("/srv/volume/{dir}"))?;
    }
    for path in [RULED, SCOPED] {
        fs::write(path, "").with_context(|| format!("can't make {path}"))?;
    }
    let scopes = format!("/srv/volume/work\", \"{SCOPED}");
    let mut guard = Guard::start(&policy_of(&scopes, &rule(RULED, CHANGES, "deny")))?;
    let mut inside = Server::inside(&guard)?;
    inside.expect(&format!("open-write {RULED}"), "EPERM")?;
    inside.expect(&format!("open-write {SCOPED}"), "ok")?;

    let old = number(RULED)?;
    fs::remove_file(RULED).context("can't remove the file of the rule")?;
    let new = again("/srv/volume/work", old)?;
    inside.expect(&format!("open-write {new}"), "ok").context("the rule's number, in the scope")?;
    inside.expect(&format!("unlink {new}"), "ok")?;

    let old = number(SCOPED)?;
    fs::remove_file(SCOPED).context("can't remove the file of the scope")?;
    let new = again("/srv/volume/elsewhere", old)?;
    let mark = guard.events.mark()?;
    inside.expect(&format!("open-write {new}"), "EPERM").context("the scope's number, outside")?;
    guard.events.wait(mark, "the denial", |event| event.judged("deny") && event.about(&new))?;
    inside.expect(&format!("unlink {new}"), "EPERM")?;
    exists(&new, true)?;
    Server::outside()?.expect(&format!("unlink {new}"), "ok")?;

    // What comes again under the names has both.
    for path in [RULED, SCOPED] {
        fs::write(path, "").with_context(|| format!("can't make {path}"))?;
    }
    inside.expect(&format!("open-write {RULED}"), "EPERM")?;
    inside.expect(&format!("open-write {SCOPED}"), "ok")?;
    drop((inside, volume));
    guard.stop()
}
