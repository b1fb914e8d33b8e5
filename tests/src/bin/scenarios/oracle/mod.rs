//! The policy as it is defined, and the kernel: random policies about random files, to which random things are done then,
//! and random questions get the same answers from both. That the tables say the same is what the unit tests try, with the
//! same cases.
//!
//! Each case makes its files at [`asks::BASE`], loads its policy into the daemon that runs, and has a session try what is
//! asked. Every attempt that is denied is made outside of a session, too, where it must work.

mod asks;
mod real;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use agent_guard::policy::case::{self, BINDING, Case, KEPT, Line, PROFILE};
use agent_guard::policy::oracle::Oracle;
use agent_guard::policy::{self, Filesystem, Policy, SessionPaths, Source, session};
use anyhow::{Context, Result, bail};

use crate::Scenario;
use crate::fixture::guard::{PROGRAM, free_system};
use crate::fixture::{Guard, Server, attack, same, world};
use asks::{Attempt, FREE};
use real::{Both, Disks, Variables};

pub(crate) const SCENARIOS: &[Scenario] = &[Scenario::direct(
    "oracle_kernel",
    "the policy as it is defined and the kernel agree about random files",
    oracle_kernel,
)
.on("6.12")];

/// Another one with `AGENT_GUARD_TEST_SEED`.
const SEED: u64 = 20_251_213;
/// As many questions are asked of a kernel.
const QUESTIONS: u32 = 10_000;
/// What is tried to make a case that fails smaller.
const TRIES: u32 = 150;
const PATIENCE: Duration = Duration::from_secs(150);
/// What programs need to start. It isn't among a case's files.
const PROGRAMS: [&str; 7] = ["/usr", "/opt", "/etc", "/var", "/dev", "/proc", "/sys"];

fn oracle_kernel() -> Result<()> {
    let seed: u64 = match std::env::var("AGENT_GUARD_TEST_SEED") {
        Ok(text) => text.parse().context("AGENT_GUARD_TEST_SEED is no number")?,
        Err(_) => SEED,
    };
    let mut lab = Lab::new()?;
    for (name, text) in KEPT {
        let case: Case =
            text.parse().map_err(anyhow::Error::msg).with_context(|| format!("{name} is no case"))?;
        lab.agrees(&case).with_context(|| format!("{name}, which has failed once"))?;
    }
    let kept = lab.counts.clone();
    let begin = Instant::now();
    let mut cases = 0;
    while lab.asked() < QUESTIONS {
        anyhow::ensure!(cases < 2000, "after {cases} cases there were {} questions only", lab.asked());
        let number = seed.wrapping_add(cases);
        lab.agrees(&asks::random(number)).with_context(|| format!("the case with the seed {number}"))?;
        cases += 1;
        if cases % 10 == 0 {
            eprintln!("oracle_kernel: {cases} cases, {} s", begin.elapsed().as_secs());
        }
    }
    eprintln!(
        "oracle_kernel: seed {seed}, {} kept and {cases} random cases in {} s; kept {kept:?}, all {:?}",
        KEPT.len(),
        begin.elapsed().as_secs(),
        lab.counts
    );
    eprintln!("oracle_kernel: milliseconds {:?}", lab.spent);
    for what in ["policy refused", "refused by the kernel only", "sessions with variables"] {
        eprintln!("oracle_kernel: {what}: {}", lab.notes.get(what).copied().unwrap_or(0));
    }
    for op in agent_guard_common::Op::FILE {
        for answer in ["goes on", "denied"] {
            let count = lab.counts.get(&(op.name(), answer)).copied().unwrap_or(0);
            anyhow::ensure!(count > 0, "{} {answer} came up {count} times", op.name());
        }
    }
    lab.stop()
}

/// Two answers to a question.
struct Disagreement {
    line: Line,
    why: String,
}

/// A daemon, disks, and processes.
struct Lab {
    guard: Guard,
    disks: Disks,
    outside: Server,
    /// In a session that has no directories of its own. It serves all cases that say nothing of those.
    plain: Server,
    /// Questions by operation and answer.
    counts: BTreeMap<(&'static str, &'static str), u32>,
    notes: BTreeMap<&'static str, u32>,
    /// Milliseconds by what they were spent on.
    spent: BTreeMap<&'static str, u128>,
}

/// A process in a session of the cases' profile.
fn inside(directory: &Path) -> Result<Server> {
    let mut command = Command::new(PROGRAM);
    command.args(["run", "--profile", PROFILE, "--"]).arg(attack()?).arg("serve").current_dir(directory);
    Server::start(command, "inside")
}

/// The policy of a case, and what programs and attempts need.
fn policy_of(case: &Case) -> String {
    let mut text = case.policy() + &free_system(PROFILE);
    let mut rule = |path: &str, ops: &[&str]| {
        text += &format!(
            "[[profile.{PROFILE}.files.rule]]\npath = {path:?}\nops = {ops:?}\nverdict = \"allow\"\n"
        );
    };
    PROGRAMS.iter().for_each(|path| rule(path, &["read", "execute", "write"]));
    rule(FREE, &["create", "delete"]);
    text
}

