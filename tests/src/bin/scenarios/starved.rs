//! The daemon starved: of memory, and of room for its log.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::event::Mark;
use crate::fixture::guard::{CHANGES, PINS, cli, degraded, pins, policy, rule};
use crate::fixture::mounted::Mounted;
use crate::fixture::world::{PROD, exists};
use crate::fixture::{Event, Guard, Hold, SOON, Server, World, contains, logs, same, state, until};

pub(crate) const SCENARIOS: &[Scenario] = &[
    Scenario::direct("daemon_memory", "the kernel takes a daemon that has no memory left: no gap", memory),
    Scenario::direct(
        "log_full",
        "no room for the log: all is denied as before, and told later or counted",
        log_full,
    )
    .thorough(),
];

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("can't write {text:?} to {}", path.display()))
}

/// A control group of its own below the scenario's, with the memory controller.
fn limited() -> Result<PathBuf> {
    let group = crate::runner::another_cgroup(logs::scenario(), "daemon")?;
    let above: Vec<&Path> =
        group.ancestors().skip(1).take_while(|dir| dir.starts_with("/sys/fs/cgroup")).collect();
    for dir in above.into_iter().rev() {
        write(&dir.join("cgroup.subtree_control"), "+memory")?;
    }
    Ok(group)
}

fn killed_for_memory(group: &Path) -> Result<u64> {
    let events = fs::read_to_string(group.join("memory.events")).context("can't read memory.events")?;
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill "));
    count.and_then(|count| count.trim().parse().ok()).context("no oom_kill in memory.events")
}

fn memory() -> Result<()> {
    let _world = World::new()?;
    let rules = rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "hold");
    let mut guard = Guard::prepare(&policy(&rules))?;
    let group = limited()?;
    let enter = format!("echo 0 >{}/cgroup.procs; exec \"$@\"", group.display());
    guard.set_starter(&["sh", "-c", &enter, "sh"]);
    guard.launch()?;
    let mut inside = Server::inside(&guard)?;
    let mut late = Server::inside(&guard)?;
    let mut held = guard.run(&["rm", "-f", "/srv/prod/dir/f"])?;
    let hold = Hold::of(held.pid())?;
    let pinned = pins()?;
    let mark = guard.events.mark()?;

    // Not a page is left to it: the kernel's memory killer looks for somebody in the group.
    write(&group.join("memory.max"), "0")?;
    guard.killed()?;
    anyhow::ensure!(killed_for_memory(&group)? > 0, "it was killed, but not for memory");
    inside.expect("unlink /srv/prod/f", "EPERM")?;
    inside.expect("fork-unlink /srv/prod/f", "EPERM")?;
    inside.expect("unlink /srv/work/f", "ok")?;
    same("the held process", state(held.pid()), Some('T'))?;
    exists("/srv/prod/dir/f", true)?;
    late.send("unlink /srv/prod/dir/deep/f")?;
    let waiting = late.process().pid();
    until("a call is held without a daemon", SOON, || Ok((state(waiting) == Some('T')).then_some(())))?;
    guard.ran(&["touch", "/srv/work/unguarded"])?.code(125)?;
    exists("/srv/work/unguarded", false)?;
    cli(&["status"])?.code(5)?;
    same("what is pinned", pins()?, pinned)?;

    write(&group.join("memory.max"), "max")?;
    guard.launch()?;
    let started = guard.events.wait(mark, "the next daemon", |event| event.is("guard_started"))?;
    same("whether it has adopted", started.own("adopted").as_bool(), Some(true))?;
    guard.events.wait(mark, "the denial", |event| event.judged("deny") && event.about("/srv/prod/f"))?;
    let again = Hold::of(held.pid())?;
    same("what is known of the hold", again.details(), hold.details())?;
    again.approve()?;
    held.wait(SOON)?.good()?;
    Hold::of(waiting)?.deny()?;
    same("the late one", late.answer()?.as_str(), "EPERM")?;
    guard.ran(&["touch", "/srv/work/guarded"])?.good()?;
    guard.stop()
}

/// A small file system for the log, and what fills it.
struct Disk {
    mounted: Mounted,
    filler: PathBuf,
}

impl Disk {
    const AT: &'static str = "/srv/log";

    fn new() -> Result<Self> {
        // Room for all that the daemon keeps in memory.
        let mounted = Mounted::new(&["-t", "tmpfs", "-o", "size=160m", "none"], Self::AT)?;
        Ok(Self { mounted, filler: Path::new(Self::AT).join("filler") })
    }

    /// Takes the last byte.
    fn fill(&self) -> Result<()> {
        use std::io::Write;
        let mut file =
            fs::File::options().create(true).append(true).open(&self.filler).context("no filler")?;
        for size in [1 << 20, 4096, 1] {
            let block = vec![b'x'; size];
            loop {
                match file.write(&block) {
                    Ok(count) if count > 0 => {}
                    Err(error) if error.kind() != std::io::ErrorKind::StorageFull => {
                        return Err(error).context("can't fill the disk");
                    }
                    _ => break,
                }
            }
        }
        Ok(())
    }

    fn free(&self) -> Result<()> {
        fs::remove_file(&self.filler).context("can't make room")
    }
}

/// How many events had no room in memory either.
fn lost_so_far() -> Result<u64> {
    let text = degraded()?;
    let lost = text.rsplit_once(" lost)").and_then(|(text, _)| text.rsplit(' ').next()?.parse().ok());
    lost.with_context(|| format!("no number of lost events: {text:?}"))
}

