//! A test as a text: what is done to files, a policy, what is done then, and what is asked. One line each:
//!
//! ```text
//! mkdir /w/a
//! rule deny write,delete /w/*/b
//! load
//! rename /w/a /w/c
//! ask write /w/c/b
//! ```
//!
//! Random ones come from a number, always the same ones from the same ([`Case::random`]); one that fails can be made smaller
//! ([`Case::smallest`]) and kept.

use std::{
    collections::BTreeMap,
    fmt, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use agent_guard_common::{Op, Verdict};

use super::{
    Policy, Source, build,
    explain::{ExplainError, Explanation, explain_path, explain_socket},
    load,
    oracle::{Answer, Oracle},
    session::SessionPaths,
    tables::Compiled,
    world::World,
};

mod random;

pub use random::Random;

/// The profile of all cases.
pub const PROFILE: &str = "p";
/// The binding of its session.
pub const BINDING: u32 = 7;
/// The key that names are hashed with where nobody has another one.
pub const KEY: [u64; 2] = [0x0123_4567_89ab_cdef, 0x0f1e_2d3c_4b5a_6978];

/// What has failed once, or is worth running every time, by name.
pub const KEPT: &[(&str, &str)] = &[
    ("hidden-root", include_str!("../../../testdata/cases/hidden-root.case")),
    ("moved", include_str!("../../../testdata/cases/moved.case")),
    ("persistence", include_str!("../../../testdata/cases/persistence.case")),
    ("sockets", include_str!("../../../testdata/cases/sockets.case")),
    ("unseen-root", include_str!("../../../testdata/cases/unseen-root.case")),
    ("variables", include_str!("../../../testdata/cases/variables.case")),
];

/// A line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Line {
    /// Makes a directory.
    Mkdir(PathBuf),
    /// Makes an empty file.
    File(PathBuf),
    /// Makes a symbolic link: what it leads to, which is absolute, and where.
    Symlink(PathBuf, PathBuf),
    /// Gives a file one more name.
    Link(PathBuf, PathBuf),
    /// Moves something.
    Rename(PathBuf, PathBuf),
    /// Removes a file, a link or an empty directory.
    Remove(PathBuf),
    /// Shows a directory in another place too.
    Bind(PathBuf, PathBuf),
    /// Mounts the disk with that number, empty when it is new.
    Mount(u32, PathBuf),
    /// Takes the uppermost mount away.
    Unmount(PathBuf),
    /// A rule: verdict, operations, path.
    Rule(Verdict, Vec<Op>, String),
    /// A critical one.
    Critical(Verdict, Vec<Op>, String),
    /// An entry of the scope.
    Scope(String),
    /// What happens to an operation outside.
    Outside(Op, Verdict),
    /// A Unix socket in a list of `network`.
    Socket(Verdict, String),
    /// `network.connect`.
    Connect(Verdict),
    /// `mode = "report"`.
    Report,
    /// `files.persistence`; `allow` where no line says so.
    Persistence(Verdict),
    /// A session's directories: `${cwd}`, `${home}`, `${tmp}`.
    Session(PathBuf, PathBuf, PathBuf),
    /// Loads the policy.
    Load,
    /// Asks about an operation on a path.
    Ask(Op, PathBuf),
}

/// All lines.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Case(pub Vec<Line>);

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ops = |ops: &[Op]| ops.iter().map(|op| op.name()).collect::<Vec<_>>().join(",");
        match self {
            Self::Mkdir(path) => write!(f, "mkdir {}", path.display()),
            Self::File(path) => write!(f, "file {}", path.display()),
            Self::Symlink(target, path) => write!(f, "symlink {} {}", target.display(), path.display()),
            Self::Link(from, to) => write!(f, "link {} {}", from.display(), to.display()),
            Self::Rename(from, to) => write!(f, "rename {} {}", from.display(), to.display()),
            Self::Remove(path) => write!(f, "remove {}", path.display()),
            Self::Bind(from, to) => write!(f, "bind {} {}", from.display(), to.display()),
            Self::Mount(disk, path) => write!(f, "mount {disk} {}", path.display()),
            Self::Unmount(path) => write!(f, "unmount {}", path.display()),
            Self::Rule(verdict, about, path) => write!(f, "rule {} {} {path}", verdict.name(), ops(about)),
            Self::Critical(verdict, about, path) => {
                write!(f, "critical {} {} {path}", verdict.name(), ops(about))
            }
            Self::Scope(path) => write!(f, "scope {path}"),
            Self::Outside(op, verdict) => write!(f, "outside {} {}", op.name(), verdict.name()),
            Self::Socket(verdict, path) => write!(f, "socket {} {path}", verdict.name()),
            Self::Connect(verdict) => write!(f, "connect {}", verdict.name()),
            Self::Report => f.write_str("report"),
            Self::Persistence(verdict) => write!(f, "persistence {}", verdict.name()),
            Self::Session(cwd, home, tmp) => {
                write!(f, "session {} {} {}", cwd.display(), home.display(), tmp.display())
            }
            Self::Load => f.write_str("load"),
            Self::Ask(op, path) => write!(f, "ask {} {}", op.name(), path.display()),
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|line| writeln!(f, "{line}"))
    }
}

