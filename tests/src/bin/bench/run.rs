//! The run: every operation in every case, in an order that loads the guard as late as possible.

use std::collections::BTreeMap;
use std::fs;
use std::io::{ErrorKind, Write};
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::fs::inotify::{self, CreateFlags, WatchFlags};
use serde::Serialize;

use crate::cases::{self, Case, Confinement};
use crate::child::Measured;
use crate::guard::Guard;
use crate::ops::Op;
use crate::places;
use crate::programs::{self, Programs};
use crate::workloads::{self, Workload};

/// When a guest has settled after its boot.
const SETTLED: Duration = Duration::from_secs(8);

/// A result.
#[derive(Serialize)]
struct Row<'a> {
    op: &'a str,
    case: &'a str,
    /// Of one operation.
    instructions: u64,
    /// The same without anything that confines, at the same depth.
    bare: u64,
}

/// Measures what is asked for, or everything.
pub(crate) fn main(args: &[&str]) -> Result<()> {
    let Wanted { ops, workloads, cases: wanted, programs } = parse(args)?;
    let most = wanted.iter().map(|case| rules(case.confinement)).max().unwrap_or_default();
    // Processes that lie differently in memory have more or fewer page tables, which fork copies.
    fs::write("/proc/sys/kernel/randomize_va_space", "0").context("can't turn off randomised addresses")?;
    places::make(&[2, cases::USUAL, 12])?;
    places::make_ruled(most)?;
    workloads::prepare(&workloads)?;
    let _watch = watch()?;
    let listener = TcpListener::bind((places::HOST, places::PORT)).context("can't listen")?;
    listener.set_nonblocking(true).context("can't listen")?;
    let mut bench = Bench { listener, guard: None, bare: BTreeMap::new(), works: BTreeMap::new() };
    settle()?;
    // The guard can't be unloaded: what is measured without it comes first.
    let order = [
        Confinement::Bare,
        Confinement::Landlock,
        Confinement::Notify,
        Confinement::Untagged,
        Confinement::Allowed,
        Confinement::Denied,
    ];
    bench.bare(&ops, &wanted)?;
    bench.bare_works(&workloads)?;
    for confinement in order.into_iter().chain(rules_of(&wanted)).chain([Confinement::Enrolling]) {
        let cases: Vec<Case> =
            wanted.iter().copied().filter(|case| case.confinement == confinement).collect();
        if !cases.is_empty() {
            bench.enter(confinement)?;
        }
        for case in &cases {
            for &op in ops.iter().filter(|op| case.fits(**op)) {
                eprintln!("{}: {}", case.name, op.name());
                bench.row(op, case)?;
                if programs && bench.guard.is_some() {
                    bench.programs(op, case)?;
                }
            }
            for &workload in workloads.iter().filter(|_| workloads::fits(case)) {
                eprintln!("{}: {}", case.name, workload.name());
                bench.work(workload, case)?;
            }
        }
    }
    bench.guard.map_or(Ok(()), Guard::stop)
}

/// Somebody watches something on the file system, as on every host that has udev or D-Bus. From then on the kernel looks at each
/// call whether it is that (`fsnotify_sb_has_watchers`, include/linux/fsnotify.h, Linux 6.10), which must not be taken for what
/// the guard costs, whose daemon watches its own files.
fn watch() -> Result<OwnedFd> {
    let watch = inotify::init(CreateFlags::CLOEXEC).context("can't watch files")?;
    inotify::add_watch(&watch, "/etc", WatchFlags::MODIFY).context("can't watch /etc")?;
    Ok(watch)
}

/// What is to be measured.
struct Wanted {
    ops: Vec<Op>,
    workloads: Vec<Workload>,
    cases: Vec<Case>,
    /// Whether to say what each program has part in it.
    programs: bool,
}

