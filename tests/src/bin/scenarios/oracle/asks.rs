//! What is asked, and what it is to a process that tries it: something that changes nothing, or what can be taken back.

use std::path::{Path, PathBuf};

use ::tests::Random;
use agent_guard::policy::Filesystem;
use agent_guard::policy::case::{Case, Line, apply};
use agent_guard::policy::world::World;
use agent_guard_common::{Op, Verdict};

/// Where all files of all cases are, in the unit tests, too.
pub(super) const BASE: &str = "/w";
/// A directory where a session may make and replace: a target for what is moved.
pub(super) const FREE: &str = "/w/free";
/// A directory in there, which no file can replace.
pub(super) const FREE_DIRECTORY: &str = "/w/free/d";
/// A file, which no directory can replace.
pub(super) const FREE_FILE: &str = "/w/free/f";
/// What a new name can be; those of random cases, and one that no rule is about.
const NAMES: [&str; 6] = ["a", "b", "c", "d.tf", "long-name-that-has-more-than-32-bytes", "new"];
/// How many are asked where a random case asks one.
const MORE: usize = 48;
/// Directories in directories that are looked at, at most.
const DEPTH: usize = 7;

/// What a process tries.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Attempt {
    /// The attack.
    pub(super) line: String,
    /// What it is to the policy. The strictest answer holds.
    pub(super) parts: Vec<(Op, PathBuf)>,
    /// Its outcome where nobody denies it.
    pub(super) outcome: &'static str,
    /// What it makes then.
    pub(super) makes: Option<PathBuf>,
}

impl Attempt {
    /// How an operation can be tried on a path; none if it can't.
    ///
    /// - `delete` by the call for the wrong kind: `unlink` of a directory, `rmdir` of anything else. Both are judged before
    ///   the kernel sees that.
    /// - `rename` onto something of the other kind in [`FREE`], which is judged as its replacement; or, from another mount,
    ///   onto itself, which is judged as `create` and `delete` besides.
    /// - `create` makes a directory, to be removed by somebody outside. What is there already is moved onto itself.
    /// - `execute` of a file that is no program.
    pub(super) fn of(world: &World, op: Op, path: &Path) -> Option<Self> {
        let text = path.to_str()?;
        let one = |attack: &str, outcome| Self {
            line: format!("{attack} {text}"),
            parts: vec![(op, path.to_owned())],
            outcome,
            makes: None,
        };
        let leads_to = world.lookup(path, true).ok();
        let file = leads_to.as_ref().is_some_and(|object| !object.directory);
        match op {
            Op::READ if leads_to.is_some() => return Some(one("open-read-nonblock", "ok")),
            Op::WRITE if file => return Some(one("open-write", "ok")),
            Op::EXECUTE if file => return Some(one("exec-here", "ENOEXEC")),
            Op::METADATA if leads_to.is_some() => return Some(one("chmod-0755", "ok")),
            Op::CREATE | Op::DELETE | Op::RENAME => {}
            _ => return None,
        }
        let Ok(entry) = world.lookup(path, false) else {
            let above = world.lookup(path.parent()?, true).ok()?;
            let made = Self { makes: Some(path.to_owned()), ..one("mkdir", "ok") };
            return (op == Op::CREATE && above.directory).then_some(made);
        };
        // These calls see the directory that a mount hides, which no path of the policy's tools leads to.
        if world.mounts().ok()?.iter().any(|mount| mount.point == entry.path) {
            return None;
        }
        if op == Op::DELETE {
            return Some(if entry.directory { one("unlink", "EISDIR") } else { one("rmdir", "ENOTDIR") });
        }
        // What is moved can't be what is moved to, or above it.
        if entry.path.starts_with(FREE) || Path::new(FREE).starts_with(&entry.path) {
            return None;
        }
        let free = world.lookup(Path::new(FREE), false).ok()?;
        let (to, outcome) = match (op, entry.mount == free.mount, entry.directory) {
            (Op::RENAME, true, true) => (FREE_FILE, "ENOTDIR"),
            (Op::RENAME, true, false) => (FREE_DIRECTORY, "EISDIR"),
            _ => (text, "ok"),
        };
        Some(Self {
            line: format!("rename {text} {to}"),
            parts: vec![(Op::RENAME, path.to_owned()), (Op::CREATE, to.into()), (Op::DELETE, to.into())],
            outcome,
            makes: None,
        })
    }
}

/// What every case has besides.
pub(super) fn free() -> [Line; 3] {
    [Line::Mkdir(FREE.into()), Line::Mkdir(FREE_DIRECTORY.into()), Line::File(FREE_FILE.into())]
}

