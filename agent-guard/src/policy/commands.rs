//! From rules about commands to what the kernel reads commands with: numbers of programs, and one automaton for each profile.
//!
//! A command is read as one text: a byte for the program (which object it is, see [`Programs`]), then the arguments, each with
//! a zero byte at its end. A rule is a regular expression over that text; all of a profile together are made into one
//! deterministic automaton, each state of which knows the strictest rule that would be true if the text ended there. So
//! reading costs the same however many rules there are.
//!
//! The program counts by what it is called (the last component of `argv[0]`) and by what it is: the file that the rule's
//! program is found at now. What executes others itself counts as what it executes: the loader (`ld.so PROGRAM ARG...`)
//! and programs that have others built in (`busybox APPLET ARG...`).

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    path::{Path, PathBuf},
};

use agent_guard_common::{
    ObjectKey,
    rules::{CommandState, MAX_COMMAND_STATES, Slot},
};
use regex_automata::{
    Anchored, Input, MatchKind,
    dfa::{Automaton as _, StartKind, dense},
    nfa::thompson,
    util::{primitives::StateID, syntax},
};

use super::{
    diagnostic::Diagnostic,
    enroll,
    exec::{CommandPattern, Glob, Word},
    fs::Filesystem,
    model::{Policy, Profile},
    rules::Numbers,
};

/// Where programs are looked for by their names.
const DIRECTORIES: [&str; 7] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin", "/snap/bin"];

/// Loaders: programs that execute the one in their arguments.
const LOADERS: [&str; 6] = [
    "/lib64/ld-linux-x86-64.so.2",
    "/lib/ld-linux.so.2",
    "/lib/ld-linux-aarch64.so.1",
    "/lib/ld-musl-x86_64.so.1",
    "/lib/ld-musl-aarch64.so.1",
    "/libx32/ld-linux-x32.so.2",
];

/// Programs that have others built in.
const BOXES: [&str; 2] = ["busybox", "toybox"];

/// Bytes of an automaton while it is made, at most: more would be a mistake, or meant to exhaust memory.
const MAX_BYTES: usize = 16 << 20;

/// What the tables have of commands.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Commands {
    /// All states, by number; the first is dead. Empty if there are no rules.
    pub(super) states: Vec<CommandState>,
    /// The first state of the automaton that reads paths of control groups; 0 if none is enrolled.
    pub(super) enrollment: u32,
    /// The first state of each profile, in the order of the policy; 0 for those without rules.
    pub(super) first: Vec<u32>,
    /// Numbers of programs.
    pub(super) programs: BTreeMap<ObjectKey, u32>,
}

/// Makes the tables.
///
/// # Errors
///
/// Rules that need more states than there is room for, and too many programs.
pub(super) fn compile(policy: &Policy, fs: &dyn Filesystem) -> Result<Commands, Vec<Diagnostic>> {
    let mut commands = Commands { first: vec![0; policy.profiles.len()], ..Commands::default() };
    let (groups, standing) = enroll::expressions(policy);
    let rules = policy.profiles.iter().any(|profile| !profile.exec.rules.is_empty());
    if !rules && groups.is_empty() {
        return Ok(commands);
    }
    let programs = if rules { Programs::find(policy, fs)? } else { Programs::default() };
    commands.states.push(CommandState::DEAD);
    let mut numbers = Numbers::commands(policy);
    let mut mistakes = Vec::new();
    for (profile, first) in policy.profiles.iter().zip(&mut commands.first) {
        let rules = &profile.exec.rules;
        let slots: Vec<Slot> = rules.iter().map(|rule| Slot::new(rule.verdict, numbers.take())).collect();
        if slots.is_empty() {
            continue;
        }
        let patterns: Vec<_> = rules.iter().map(|rule| expression(&rule.command, &programs)).collect();
        match automaton(&patterns).and_then(|made| states(&made, &slots, &mut commands.states)) {
            Ok(state) => *first = state,
            Err(what) => mistakes.push(too_much(profile, &what)),
        }
    }
    if !groups.is_empty() {
        match automaton(&groups).and_then(|made| states(&made, &standing, &mut commands.states)) {
            Ok(state) => commands.enrollment = state,
            Err(what) => {
                let message = format!("no room for the control groups that are enrolled: {what}");
                let help = "use fewer of them, or fewer `*`";
                mistakes.extend(
                    policy.enroll.first().map(|entry| Diagnostic::error(&entry.origin, message).help(help)),
                );
            }
        }
    }
    commands.programs = programs.numbers;
    if mistakes.is_empty() { Ok(commands) } else { Err(mistakes) }
}

fn too_much(profile: &Profile, what: &str) -> Diagnostic {
    let message = format!("no room for the rules about commands of profile `{}`: {what}", profile.name);
    Diagnostic::error(&profile.origin, message)
        .help("use fewer `...` and `*` before the last words of a rule, or fewer rules that begin alike")
}

