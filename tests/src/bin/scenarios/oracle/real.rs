//! The files of a case for real: what the model does is done to file systems of the guest, too.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use agent_guard::policy::case::{Line, apply};
use agent_guard::policy::world::World;
use anyhow::{Context, Result};
use rustix::mount::{MountFlags, UnmountFlags, mount, mount_bind, unmount};

use super::asks::BASE;
use crate::fixture::mounted::load;
use crate::fixture::process::run;
use crate::fixture::{same, world};

/// Where they are emptied.
const EMPTIED: &str = "/srv/emptied";
/// What variables stand for: the session's user is root. Links to a case's directories while it runs.
const HOME: &str = "/root";
const TMP: &str = "/tmp";

/// The disks of all cases: each a file system in a file, made when it is needed first.
#[derive(Default)]
pub(super) struct Disks {
    devices: BTreeMap<u32, String>,
    used: BTreeSet<u32>,
}

impl Disks {
    /// None yet.
    pub(super) fn new() -> Result<Self> {
        load("loop")?;
        fs::create_dir_all(EMPTIED).with_context(|| format!("can't create {EMPTIED}"))?;
        Ok(Self::default())
    }

    fn device(&mut self, number: u32) -> Result<&str> {
        self.used.insert(number);
        match self.devices.entry(number) {
            Entry::Occupied(device) => Ok(device.into_mut()),
            Entry::Vacant(device) => Ok(device.insert(make(number)?)),
        }
    }

    /// Makes those that were used what they are at the beginning of every case.
    fn empty(&mut self) -> Result<()> {
        let used = std::mem::take(&mut self.used);
        for device in used.iter().filter_map(|number| self.devices.get(number)) {
            empty(device)?;
        }
        Ok(())
    }
}

impl Drop for Disks {
    fn drop(&mut self) {
        for (number, device) in &self.devices {
            drop(run(Command::new("losetup").args(["--detach", device])));
            drop(fs::remove_file(image(*number)));
        }
    }
}

fn image(number: u32) -> String {
    format!("/var/tmp/oracle-{number}.ext4")
}

fn make(number: u32) -> Result<String> {
    let image = image(number);
    let file = fs::File::create(&image).with_context(|| format!("can't create {image}"))?;
    file.set_len(8 << 20).with_context(|| format!("can't make {image} that large"))?;
    run(Command::new("mkfs.ext4").args(["-q", "-F", "-O", "^has_journal", &image]))?.good()?;
    let device =
        run(Command::new("losetup").args(["--find", "--show", &image]))?.good()?.stdout.trim().to_owned();
    empty(&device)?;
    Ok(device)
}

/// Removes all that is on a disk.
fn empty(device: &str) -> Result<()> {
    attach(device, Path::new(EMPTIED)).with_context(|| format!("can't mount {device}"))?;
    for entry in fs::read_dir(EMPTIED).with_context(|| format!("can't read {EMPTIED}"))? {
        world::remove(&entry?.path())?;
    }
    unmount(EMPTIED, UnmountFlags::empty()).with_context(|| format!("can't unmount {EMPTIED}"))
}

fn attach(device: &str, at: &Path) -> rustix::io::Result<()> {
    mount(device, at, "ext4", MountFlags::empty(), None)
}

/// Both, in the same state.
pub(super) struct Both<'d> {
    /// The model.
    pub(super) world: World,
    disks: &'d mut Disks,
    /// What only the kernel has refused.
    pub(super) refused: u32,
}

impl<'d> Both<'d> {
    /// With nothing of a case.
    pub(super) fn new(disks: &'d mut Disks) -> Result<Self> {
        clear()?;
        disks.empty()?;
        Ok(Self { world: World::default(), disks, refused: 0 })
    }

    /// Does what a line says to both, or to neither.
    pub(super) fn apply(&mut self, line: &Line) {
        let mut after = self.world.clone();
        if apply(&mut after, line).is_err() {
            return;
        }
        match self.really(line) {
            Ok(()) => self.world = after,
            Err(error) => {
                eprintln!("oracle_kernel: left out: {line}: {error}");
                self.refused += 1;
            }
        }
    }

    fn really(&mut self, line: &Line) -> std::io::Result<()> {
        match line {
            Line::Mkdir(path) => fs::create_dir(path),
            Line::File(path) => file(path),
            Line::Symlink(target, path) => std::os::unix::fs::symlink(target, path),
            Line::Link(from, to) => fs::hard_link(from, to),
            Line::Rename(from, to) => fs::rename(from, to),
            Line::Remove(path) if path.symlink_metadata()?.is_dir() => fs::remove_dir(path),
            Line::Remove(path) => fs::remove_file(path),
            Line::Bind(from, to) => Ok(mount_bind(from, to)?),
            Line::Mount(disk, path) => {
                let device = self.disks.device(*disk).map_err(std::io::Error::other)?;
                Ok(attach(device, path)?)
            }
            Line::Unmount(path) => Ok(unmount(path, UnmountFlags::empty())?),
            _ => Ok(()),
        }
    }
}

/// A file that can be executed, though it is no program. The kernel looks for no module for a text.
fn file(path: &Path) -> std::io::Result<()> {
    use std::io::Write as _;
    let mut file = fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(path)?;
    file.write_all(b"no program\n")
}

/// Takes a case's mounts and files away.
pub(super) fn clear() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("can't read the mounts")?;
    let points = mounts.lines().filter_map(|line| line.split(' ').nth(4));
    let points: Vec<&str> = points.filter(|point| Path::new(point).starts_with(BASE)).collect();
    // The last one is in or on the others.
    for point in points.into_iter().rev() {
        unmount(point, UnmountFlags::DETACH).with_context(|| format!("can't unmount {point}"))?;
    }
    world::remove(Path::new(BASE))
}

/// `/root` and `/tmp` as links to other directories, until this goes away.
pub(super) struct Variables(());

impl Variables {
    /// Makes the links.
    pub(super) fn new(home: &Path, tmp: &Path) -> Result<Self> {
        let links = Self(());
        for (name, to) in [(HOME, home), (TMP, tmp)] {
            fs::rename(name, aside(name)).with_context(|| format!("can't move {name} aside"))?;
            std::os::unix::fs::symlink(to, name).with_context(|| format!("can't make a link of {name}"))?;
        }
        Ok(links)
    }
}

impl Drop for Variables {
    fn drop(&mut self) {
        for name in [HOME, TMP] {
            if aside(name).exists() {
                drop(fs::remove_file(name));
                if let Err(error) = fs::rename(aside(name), name) {
                    eprintln!("can't put {name} back: {error}");
                }
            }
        }
    }
}

fn aside(name: &str) -> PathBuf {
    format!("{name}.aside").into()
}

/// What a process has made.
pub(super) fn take_back(made: &Path) -> Result<()> {
    fs::remove_dir(made).with_context(|| format!("can't remove {}", made.display()))?;
    same("whether it is still there", made.symlink_metadata().is_ok(), false)
}