impl FromStr for Line {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut words = text.split_whitespace();
        let what = words.next().unwrap_or_default();
        let mut word = || words.next().ok_or_else(|| format!("{text:?} lacks a word"));
        let op = |name: &str| Op::from_name(name).ok_or_else(|| format!("{name:?} is no operation"));
        let verdict = |name: &str| Verdict::from_name(name).ok_or_else(|| format!("{name:?} is no verdict"));
        let ops = |names: &str| names.split(',').map(op).collect::<Result<Vec<_>, _>>();
        Ok(match what {
            "mkdir" => Self::Mkdir(word()?.into()),
            "file" => Self::File(word()?.into()),
            "symlink" => Self::Symlink(word()?.into(), word()?.into()),
            "link" => Self::Link(word()?.into(), word()?.into()),
            "rename" => Self::Rename(word()?.into(), word()?.into()),
            "remove" => Self::Remove(word()?.into()),
            "bind" => Self::Bind(word()?.into(), word()?.into()),
            "mount" => {
                let disk = word()?;
                Self::Mount(disk.parse().map_err(|error| format!("{disk:?}: {error}"))?, word()?.into())
            }
            "unmount" => Self::Unmount(word()?.into()),
            "rule" => Self::Rule(verdict(word()?)?, ops(word()?)?, word()?.into()),
            "critical" => Self::Critical(verdict(word()?)?, ops(word()?)?, word()?.into()),
            "scope" => Self::Scope(word()?.into()),
            "outside" => Self::Outside(op(word()?)?, verdict(word()?)?),
            "socket" => Self::Socket(verdict(word()?)?, word()?.into()),
            "connect" => Self::Connect(verdict(word()?)?),
            "report" => Self::Report,
            "persistence" => Self::Persistence(verdict(word()?)?),
            "session" => Self::Session(word()?.into(), word()?.into(), word()?.into()),
            "load" => Self::Load,
            "ask" => Self::Ask(op(word()?)?, word()?.into()),
            _ => return Err(format!("{text:?} is no line of a case")),
        })
    }
}

impl FromStr for Case {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines.map(str::parse).collect::<Result<_, _>>().map(Self)
    }
}

/// Does to a world what a line says, if it is about files.
///
/// # Errors
///
/// As the system would say it.
pub fn apply(world: &mut World, line: &Line) -> io::Result<()> {
    match line {
        Line::Mkdir(path) => world.mkdir(path),
        Line::File(path) => world.file(path),
        Line::Symlink(target, path) => world.symlink(target, path),
        Line::Link(from, to) => world.link(from, to),
        Line::Rename(from, to) => world.rename(from, to),
        Line::Remove(path) => world.remove(path),
        Line::Bind(from, to) => world.bind(from, to),
        Line::Mount(disk, path) => world.mount(*disk, path),
        Line::Unmount(path) => world.unmount(path),
        _ => Ok(()),
    }
}

impl Case {
    /// The policy as TOML.
    #[must_use]
    pub fn policy(&self) -> String {
        let mut head = format!("version = 1\n[profile.{PROFILE}]\n");
        let (mut scope, mut outside, mut rules) = (Vec::new(), BTreeMap::new(), String::new());
        let mut persistence = Verdict::ALLOW;
        let (mut connect, mut sockets) = (None, BTreeMap::<&str, String>::new());
        let mut rule = |table: &str, verdict: Verdict, ops: &[Op], path: &str| {
            let ops: Vec<_> = ops.iter().map(|op| op.name()).collect();
            rules += &format!(
                "[[{table}]]\npath = {path:?}\nops = {ops:?}\nverdict = {:?}\nreason = \"r\"\n",
                verdict.name()
            );
        };
        for line in &self.0 {
            match line {
                Line::Report => head += "mode = \"report\"\n",
                Line::Scope(path) => scope.push(path),
                Line::Persistence(verdict) => persistence = *verdict,
                Line::Outside(op, verdict) => drop(outside.insert(op.name(), verdict.name())),
                Line::Rule(verdict, ops, path) => {
                    rule(&format!("profile.{PROFILE}.files.rule"), *verdict, ops, path);
                }
                Line::Critical(verdict, ops, path) => rule("critical", *verdict, ops, path),
                Line::Connect(verdict) => connect = Some(verdict.name()),
                Line::Socket(verdict, path) => {
                    *sockets.entry(verdict.name()).or_default() += &format!("  \"unix:{path}\",\n");
                }
                _ => {}
            }
        }
        let outside: Vec<_> =
            outside.into_iter().map(|(op, verdict)| format!("{op} = {verdict:?}")).collect();
        let outside = outside.join(", ");
        // Twice is a mistake.
        let head = head.replace("mode = \"report\"\nmode = \"report\"\n", "mode = \"report\"\n");
        let persistence = persistence.name();
        let mut network = connect.map(|verdict| format!("connect = {verdict:?}\n")).unwrap_or_default();
        for (list, entries) in sockets {
            network += &format!("{list} = [\n{entries}]\n");
        }
        format!(
            "{head}[profile.{PROFILE}.network]\n{network}[profile.{PROFILE}.files]\nscope = {scope:?}\npersistence = {persistence:?}\noutside = {{ {outside} }}\n{rules}"
        )
    }