/// What a program is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
struct Roles {
    /// The names that rules know it by.
    names: BTreeSet<String>,
    /// A loader.
    loader: bool,
    /// One with others built in.
    others: bool,
}

/// The programs that rules are about, and those that execute others.
#[derive(Debug, Default)]
struct Programs {
    numbers: BTreeMap<ObjectKey, u32>,
    /// Roles by number, less 1.
    roles: Vec<Roles>,
}

impl Programs {
    fn find(policy: &Policy, fs: &dyn Filesystem) -> Result<Self, Vec<Diagnostic>> {
        let mut found: BTreeMap<ObjectKey, Roles> = BTreeMap::new();
        let rules = policy.profiles.iter().flat_map(|profile| &profile.exec.rules);
        let mut wanted: Vec<(PathBuf, Role)> = Vec::new();
        for rule in rules {
            let Some(name) = rule.command.program.literal() else { continue };
            match &rule.command.path {
                Some(path) => wanted.push((path.into(), Role::Path(name.to_owned()))),
                None => wanted.extend(in_path(name).map(|path| (path, Role::Name(name.to_owned())))),
            }
        }
        wanted.extend(LOADERS.map(|path| (path.into(), Role::Loader)));
        wanted.extend(BOXES.iter().flat_map(|name| in_path(name)).map(|path| (path, Role::Others)));
        let paths: Vec<_> = wanted.iter().map(|(path, _)| (path.clone(), true)).collect();
        for (object, (_, role)) in fs.lookup_all(&paths).into_iter().zip(wanted) {
            // What isn't there, or can't be looked at, counts by its name only.
            let Ok(object) = object else { continue };
            let roles = found.entry(object.key).or_default();
            match role {
                Role::Loader => roles.loader = true,
                Role::Others => roles.others = true,
                Role::Path(name) => drop(roles.names.insert(name)),
                Role::Name(name) if is_called(&object.path, &name) => drop(roles.names.insert(name)),
                Role::Name(_) => {}
            }
        }
        Self::number(found).map_err(|()| {
            let origin = policy.profiles.iter().find_map(|profile| Some(&profile.exec.rules.first()?.origin));
            let message = "rules about commands know more than 255 programs";
            origin.map(|origin| Diagnostic::error(origin, message.to_owned())).into_iter().collect()
        })
    }

    /// Gives a number to all that are the same to every rule.
    fn number(found: BTreeMap<ObjectKey, Roles>) -> Result<Self, ()> {
        let mut programs = Self::default();
        let mut numbers: HashMap<Roles, u32> = HashMap::new();
        for (key, roles) in found {
            if roles == Roles::default() {
                continue;
            }
            let number = match numbers.get(&roles) {
                Some(number) => *number,
                None => {
                    programs.roles.push(roles.clone());
                    let next = u8::try_from(programs.roles.len()).map_err(|_full| ())?;
                    numbers.insert(roles, next.into());
                    next.into()
                }
            };
            programs.numbers.insert(key, number);
        }
        Ok(programs)
    }

    /// A class of bytes for those that are something; nothing if there are none.
    fn class(&self, is: impl Fn(&Roles) -> bool) -> Option<String> {
        let mut class = String::from("[");
        for (number, _) in (1..=255_u8).zip(&self.roles).filter(|(_, roles)| is(roles)) {
            byte(&mut class, number);
        }
        class.push(']');
        (class.len() > 2).then_some(class)
    }
}

/// Why a path is looked up.
enum Role {
    Name(String),
    Path(String),
    Loader,
    Others,
}

/// Where a program of that name can be.
pub(super) fn in_path(name: &str) -> impl Iterator<Item = PathBuf> {
    DIRECTORIES.iter().map(move |directory| Path::new(directory).join(name))
}