impl Lab {
    fn new() -> Result<Self> {
        real::clear()?;
        std::fs::create_dir_all(world::WORK).context("can't create the working directory")?;
        let disks = Disks::new()?;
        let guard = Guard::start(&policy_of(&Case::default()))?;
        let (outside, plain) = (Server::outside()?, inside(Path::new(world::WORK))?);
        Ok(Self {
            guard,
            disks,
            outside,
            plain,
            counts: BTreeMap::new(),
            notes: BTreeMap::new(),
            spent: BTreeMap::new(),
        })
    }

    fn stop(self) -> Result<()> {
        drop((self.plain, self.outside));
        real::clear()?;
        self.guard.stop()
    }

    fn asked(&self) -> u32 {
        self.counts.values().sum()
    }

    fn note(&mut self, what: &'static str, count: u32) {
        *self.notes.entry(what).or_default() += count;
    }

    /// Runs a case, and if it fails looks for the smallest that does.
    fn agrees(&mut self, case: &Case) -> Result<()> {
        let Some(Disagreement { line, why }) = self.run(case)? else { return Ok(()) };
        eprintln!("oracle_kernel: {line}: {why}; this is made smaller:\n{case}");
        let others = |other: &&Line| !matches!(other, Line::Ask(..)) || **other == line;
        let single = Case(case.0.iter().filter(others).cloned().collect());
        let lab = std::cell::RefCell::new((self, 0, String::new()));
        let begin = Instant::now();
        let fails = |case: &Case| {
            let mut lab = lab.borrow_mut();
            lab.1 += 1;
            if lab.1 > TRIES || begin.elapsed() > PATIENCE {
                return false;
            }
            let found = match lab.0.run(case) {
                Ok(Some(found)) => Some(format!("{}: {}", found.line, found.why)),
                Ok(None) => None,
                // Something else than what is looked for.
                Err(error) => {
                    eprintln!("oracle_kernel: {error:#}");
                    None
                }
            };
            found.map(|found| lab.2 = found).is_some()
        };
        let smallest = if fails(&single) { single.smallest(fails) } else { case.clone() };
        let told = lab.into_inner().2;
        bail!("{line}: {why}; made smaller ({told}):\n{smallest}{}", smallest.policy())
    }

    /// Runs a case. What the policy's reader, the model or the kernel refuses is left out.
    fn run(&mut self, case: &Case) -> Result<Option<Disagreement>> {
        let text = policy_of(case);
        let clock = Instant::now();
        let source = Source { name: "case.toml".to_owned(), text: text.clone() };
        let policy = policy::load(vec![source]).map_err(|errors| anyhow::anyhow!("no policy: {errors:?}"))?;
        let mut both = Both::new(&mut self.disks)?;
        let at = case.0.iter().position(|line| *line == Line::Load).unwrap_or(case.0.len());
        let (before, after) = case.0.split_at(at);
        before.iter().chain(&asks::free()).for_each(|line| both.apply(line));
        let paths = session_paths(case, &both);
        let sessions = std::slice::from_ref(&paths);
        if policy::build(&policy, &both.world, &BTreeMap::new(), case::KEY, sessions).is_err() {
            self.note("policy refused", 1);
            return Ok(None);
        }
        let oracle =
            Oracle::load(&policy, &both.world, &paths).context("the oracle can't load the policy")?;
        let oracle = oracle.context("the oracle doesn't know the profile")?;
        let (begun, reloaded) = (clock.elapsed().as_millis(), Instant::now());
        self.guard.reload(&text).context("the daemon refuses what the tables can be made of")?;
        let (reload, started) = (reloaded.elapsed().as_millis(), Instant::now());
        let mut own = own_session(&policy, &paths)?;
        let (start, asked) = (started.elapsed().as_millis(), Instant::now());
        let mut tried = Tried {
            counts: &mut self.counts,
            outside: &mut self.outside,
            inside: own.as_mut().map_or(&mut self.plain, |(worker, _)| worker),
        };
        for lines in after.chunk_by(|one, other| is_ask(one) && is_ask(other)) {
            if !lines.iter().all(is_ask) {
                lines.iter().for_each(|line| both.apply(line));
            } else if let Some(found) = tried.ask(&oracle, &both, lines)? {
                return Ok(Some(found));
            }
        }
        let (refused, variables) = (both.refused, u32::from(own.is_some()));
        drop(own);
        for (what, spent) in [
            ("files", begun),
            ("reload", reload),
            ("session", start),
            ("questions", asked.elapsed().as_millis()),
        ] {
            *self.spent.entry(what).or_default() += spent;
        }
        self.note("refused by the kernel only", refused);
        self.note("sessions with variables", variables);
        Ok(None)
    }
}