    /// The directories of its session.
    #[must_use]
    pub fn session(&self) -> SessionPaths {
        let last = self.0.iter().rev().find_map(|line| match line {
            Line::Session(cwd, home, tmp) => Some((cwd.clone(), Some(home.clone()), tmp.clone())),
            _ => None,
        });
        let (cwd, home, tmp) = last.unwrap_or_else(|| ("/nowhere".into(), None, "/nowhere".into()));
        SessionPaths { profile: PROFILE.to_owned(), binding: BINDING, cwd, home, tmp }
    }

    /// Runs it: definition and tables must give the same answers, whose sources are counted. What can't be done or
    /// loaded is left out.
    ///
    /// # Errors
    ///
    /// The question with two answers, and both.
    pub fn run(&self) -> Result<BTreeMap<String, u32>, String> {
        let mut counts = BTreeMap::new();
        let mut world = World::default();
        let text = self.policy();
        let source = Source { name: "case.toml".to_owned(), text };
        let policy = load(vec![source]).map_err(|mistakes| format!("no policy: {mistakes:?}"))?;
        let session = self.session();
        let mut loaded: Option<(Compiled, Oracle<'_>)> = None;
        for line in &self.0 {
            match line {
                Line::Load => {
                    let Some(both) = both(&policy, &world, &session)? else { return Ok(counts) };
                    loaded = Some(both);
                }
                Line::Ask(op, path) => {
                    let Some((compiled, oracle)) = &loaded else { continue };
                    let source = compare(compiled, oracle, &world, *op, path);
                    let source = source.map_err(|why| format!("{line}: {why}"))?;
                    *counts.entry(source).or_default() += 1;
                }
                // What the system refuses doesn't happen.
                other => drop(apply(&mut world, other)),
            }
        }
        Ok(counts)
    }

    /// The same with as few lines as possible, as long as it still fails.
    #[must_use]
    pub fn smallest(mut self, fails: impl Fn(&Self) -> bool) -> Self {
        let mut step = self.0.len() / 2;
        loop {
            let mut at = 0;
            let before = self.0.len();
            while at < self.0.len() {
                let mut less = self.clone();
                less.0.drain(at..less.0.len().min(at + step.max(1)));
                if fails(&less) {
                    self = less;
                } else {
                    at += step.max(1);
                }
            }
            if step <= 1 && self.0.len() == before {
                return self;
            }
            step /= 2;
        }
    }
}

/// Both, loaded; none for a policy that isn't accepted.
fn both<'p>(
    policy: &'p Policy,
    world: &World,
    session: &SessionPaths,
) -> Result<Option<(Compiled, Oracle<'p>)>, String> {
    let sessions = std::slice::from_ref(session);
    let Ok(compiled) = build(policy, world, &BTreeMap::new(), KEY, sessions) else { return Ok(None) };
    match Oracle::load(policy, world, session) {
        Ok(Some(oracle)) => Ok(Some((compiled, oracle))),
        other => Err(format!("the oracle can't load what the tables can: {other:?}")),
    }
}

/// Where both answers come from.
fn compare(
    compiled: &Compiled,
    oracle: &Oracle<'_>,
    world: &World,
    op: Op,
    path: &Path,
) -> Result<String, String> {
    let index = compiled.profile_index(PROFILE).unwrap_or_default();
    let (view, who) = (compiled.view(), (index, BINDING));
    let tables = match op {
        Op::CONNECT => explain_socket(&view, world, who, path),
        _ => explain_path(&view, world, who, op, path),
    };
    match (tables, oracle.judge(world, op, path)) {
        (Ok(tables), Ok(oracle)) if same(&tables, &oracle) => Ok(tables.source),
        (Err(ExplainError::Lookup { .. }), Err(_)) => Ok("none".to_owned()),
        (tables, oracle) => Err(format!("the tables say {tables:?}, the definition says {oracle:?}")),
    }
}

/// Whether tables and definition say the same.
#[must_use]
pub fn same(tables: &Explanation, oracle: &Answer) -> bool {
    let Explanation { verdict, policy, source, rule } = tables;
    // To the decision those are rules.
    let source = if source == "persistence" { "rule" } else { source.as_str() };
    (verdict.as_str(), policy.as_str(), source, rule.as_ref().map(|rule| rule.line))
        == (oracle.verdict.name(), oracle.policy.name(), oracle.source.name(), oracle.line)
}