/// Whether a file is the program of that name, perhaps of one version (`kubectl-1.29`, `python3.11`), and not another one that
/// has this name, too: one that does several things by its name.
fn is_called(path: &Path, name: &str) -> bool {
    let file = path.file_name().and_then(|file| file.to_str()).unwrap_or_default();
    file.strip_prefix(name).is_some_and(|rest| {
        rest.is_empty() || rest.starts_with(['-', '.']) || rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// One byte of a pattern.
fn byte(pattern: &mut String, byte: u8) {
    pattern.push_str(&format!("\\x{byte:02X}"));
}

/// Any bytes of an argument; any argument; the directory of a path.
const TEXT: &str = r"[^\x00]*";
const ARGUMENTS: &str = r"(?:[^\x00]*\x00)*";
const DIRECTORY: &str = r"(?:[^\x00]*/)?";
/// What a loader takes before its program: options, some of them with a value (`ld.so(8)`, and musl's).
const OPTIONS: &str = r"(?:--(?:argv0|library-path|preload|audit|inhibit-rpath|glibc-hwcaps-(?:prepend|mask))\x00[^\x00]*\x00|--[^\x00]*\x00)*";
/// Any program.
const ANY: &str = r"[\x00-\xFF]";

/// A text with stars, each of which stands for any of `star`.
fn glob(pattern: &mut String, glob: &Glob, star: &str) {
    for (at, part) in glob.parts().enumerate() {
        if at > 0 {
            pattern.push_str(star);
        }
        part.bytes().for_each(|one| byte(pattern, one));
    }
}

/// The regular expression of a rule.
fn expression(command: &CommandPattern, programs: &Programs) -> String {
    let mut name = String::new();
    glob(&mut name, &command.program, r"[^\x00/]*");
    let mut ways = vec![format!("{ANY}{DIRECTORY}{name}")];
    if let Some(class) =
        command.program.literal().and_then(|literal| programs.class(|roles| roles.names.contains(literal)))
    {
        ways.push(format!("{class}{TEXT}"));
    }
    let loader = format!(r"{ANY}{DIRECTORY}ld(?:-[^\x00/]*)?\.so(?:\.[^\x00/]*)?");
    let others = format!("{ANY}{DIRECTORY}(?:{})", BOXES.join("|"));
    let class = |is: fn(&Roles) -> bool| programs.class(is).map(|class| format!("{class}{TEXT}"));
    for loader in [Some(loader), class(|roles| roles.loader)].into_iter().flatten() {
        ways.push(format!(r"{loader}\x00{OPTIONS}{DIRECTORY}{name}"));
    }
    for others in [Some(others), class(|roles| roles.others)].into_iter().flatten() {
        ways.push(format!(r"{others}\x00{DIRECTORY}{name}"));
    }
    let mut pattern = format!(r"(?:{})\x00", ways.join("|"));
    for word in &command.arguments {
        match word {
            Word::Any => pattern.push_str(ARGUMENTS),
            Word::One(text) => {
                glob(&mut pattern, text, TEXT);
                pattern.push_str(r"\x00");
            }
        }
    }
    pattern
}

type Dfa = dense::DFA<Vec<u32>>;

/// All of these expressions as one automaton.
fn automaton(patterns: &[String]) -> Result<Dfa, String> {
    let config = dense::Config::new()
        .match_kind(MatchKind::All)
        .start_kind(StartKind::Anchored)
        .dfa_size_limit(Some(MAX_BYTES))
        .determinize_size_limit(Some(MAX_BYTES));
    dense::Builder::new()
        .configure(config)
        .syntax(syntax::Config::new().unicode(false).utf8(false))
        .thompson(thompson::Config::new().utf8(false).nfa_size_limit(Some(MAX_BYTES)))
        .build_many(patterns)
        .map_err(|error| error.to_string())
}

/// Adds the states of an automaton to the others; the number of its first one.
fn states(made: &Dfa, rules: &[Slot], all: &mut Vec<CommandState>) -> Result<u32, String> {
    let full = || format!("they need more than {MAX_COMMAND_STATES} states");
    let start = made
        .start_state_forward(&Input::new(b"").anchored(Anchored::Yes))
        .map_err(|error| error.to_string())?;
    let mut known: HashMap<StateID, u16> = HashMap::new();
    let mut waiting = VecDeque::from([start]);
    let base = all.len();
    known.insert(start, u16::try_from(base).map_err(|_full| full())?);
    while let Some(state) = waiting.pop_front() {
        let mut row = CommandState { rule: rule_at(made, state, rules), next: [0; 256] };
        for (byte, next) in (0..=255_u8).zip(&mut row.next) {
            let to = made.next_state(state, byte);
            if made.is_dead_state(to) {
                continue;
            }
            let number = base + known.len();
            let number = u16::try_from(number).map_err(|_full| full());
            *next = match known.get(&to) {
                Some(number) => *number,
                None => {
                    waiting.push_back(to);
                    *known.entry(to).or_insert(number?)
                }
            };
        }
        all.push(row);
    }
    u32::try_from(base).map_err(|_full| full())
}

/// The strictest of the rules that are true if the text ends here.
fn rule_at(made: &Dfa, state: StateID, rules: &[Slot]) -> Slot {
    let end = made.next_eoi_state(state);
    if !made.is_match_state(end) {
        return Slot::NONE;
    }
    let matches = (0..made.match_len(end)).map(|at| made.match_pattern(end, at).as_usize());
    matches.filter_map(|at| rules.get(at)).fold(Slot::NONE, |slot, rule| slot.stricter(*rule))
}

#[cfg(test)]
mod tests;
