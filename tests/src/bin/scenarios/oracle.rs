//! The policy as it is defined, the compiled tables, and the kernel: random policies and random requests must
//! get the same answer from all three.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ::tests::Random;
use agent_guard::policy::{self, Compiled, HostFilesystem, Policy, Source, explain_path, oracle};
use agent_guard_common::{Op, Verdict};
use anyhow::{Context, Result};

use crate::Scenario;
use crate::fixture::{Guard, PROFILE, Server, same, world};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "oracle_kernel",
    "policy, tables and kernel agree about random requests",
    oracle_kernel,
)];

const ROOT: &str = "/srv/oracle";
const POLICIES: u64 = 25;
const REQUESTS: u32 = 40;
/// Another one with `AGENT_GUARD_TEST_SEED`.
const SEED: u64 = 20_251_213;

fn oracle_kernel() -> Result<()> {
    let seed = match std::env::var("AGENT_GUARD_TEST_SEED") {
        Ok(text) => text.parse().context("AGENT_GUARD_TEST_SEED is no number")?,
        Err(_) => SEED,
    };
    eprintln!("oracle_kernel: seed {seed}");
    plant()?;
    // A session writes its answers to a pipe, and stands in a directory: both need no rule.
    fs::create_dir_all(world::WORK).context("can't create the working directory")?;
    let mut random = Random::new(seed);
    let mut guard = Guard::start(&text(&mut random)?)?;
    let mut inside = Server::inside(&guard)?;
    let mut counts = BTreeMap::new();
    for round in 0..POLICIES {
        let grown = plant()?;
        let text = text(&mut random)?;
        guard.reload(&text)?;
        let judge = Judge::new(&text)?;
        for number in 0..REQUESTS {
            let request = Request::random(&mut random, &grown)?;
            let verdict = judge.ask(&request, &mut guard, &mut inside).with_context(|| {
                format!("seed {seed}, policy {round}, request {number}: {request:?}; policy:\n{text}")
            })?;
            *counts.entry(verdict.name()).or_insert(0_u32) += 1;
        }
    }
    eprintln!("oracle_kernel: verdicts {counts:?}");
    anyhow::ensure!(counts.len() == 3, "not all verdicts came up: {counts:?}");
    drop(inside);
    guard.stop()
}

/// Names of directories, so that paths share their beginnings and rules meet.
const NAMES: [&str; 3] = ["a", "b", "c"];

/// What is in the tree at the beginning of a round.
struct Grown {
    directories: Vec<PathBuf>,
    files: Vec<PathBuf>,
}

/// Makes the tree anew: three levels of three directories, two files in each. Rules are about the objects of a
/// tree, so a policy is loaded after this.
fn plant() -> Result<Grown> {
    world::remove(Path::new(ROOT))?;
    let mut grown = Grown { directories: vec![ROOT.into()], files: Vec::new() };
    let mut level = grown.directories.clone();
    for _ in 0..3 {
        level = level.iter().flat_map(|dir| NAMES.map(|name| dir.join(name))).collect();
        grown.directories.extend(level.iter().cloned());
    }
    for dir in &grown.directories {
        fs::create_dir(dir).with_context(|| format!("can't create {}", dir.display()))?;
        for name in ["f", "g"] {
            let file = dir.join(name);
            fs::write(&file, "contents").with_context(|| format!("can't write {}", file.display()))?;
            grown.files.push(file);
        }
    }
    Ok(grown)
}

const OPS: [&str; 4] = ["write", "create", "delete", "rename"];

