//! ioctls on descriptors for reading: whatever isn't known to be harmless is judged as writing.

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::guard::{CHANGES, line_of, policy_of, rule};
use crate::fixture::matrix::{Matrix, Row, UNKNOWN};
use crate::fixture::mounted::Mounted;
use crate::fixture::{Guard, Server, World, same};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "files_ioctl",
    "ioctls that destroy need the right to write, harmless ones don't",
    files_ioctl,
)];

const fn row(attempt: &'static str, path: &'static str) -> Row {
    Row::new(attempt, "write|metadata", path).quiet().lacks(UNKNOWN)
}

/// ioctls of ext4 that a descriptor for reading is enough for.
const IOCTLS: &[Row] = &[
    // FS_IOC_SETVERSION
    row("ioctl 0x40087602 {d}/f 0x5", "{d}/f"),
    // FS_IOC_ENABLE_VERITY: version 1, SHA-256, blocks of 4096
    row("ioctl 0x40806685 {d}/f 0x100000001 0x1000", "{d}/f"),
    // FS_IOC_SET_ENCRYPTION_POLICY: version 0, AES-256 for contents and names
    row("ioctl 0x800c6613 {d}/empty 0x1111111100040100", "{d}/empty"),
    // EXT4_IOC_MIGRATE, EXT4_IOC_ALLOC_DA_BLKS
    row("ioctl 0x6609 {d}/f", "{d}/f"),
    row("ioctl 0x660c {d}/f", "{d}/f"),
    // EXT4_IOC_RESIZE_FS, to the size that it has
    row("ioctl 0x40086610 {d} 0x2000", "{d}"),
    // FS_IOC_SETFSLABEL
    row("ioctl 0x41009432 {d} 0x6c6562616c", "{d}"),
    // EXT4_IOC_CHECKPOINT, as a trial
    row("ioctl 0x4004662b {d} 0x4", "{d}"),
    // FITRIM
    row("ioctl 0xc0185879 {d} 0x0 0xffffffff 0x0", "{d}"),
    // FS_IOC_SETFLAGS and FS_IOC_FSSETXATTR, which are about metadata
    row("setflags {d}/f", "{d}/f"),
    row("fssetxattr {d}/f", "{d}/f"),
];

/// What only looks: FS_IOC_GETFLAGS, FS_IOC_FSGETXATTR, FIONREAD, FS_IOC_FIEMAP, FIGETBSZ, FIOCLEX, FIONCLEX,
/// FS_IOC_GETVERSION, FS_IOC_GETFSLABEL, TCGETS.
const HARMLESS: &[&str] = &[
    "ioctl 0x80086601 {d}/f",
    "ioctl 0x801c581f {d}/f",
    "ioctl 0x541b {d}/f",
    "ioctl 0xc020660b {d}/f 0x0 0xffffffffffffffff",
    "ioctl 0x2 {d}/f",
    "ioctl 0x5451 {d}/f",
    "ioctl 0x5450 {d}/f",
    "ioctl 0x80087601 {d}/f",
    "ioctl 0x81009431 {d}",
    "ioctl 0x5401 {d}/f",
];

const FREEZE: &str = "ioctl 0xc0045877";
const THAW: &str = "ioctl 0xc0045878";
/// Ends a file system as if the power had failed.
const SHUTDOWN: &str = "ioctl 0x8004587d";
/// A number that nothing has.
const STRANGE: &str = "ioctl 0x5a5a";

fn files_ioctl() -> Result<()> {
    let _working_directory = World::new()?;
    let volume = Mounted::image("ext4", "/srv/volume")?;
    let world = World::at("/srv/volume/prod", "/srv/volume/work")?;
    let mut outside = Server::outside()?;
    let mut matrix = Matrix::new(&world, |_| Ok(()), &[IOCTLS]);
    matrix.controls(&mut outside)?;
    outside.expect(&format!("{FREEZE} /srv/volume/prod"), "ok")?;
    outside.expect(&format!("{THAW} /srv/volume/prod"), "ok")?;
    outside.expect(&format!("{STRANGE} /srv/volume/prod/f"), "ENOTTY")?;
    {
        let spare = Mounted::image("ext4", "/srv/spare")?;
        outside.expect(&format!("{SHUTDOWN} /srv/spare"), "ok")?;
        let dead = std::fs::write("/srv/spare/file", "");
        anyhow::ensure!(dead.is_err(), "a file system goes on that was shut down");
        drop(spare);
    }
    let answers: Vec<String> = HARMLESS
        .iter()
        .map(|line| outside.ask(&line.replace("{d}", world.protected())))
        .collect::<Result<_>>()?;
    let ops = [CHANGES, &["metadata"]].concat();
    let text = policy_of(world.scope(), &rule(world.protected(), &ops, "deny"));
    let line = line_of(&text, "path = \"/srv/volume/prod\"")?;
    let mut guard = Guard::start(&text)?;
    let mut inside = Server::inside(&guard)?;
    matrix.denied(&mut guard, &mut inside, line)?;
    for attempt in [FREEZE, SHUTDOWN, STRANGE] {
        let attempt = format!("{attempt} {}", world.protected());
        let mark = guard.events.mark()?;
        inside.expect(&attempt, "EPERM")?;
        guard.events.wait(mark, &attempt, |event| event.judged("deny"))?;
    }
    world.fresh().context("the file system is still alive")?;
    for (line, answer) in HARMLESS.iter().zip(answers) {
        let line = line.replace("{d}", world.protected());
        same(&line, inside.ask(&line)?, answer)?;
    }
    // What concerns the whole file system is no matter of the scope either.
    matrix.rows.retain(|row| row.path != "{d}");
    matrix.in_scope(&mut guard, &mut inside)?;
    drop((outside, inside));
    guard.stop()?;
    drop(volume);
    Ok(())
}