/// The operations and cases that the arguments name, or all.
fn parse(args: &[&str]) -> Result<Wanted> {
    let (mut ops, mut workloads, mut chosen) = (Vec::new(), Vec::new(), Vec::new());
    let (programs, args) = match args {
        ["--programs", rest @ ..] => (true, rest),
        all => (false, all),
    };
    for pair in args.chunks(2) {
        match *pair {
            ["--op", name] if Workload::from_name(name).is_some() => {
                workloads.extend(Workload::from_name(name));
            }
            ["--op", name] => {
                ops.push(Op::from_name(name).with_context(|| format!("there is no operation {name}"))?);
            }
            ["--case", name] => {
                let case = cases::ALL.into_iter().find(|case| case.name == name);
                chosen.push(case.with_context(|| format!("there is no case {name}"))?);
            }
            _ => bail!("usage: bench run [--programs] [--op O]... [--case C]..."),
        }
    }
    if ops.is_empty() && workloads.is_empty() {
        ops.extend(Op::ALL);
        workloads.extend(Workload::ALL);
    }
    if chosen.is_empty() {
        chosen.extend(cases::ALL);
    }
    Ok(Wanted { ops, workloads, cases: chosen, programs })
}

fn rules(confinement: Confinement) -> usize {
    match confinement {
        Confinement::Rules(count) => count,
        _ => 0,
    }
}

/// The numbers of rules that are asked for, few first.
fn rules_of(wanted: &[Case]) -> Vec<Confinement> {
    let mut all: Vec<_> =
        wanted.iter().map(|case| case.confinement).filter(|confinement| rules(*confinement) > 0).collect();
    all.sort();
    all.dedup();
    all
}

/// Waits until the system has done what it does after a boot.
fn settle() -> Result<()> {
    places::forget_looked_up()?;
    let text = fs::read_to_string("/proc/uptime").context("can't read /proc/uptime")?;
    let up =
        text.split(' ').next().and_then(|word| word.parse().ok()).context("/proc/uptime has no number")?;
    let left = SETTLED.saturating_sub(Duration::from_secs_f64(up));
    // After much to do there is something to settle too.
    std::thread::sleep(left.max(Duration::from_secs(1)));
    Ok(())
}

struct Bench {
    listener: TcpListener,
    guard: Option<Guard>,
    bare: BTreeMap<(Op, usize), u64>,
    works: BTreeMap<Workload, u64>,
}

impl Bench {
    /// The figures that others are compared with.
    fn bare(&mut self, ops: &[Op], wanted: &[Case]) -> Result<()> {
        let mut depths: Vec<usize> = wanted.iter().map(|case| case.depth).collect();
        depths.sort_unstable();
        depths.dedup();
        for depth in depths {
            eprintln!("bare, {depth} directories deep");
            for &op in ops {
                let figure = self.figure(op, Confinement::Bare, depth)?;
                self.bare.insert((op, depth), figure);
            }
        }
        Ok(())
    }

    /// The same of whole workloads. The first time their files are read from the disk, which is more work.
    fn bare_works(&mut self, workloads: &[Workload]) -> Result<()> {
        for &workload in workloads {
            eprintln!("bare: {}", workload.name());
            workloads::measure(workload, Confinement::Bare)?;
            self.works.insert(workload, workloads::measure(workload, Confinement::Bare)?);
        }
        Ok(())
    }

    /// Measures a whole workload and prints its row.
    fn work(&mut self, workload: Workload, case: &Case) -> Result<()> {
        let bare = self.works.get(&workload).copied().context("there is no figure to compare with")?;
        if let Some(guard) = &self.guard {
            guard.thaw()?;
        }
        let instructions = match case.confinement {
            Confinement::Bare => bare,
            confinement => workloads::measure(workload, confinement)?,
        };
        print(&Row { op: workload.name(), case: case.name, instructions, bare })
    }

    /// Gets ready for cases of a kind.
    fn enter(&mut self, confinement: Confinement) -> Result<()> {
        if matches!(confinement, Confinement::Bare | Confinement::Landlock | Confinement::Notify) {
            return Ok(());
        }
        let guard = match &self.guard {
            Some(guard) => guard,
            None => self.guard.insert(Guard::start()?),
        };
        match confinement {
            Confinement::Rules(count) => {
                guard.thaw()?;
                guard.rules(count)?;
                places::forget_looked_up()?;
            }
            Confinement::Enrolling => {
                guard.thaw()?;
                guard.enroll()?;
            }
            _ => {}
        }
        Ok(())
    }