fn is_ask(line: &Line) -> bool {
    matches!(line, Line::Ask(..))
}

/// What a case's variables stand for: directories that there are.
fn session_paths(case: &Case, both: &Both<'_>) -> SessionPaths {
    let wanted = case.session();
    let there = |path: &Path| match both.world.lookup(path, true) {
        Ok(object) if object.directory => object.path,
        _ => FREE.into(),
    };
    let home = wanted.home.unwrap_or_else(|| FREE.into());
    SessionPaths {
        profile: PROFILE.to_owned(),
        binding: BINDING,
        cwd: there(&wanted.cwd),
        home: Some(there(&home)),
        tmp: there(&wanted.tmp),
    }
}

/// A process in a session of its own, if the policy says anything of a session's directories.
fn own_session(policy: &Policy, paths: &SessionPaths) -> Result<Option<(Server, Variables)>> {
    let profile = policy.profile(PROFILE).context("the policy has no profile")?;
    if !session::needs_session_paths(profile) {
        return Ok(None);
    }
    let home = paths.home.as_deref().context("no home")?;
    let links = Variables::new(home, &paths.tmp)?;
    Ok(Some((inside(&paths.cwd)?, links)))
}

/// Who is asked.
struct Tried<'a> {
    counts: &'a mut BTreeMap<(&'static str, &'static str), u32>,
    inside: &'a mut Server,
    outside: &'a mut Server,
}

impl Tried<'_> {
    /// Asks some questions, between which nothing changes.
    fn ask(&mut self, oracle: &Oracle<'_>, both: &Both<'_>, lines: &[Line]) -> Result<Option<Disagreement>> {
        let mut all: Vec<(&Line, &'static str, Attempt, Expected)> = Vec::new();
        for line in lines {
            let Line::Ask(op, path) = line else { continue };
            let Some(attempt) = Attempt::of(&both.world, *op, path) else { continue };
            if all.iter().any(|(.., known, _)| known.line == attempt.line) {
                continue;
            }
            let Some(expected) = Expected::of(oracle, both, &attempt) else { continue };
            all.push((line, op.name(), attempt, expected));
        }
        // What is made would be in the way of the rest.
        all.sort_by_key(|(.., attempt, _)| attempt.makes.is_some());
        let attempts: Vec<&Attempt> = all.iter().map(|(.., attempt, _)| attempt).collect();
        let answers = try_all(self.inside, &attempts)?;
        let (mut denied, mut found) = (Vec::new(), None);
        for ((line, op, attempt, expected), answer) in all.iter().zip(answers) {
            let wanted = if expected.goes_on { attempt.outcome } else { "EPERM" };
            if answer != wanted && found.is_none() {
                let why = format!(
                    "{} ends in {answer} instead of {wanted}; the definition says {}",
                    attempt.line, expected.said
                );
                found = Some(Disagreement { line: (*line).clone(), why });
            }
            if answer == "EPERM" {
                denied.push(attempt);
            }
            let what = if expected.goes_on { "goes on" } else { "denied" };
            *self.counts.entry((op, what)).or_default() += 1;
        }
        let outside = try_all(self.outside, &denied)?;
        for (attempt, answer) in denied.iter().zip(outside) {
            same(&format!("outside: {}", attempt.line), answer.as_str(), attempt.outcome)?;
        }
        Ok(found)
    }
}

/// Makes attempts, and takes back what they have made: before the next one, which may be about the same directory by
/// another path.
fn try_all(server: &mut Server, attempts: &[&Attempt]) -> Result<Vec<String>> {
    let mut answers = Vec::new();
    for some in attempts.chunk_by(|one, other| one.makes.is_none() && other.makes.is_none()) {
        let lines: Vec<&str> = some.iter().map(|attempt| attempt.line.as_str()).collect();
        server.send(&lines.join("\n"))?;
        for attempt in some {
            let answer = server.answer().with_context(|| attempt.line.clone())?;
            if let (Some(made), "ok") = (&attempt.makes, answer.as_str()) {
                real::take_back(made)?;
            }
            answers.push(answer);
        }
    }
    Ok(answers)
}

/// What must come of an attempt.
struct Expected {
    goes_on: bool,
    /// Why, for people.
    said: String,
}

impl Expected {
    /// None if the oracle can't look.
    fn of(oracle: &Oracle<'_>, both: &Both<'_>, attempt: &Attempt) -> Option<Self> {
        let (mut goes_on, mut said) = (true, Vec::new());
        for (op, path) in &attempt.parts {
            let path: &PathBuf = path;
            let answer = oracle.judge(&both.world, *op, path).ok()?;
            goes_on &= answer.verdict.goes_on();
            let line = answer.line.map(|line| format!(", line {line}")).unwrap_or_default();
            said.push(format!("{} ({}{line}) of {}", answer.verdict.name(), answer.source.name(), op.name()));
        }
        Some(Self { goes_on, said: said.join(", ") })
    }
}