fn verdict(random: &mut Random, of: &[&'static str]) -> Result<&'static str> {
    random.pick(of).copied().context("no verdict")
}

/// A path of the tree: a directory of any depth, sometimes a file.
fn place(random: &mut Random) -> Result<String> {
    let mut path = ROOT.to_owned();
    for _ in 0..random.number() % 4 {
        path = format!("{path}/{}", random.pick(&NAMES).context("no name")?);
    }
    Ok(if random.one_in(5) { format!("{path}/f") } else { path })
}

/// At least one operation.
fn ops(random: &mut Random) -> Result<Vec<&'static str>> {
    let mut ops: Vec<&str> = OPS.into_iter().filter(|_| random.one_in(2)).collect();
    if ops.is_empty() {
        ops.push(random.pick(&OPS).context("no operation")?);
    }
    Ok(ops)
}

/// A random policy.
fn text(random: &mut Random) -> Result<String> {
    let mut text = format!("version = 1\n\n[profile.{PROFILE}]\n");
    if random.one_in(6) {
        text.push_str("mode = \"report\"\n");
    }
    text.push_str(&format!("\n[profile.{PROFILE}.files]\n"));
    let scope = (0..random.number() % 3).map(|_| place(random)).collect::<Result<Vec<_>>>()?;
    text.push_str(&format!("scope = {scope:?}\noutside = {{ "));
    let outside = OPS
        .into_iter()
        .map(|op| Ok(format!("{op} = {:?}", verdict(random, &["allow", "report", "deny"])?)))
        .collect::<Result<Vec<_>>>()?;
    text.push_str(&format!("{} }}\n", outside.join(", ")));
    for _ in 0..random.number() % 9 {
        let (path, ops, verdict) =
            (place(random)?, ops(random)?, verdict(random, &["allow", "report", "deny"])?);
        text.push_str(&format!(
            "\n[[profile.{PROFILE}.files.rule]]\npath = {path:?}\nops = {ops:?}\nverdict = {verdict:?}\n"
        ));
    }
    for _ in 0..random.number() % 3 {
        let (path, ops) = (place(random)?, ops(random)?);
        text.push_str(&format!(
            "\n[[critical]]\npath = {path:?}\nops = {ops:?}\nverdict = \"deny\"\nreason = \"at random\"\n"
        ));
    }
    Ok(text)
}

/// What a process tries.
#[derive(Debug)]
enum Request {
    Write(PathBuf),
    Create(PathBuf),
    Delete(PathBuf),
    Rename(PathBuf, PathBuf),
}

impl Request {
    /// One that would work if nobody denied it: what it needs is there, what it makes isn't.
    fn random(random: &mut Random, grown: &Grown) -> Result<Self> {
        let file = |random: &mut Random| -> Result<PathBuf> {
            let there: Vec<&PathBuf> = grown.files.iter().filter(|file| file.exists()).collect();
            random.pick(&there).map(|file| (*file).clone()).context("no file is left")
        };
        let fresh = |random: &mut Random| -> Result<PathBuf> {
            let dir = random.pick(&grown.directories).context("no directory")?;
            Ok(dir.join(format!("new-{}", random.number())))
        };
        Ok(match random.number() % 5 {
            0 => Self::Write(file(random)?),
            1 => Self::Create(fresh(random)?),
            2 => Self::Delete(file(random)?),
            // Never onto itself: that does nothing, and is judged by nobody.
            3 => match (file(random)?, file(random)?) {
                (from, to) if from == to => Self::Delete(from),
                (from, to) => Self::Rename(from, to),
            },
            _ => Self::Rename(file(random)?, fresh(random)?),
        })
    }

    /// The attack that does it.
    fn line(&self) -> String {
        match self {
            Self::Write(path) => format!("open-write {}", path.display()),
            Self::Create(path) => format!("create-new {}", path.display()),
            Self::Delete(path) => format!("unlink {}", path.display()),
            Self::Rename(from, to) => format!("rename {} {}", from.display(), to.display()),
        }
    }

    /// Objects that aren't at their paths any more if it works.
    fn takes_away(&self) -> impl Iterator<Item = &Path> {
        let (one, other) = match self {
            Self::Write(_) | Self::Create(_) => (None, None),
            Self::Delete(path) => (Some(path), None),
            Self::Rename(from, to) => (Some(from), Some(to)),
        };
        one.into_iter().chain(other).map(PathBuf::as_path)
    }

    /// What it comes to: each operation with its path. The strictest decides.
    fn parts(&self) -> Result<Vec<(Op, PathBuf)>> {
        let parent = |path: &Path| path.parent().map(Path::to_path_buf).context("no parent");
        Ok(match self {
            Self::Write(path) => vec![(Op::WRITE, path.clone())],
            // A file that an open makes is written to as well, and both are the directory's to decide.
            Self::Create(path) => vec![(Op::CREATE, parent(path)?), (Op::WRITE, parent(path)?)],
            Self::Delete(path) => vec![(Op::DELETE, path.clone())],
            Self::Rename(from, to) => {
                let mut parts = vec![(Op::RENAME, from.clone()), (Op::CREATE, parent(to)?)];
                if to.exists() {
                    parts.push((Op::DELETE, to.clone()));
                }
                parts
            }
        })
    }
}

/// Two of the three: the policy's definition, and its tables in user space.
struct Judge {
    policy: Policy,
    tables: Compiled,
}

impl Judge {
    fn new(text: &str) -> Result<Self> {
        let source = Source { name: "random.toml".to_owned(), text: text.to_owned() };
        let fail = |errors: Vec<policy::Diagnostic>| {
            let errors: Vec<String> = errors.iter().map(ToString::to_string).collect();
            anyhow::anyhow!("{}", errors.join("\n"))
        };
        let policy = policy::load(vec![source]).map_err(fail)?;
        let tables = policy::build(&policy, &HostFilesystem, &BTreeMap::new()).map_err(fail)?;
        Ok(Self { policy, tables })
    }

    /// What definition and tables say; they must agree about every part.
    fn says(&self, request: &Request) -> Result<Verdict> {
        let mut strictest = Verdict::ALLOW;
        for (op, path) in request.parts()? {
            let defined = oracle::file(&self.policy, &HostFilesystem, PROFILE, op, &path)
                .context("the oracle can't look")?
                .context("the oracle doesn't know the profile")?;
            let explained = explain_path(&self.tables, &HostFilesystem, PROFILE, op, &path)
                .with_context(|| format!("can't explain {} {}", op.name(), path.display()))?;
            let what = format!("tables and definition about {} {}", op.name(), path.display());
            same(&what, explained.verdict.as_str(), defined.verdict.name())?;
            same(&what, explained.policy.as_str(), defined.policy.name())?;
            same(&what, explained.source.as_str(), defined.source.name())?;
            same(&what, explained.rule.map(|rule| rule.line), defined.line)?;
            strictest = strictest.stricter(defined.verdict);
        }
        Ok(strictest)
    }

    /// Asks all three; answers the verdict that they agree on.
    fn ask(&self, request: &Request, guard: &mut Guard, inside: &mut Server) -> Result<Verdict> {
        let verdict = self.says(request)?;
        // Objects of rules stay for the whole round: the kernel's rule would go with the object, the
        // definition's stay with the path.
        if verdict.goes_on() && request.takes_away().any(|path| self.names(path)) {
            return Ok(verdict);
        }
        let mark = guard.events.mark()?;
        let answer = inside.ask(&request.line())?;
        same("the kernel's answer", answer.as_str(), if verdict.goes_on() { "ok" } else { "EPERM" })?;
        // Whatever isn't simply allowed is told, with that verdict.
        if verdict != Verdict::ALLOW {
            guard.events.wait(mark, verdict.name(), |event| event.judged(verdict.name()))?;
        }
        Ok(verdict)
    }

    /// Whether a rule or a scope is about that very path.
    fn names(&self, path: &Path) -> bool {
        let profiles = &self.policy.profiles;
        let rules = self.policy.critical.iter().chain(profiles.iter().flat_map(|profile| &profile.rules));
        let scopes = profiles.iter().flat_map(|profile| &profile.scope);
        rules.map(|rule| &rule.path).chain(scopes.map(|scope| &scope.path)).any(|named| named == path)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_policies_are_valid() {
        for seed in 0..300 {
            let text = text(&mut Random::new(seed)).unwrap();
            let source = Source { name: "random.toml".to_owned(), text: text.clone() };
            assert!(policy::load(vec![source]).is_ok(), "seed {seed}:\n{text}");
        }
    }
}