/// A random case for the kernel: with verdicts that neither wait nor kill, directories that the variables can stand for,
/// and many questions about what is there.
pub(super) fn random(seed: u64) -> Case {
    let mut numbers = Random::new(seed);
    let mut world = World::default();
    let mut lines = Vec::new();
    for line in Case::random(seed, Path::new(BASE)).0 {
        let line = match line {
            Line::Rule(verdict, ops, path) => Line::Rule(mild(verdict), ops, path),
            Line::Critical(_, ops, path) => Line::Critical(Verdict::DENY, ops, path),
            Line::Outside(op, verdict) => Line::Outside(op, mild(verdict)),
            Line::Socket(verdict, path) => Line::Socket(mild(verdict), path),
            Line::Connect(verdict) => Line::Connect(mild(verdict)),
            Line::Ask(op, path) => {
                let paths = paths(&world);
                let more = (1..MORE).filter_map(|_| {
                    Some(Line::Ask(*numbers.pick(&Op::FILE)?, numbers.pick(&paths)?.clone()))
                });
                lines.push(Line::Ask(op, path));
                lines.extend(more);
                continue;
            }
            other => other,
        };
        if let Line::Session(cwd, home, tmp) = &line {
            for path in [cwd, home, tmp] {
                let mut above: Vec<_> = path.ancestors().filter(|path| path.starts_with(BASE)).collect();
                above.reverse();
                lines.extend(above.into_iter().map(|path| Line::Mkdir(path.into())));
            }
        }
        if line == Line::Load {
            free().iter().for_each(|line| drop(apply(&mut world, line)));
        }
        drop(apply(&mut world, &line));
        lines.push(line);
    }
    Case(lines)
}

fn mild(verdict: Verdict) -> Verdict {
    match verdict {
        Verdict::ALLOW | Verdict::REPORT => verdict,
        _ => Verdict::DENY,
    }
}

/// All that is there, by every path without a way round, and names that could be there.
fn paths(world: &World) -> Vec<PathBuf> {
    let mut all = Vec::new();
    let mut todo = vec![PathBuf::from(BASE)];
    while let Some(path) = todo.pop() {
        if path.iter().count() > DEPTH || path == Path::new(FREE) {
            continue;
        }
        for name in world.names(&path).unwrap_or_default() {
            let child = path.join(name);
            if world.lookup(&child, true).is_ok_and(|object| object.directory) {
                todo.push(child.clone());
            }
            // Twice: what is there shall be asked about as often as what isn't.
            all.extend([child.clone(), child]);
        }
        all.extend(NAMES.map(|name| path.join(name)));
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts() {
        let text =
            "mkdir /w\nmkdir /w/a\nfile /w/f\nmkdir /w/m\nmount 2 /w/m\nfile /w/m/f\nsymlink /w/f /w/l";
        let case: Case = text.parse().unwrap();
        let mut world = World::default();
        free().iter().chain(&case.0).for_each(|line| drop(apply(&mut world, line)));
        free().iter().for_each(|line| drop(apply(&mut world, line)));
        let line = |op, path| Attempt::of(&world, op, Path::new(path)).map(|attempt| attempt.line);
        let some = |text: &str| Some(text.to_owned());
        assert_eq!(line(Op::WRITE, "/w/a"), None);
        assert_eq!(line(Op::WRITE, "/w/l"), some("open-write /w/l"));
        assert_eq!(line(Op::DELETE, "/w/l"), some("rmdir /w/l"));
        assert_eq!(line(Op::DELETE, "/w/a"), some("unlink /w/a"));
        assert_eq!(line(Op::DELETE, "/w/m"), None);
        assert_eq!(line(Op::CREATE, "/w/m/x"), some("mkdir /w/m/x"));
        assert_eq!(line(Op::CREATE, "/w/f/x"), None);
        assert_eq!(line(Op::RENAME, "/w"), None);
        assert_eq!(line(Op::RENAME, "/w/free/f"), None);
        assert_eq!(line(Op::RENAME, "/w/a"), some("rename /w/a /w/free/f"));
        assert_eq!(line(Op::RENAME, "/w/f"), some("rename /w/f /w/free/d"));
        assert_eq!(line(Op::RENAME, "/w/m/f"), some("rename /w/m/f /w/m/f"));
    }

    #[test]
    fn nothing_waits_or_kills() {
        for seed in 0..100 {
            let case = random(seed);
            let text = case.to_string();
            assert!(!text.contains(" hold ") && !text.contains(" kill "), "{text}");
            assert_eq!(case.run().err(), None, "{text}");
        }
    }
}