/// Numbers that are missing in the log, behind a place in it.
fn missing(events: &[Event]) -> Result<u64> {
    let mut missing = 0;
    for pair in events.windows(2) {
        let [first, second] = pair else { continue };
        missing += second.sequence()? - first.sequence()? - 1;
    }
    Ok(missing)
}

fn told_lost(events: &[Event]) -> u64 {
    let lost = events.iter().filter(|event| event.is("events_lost") && event.field("place") == "file");
    lost.filter_map(|event| event.own("count").as_u64()).sum()
}

fn log_full() -> Result<()> {
    let _world = World::new()?;
    let rules = rule(PROD, CHANGES, "deny") + &rule("/srv/prod/dir", CHANGES, "report");
    let disk = Disk::new()?;
    let mut guard = Guard::prepare_with(&policy(&rules), Path::new(Disk::AT), PINS)?;
    guard.launch()?;
    let mut inside = Server::inside(&guard)?;
    inside.expect("mkdir /srv/prod/before", "EPERM")?;
    guard.events.wait(Mark::START, "a denial", |event| event.about("/srv/prod/before"))?;

    // What finds no room waits, and comes when there is some.
    disk.fill()?;
    let mark = guard.events.mark()?;
    let last = until_full(&mut inside, "waits")?;
    cli(&["status"])?.code(1)?;
    guard.ran(&["true"])?.good()?;
    disk.free()?;
    guard.events.wait(mark, "what has waited", |event| event.about(&last))?;
    until("all is well again", SOON, || Ok(degraded()?.is_empty().then_some(())))?;
    guard.events.gapless()?;

    overflow(&mut guard, &disk, &mut inside)?;
    unwritten(&mut guard, &disk, &mut inside)?;
    drop(inside);
    guard.halt()?;
    drop(disk.mounted);
    Ok(())
}

/// Has things denied until one of them finds no room in the log: the last page of a file has some. Answers which.
fn until_full(inside: &mut Server, name: &str) -> Result<String> {
    let mut number = 0;
    until("it is said that the log doesn't take events", SOON, || {
        number += 1;
        let path = format!("{PROD}/{name}-{number}");
        inside.expect(&format!("mkdir {path}"), "EPERM")?;
        Ok(degraded()?.contains("events don't reach the file: No space left").then_some(path))
    })
}

/// More than memory has room for: reports go first, and are counted.
fn overflow(guard: &mut Guard, disk: &Disk, inside: &mut Server) -> Result<()> {
    disk.fill()?;
    let mark = guard.events.mark()?;
    // Whose events are long: each has the command lines of its parents.
    let attack = crate::fixture::attack()?.display().to_string();
    let long = "x".repeat(900);
    let nested = format!("bash -c '{attack} serve; true' {long}; true");
    let nested = format!("bash -c \"{nested}\" {long}; true");
    let mut flood =
        Server::start(guard.command(crate::fixture::PROFILE, &["bash", "-c", &nested, &long]), "inside")?;
    until("reports are lost", SOON * 2, || {
        flood.expect("open-write-times /srv/prod/dir/f 400", "ok")?;
        Ok((lost_so_far()? > 0).then_some(()))
    })?;
    // There is still room for what was stopped.
    inside.expect("mkdir /srv/prod/late", "EPERM")?;
    until("all that has happened was taken in", SOON, || {
        let before = lost_so_far()?;
        std::thread::sleep(std::time::Duration::from_millis(500));
        Ok((lost_so_far()? == before).then_some(()))
    })?;
    let lost = lost_so_far()?;
    disk.free()?;
    guard.events.wait(mark, "the denial", |event| event.judged("deny") && event.about("/srv/prod/late"))?;
    let event = guard
        .events
        .wait(mark, "the loss", |event| event.is("events_lost") && event.field("place") == "file")?;
    same("class and activity of the loss", event.class(), (6008, 1))?;
    same("what was lost", event.field("lost").as_str(), "reports")?;
    let events = guard.events.since(mark)?;
    anyhow::ensure!(told_lost(&events) >= lost, "{lost} were lost, and {} were told", told_lost(&events));
    same("numbers that are missing, and what was told", missing(&events)?, told_lost(&events))?;
    until("all is well again", SOON, || Ok(degraded()?.is_empty().then_some(())))
}

/// A daemon that ends before what it keeps is written: the next one says how much that was.
fn unwritten(guard: &mut Guard, disk: &Disk, inside: &mut Server) -> Result<()> {
    guard.settle()?;
    disk.fill()?;
    until_full(inside, "unwritten")?;
    let last = guard.events.all()?.last().context("no events")?.sequence()?;
    // The number of the last event is kept four times a second.
    let kept = Path::new("/run/agent-guard/sequence");
    until("its number is kept", SOON, || {
        let text = fs::read_to_string(kept).unwrap_or_default();
        let number: u64 = text.lines().next().and_then(|line| line.parse().ok()).unwrap_or(0);
        Ok((number > last).then_some(()))
    })?;
    // The last page of the log may have room for the short event that says so, though not for what was lost.
    let mark = guard.events.mark()?;
    guard.kill()?;
    inside.expect("mkdir /srv/prod/unseen", "EPERM")?;
    guard.launch()?;
    contains("what is degraded", &degraded()?, "events don't reach the file")?;
    disk.free()?;
    let lost = guard
        .events
        .wait(mark, "the loss", |event| event.is("events_lost") && event.field("place") == "file")?;
    let count = lost.own("count").as_u64().context("no count")?;
    same("its number", lost.sequence()?, last + count + 1)?;
    // What the kernel kept meanwhile is told all the same.
    guard.events.wait(mark, "the denial", |event| event.about("/srv/prod/unseen"))?;
    Ok(())
}