    /// Measures and prints a row.
    fn row(&mut self, op: Op, case: &Case) -> Result<()> {
        let key = (op, case.depth);
        let bare = self.bare.get(&key).copied().context("there is no figure to compare with")?;
        let instructions = match case.confinement {
            Confinement::Bare => bare,
            confinement => self.figure(op, confinement, case.depth)?,
        };
        print(&Row { op: op.name(), case: case.name, instructions, bare })
    }

    /// Says what each program has part in a row. Measured by itself: counting costs some.
    fn programs(&self, op: Op, case: &Case) -> Result<()> {
        let mut measured = self.start(op, case.confinement, case.depth)?;
        self.tidy()?;
        programs::count(true)?;
        let before = Programs::now()?;
        measured.batch()?;
        let after = Programs::now()?;
        programs::count(false)?;
        if let Some(guard) = &self.guard {
            guard.thaw()?;
        }
        measured.end()?;
        for line in after.since(&before, u64::from(op.warm_up() + op.times())) {
            eprintln!("{}: {}: {line}", case.name, op.name());
        }
        Ok(())
    }

    /// Instructions of an operation.
    fn figure(&self, op: Op, confinement: Confinement, depth: usize) -> Result<u64> {
        let what = || format!("{} ({confinement:?}, {depth} directories deep)", op.name());
        let mut measured = self.start(op, confinement, depth).with_context(what)?;
        let mut least = u64::MAX;
        for _ in 0..op.batches() {
            self.tidy()?;
            least = least.min(measured.batch().with_context(what)?);
        }
        if let Some(guard) = &self.guard {
            guard.thaw()?;
        }
        measured.end().with_context(what)?;
        let times = u64::from(op.times());
        Ok((least + times / 2) / times)
    }

    fn start(&self, op: Op, confinement: Confinement, depth: usize) -> Result<Measured> {
        // The process itself is always the same, wherever what it does is done.
        let program = format!("{}/{}", places::dir(places::SCOPE, cases::USUAL), places::PROGRAM);
        let mut command = match confinement {
            Confinement::Allowed | Confinement::Denied | Confinement::Rules(_) => {
                Guard::session(&program, op == Op::ExecArgv)
            }
            _ => Command::new(&program),
        };
        let (root, expected) = match confinement {
            Confinement::Denied => (places::OUTSIDE, libc::EPERM),
            _ => (places::SCOPE, 0),
        };
        let under = match confinement {
            Confinement::Landlock => "landlock",
            Confinement::Notify => "notify",
            _ => "none",
        };
        if let Some(guard) = &self.guard {
            guard.thaw()?;
        }
        let dir = places::dir(root, depth);
        command.args(["measure", op.name(), under, &dir, &expected.to_string()]).current_dir("/");
        Measured::start(command)
    }

    /// Before a batch: nothing waits to be accepted, the guard's rings are empty and its daemon stands still.
    fn tidy(&self) -> Result<()> {
        loop {
            match self.listener.accept() {
                Ok(_) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // Connections that were reset before.
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error).context("can't accept a connection"),
            }
        }
        self.guard.as_ref().map_or(Ok(()), Guard::drain_and_freeze)
    }
}

fn print(row: &Row<'_>) -> Result<()> {
    let mut out = std::io::stdout().lock();
    serde_json::to_writer(&mut out, row).context("can't print a row")?;
    writeln!(out).and_then(|()| out.flush()).context("can't print a row")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arguments() {
        let all = parse(&[]).unwrap();
        assert_eq!((all.ops.len(), all.cases.len()), (Op::ALL.len(), cases::ALL.len()));
        assert_eq!(all.workloads, Workload::ALL);
        let some = parse(&["--op", "stat", "--case", "rules_1000", "--case", "rules_10"]).unwrap();
        assert_eq!((some.ops, some.workloads, some.cases.len()), (vec![Op::Stat], vec![], 2));
        assert_eq!(parse(&["--op", "workload_git"]).unwrap().workloads, [Workload::Git]);
        assert_eq!(rules_of(&some.cases), [Confinement::Rules(10), Confinement::Rules(1000)]);
        for bad in [&["--op"][..], &["--op", "x"], &["--case", "x"], &["stat"]] {
            assert!(parse(bad).is_err(), "{bad:?}");
        }
    }
}
