//! `[[enroll]]`: what becomes part of a session by itself.
//!
//! Programs (`exe`) are named by paths, like everything else that is a file: the rules become those of a profile of their own
//! ([`agent_guard_common::enroll::PROFILE`]). Users and control groups have standing sessions, one for each user and each
//! pattern; the patterns become an automaton that reads the paths of control groups.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use agent_guard_common::{
    Op, Verdict,
    decide::{self, Command},
    enroll::{MAX_STANDING, PROFILE},
    rules::{Profile as Entry, Slot, Tables},
};
use toml::de::DeTable;

use super::{
    check::Checker,
    diagnostic::Diagnostic,
    exec::Glob,
    model::{Base, FileRule, Form, Origin, PathPattern, Policy, Profile},
    parse::{Keys, Value},
    session::needs_session_paths,
    tables::Compiled,
};

const ENROLL: Keys =
    Keys { place: "`enroll`", known: &["exe", "user", "unit", "cgroup", "profile", "cwd"], later: &[] };

/// What says who is enrolled.
const BY: [(&str, By); 4] =
    [("exe", By::Exe), ("user", By::User), ("unit", By::Unit), ("cgroup", By::Cgroup)];

/// What an entry goes by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum By {
    /// `exe`: the program. Each that is executed has a session of its own.
    Exe,
    /// `user`: the real user.
    User,
    /// `unit`: the name of a control group, wherever it is.
    Unit,
    /// `cgroup`: the path of a control group.
    Cgroup,
}

impl By {
    /// The key of the policy.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exe => "exe",
            Self::User => "user",
            Self::Unit => "unit",
            Self::Cgroup => "cgroup",
        }
    }
}

/// An entry of `[[enroll]]`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Enroll {
    /// Name of the profile that sessions have.
    pub profile: String,
    /// `${cwd}` of standing sessions, where that isn't the user's home directory.
    pub cwd: Option<PathBuf>,
    /// What it goes by.
    pub by: By,
    /// Who: at least one.
    pub targets: Vec<Target>,
    /// Where it stands.
    pub origin: Origin,
}

/// Who is enrolled: one rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Target {
    /// As the policy has it.
    pub text: String,
    /// Where it stands.
    pub origin: Origin,
    /// For programs the path, as a rule about files.
    pub rule: Option<FileRule>,
    /// The number of the standing session; 0 for programs.
    pub number: u32,
}

impl Enroll {
    /// What a target's standing session is known by, also under another policy.
    #[must_use]
    pub fn key(&self, target: &Target) -> String {
        format!("{} {}", self.by.name(), target.text)
    }
}

impl Policy {
    /// Everybody who is enrolled, in the order of the rules, with the entry.
    pub fn enrolled(&self) -> impl Iterator<Item = (&Enroll, &Target)> {
        self.enroll.iter().flat_map(|entry| entry.targets.iter().map(move |target| (entry, target)))
    }

    /// Whether anything is enrolled by what it executes.
    #[must_use]
    pub fn enrolls_programs(&self) -> bool {
        self.enroll.iter().any(|entry| entry.by == By::Exe)
    }

    /// Whether control groups are enrolled.
    #[must_use]
    pub fn enrolls_groups(&self) -> bool {
        self.enroll.iter().any(|entry| matches!(entry.by, By::Unit | By::Cgroup))
    }

    /// Gives numbers to standing sessions: those that they have had (by [`Enroll::key`]), else ones that are free.
    ///
    /// # Errors
    ///
    /// If there are more than [`MAX_STANDING`] allows.
    pub fn number_standing(&mut self, had: &BTreeMap<String, u32>) -> Result<(), Diagnostic> {
        let mut taken: BTreeSet<u32> = had.values().copied().collect();
        for entry in &mut self.enroll {
            let (by, profile) = (entry.by, &entry.profile);
            for target in entry.targets.iter_mut().filter(|target| target.rule.is_none()) {
                let key = format!("{} {}", by.name(), target.text);
                let free = || (1..MAX_STANDING).find(|number| !taken.contains(number));
                let Some(number) = had.get(&key).copied().or_else(free) else {
                    let message = format!("no room to enroll `{key}` into `{profile}`");
                    return Err(Diagnostic::error(&target.origin, message).help(format!(
                        "users and control groups can be {} together, with those whose sessions still run",
                        MAX_STANDING - 1
                    )));
                };
                taken.insert(number);
                target.number = number;
            }
        }
        Ok(())
    }
}

/// What the tables say of whoever isn't in a session.
pub(super) fn entry(policy: &Policy, commands: u32) -> Entry {
    let any = if policy.enroll.is_empty() { 0 } else { Op::ENROLL.mask() };
    let programs = if policy.enrolls_programs() { Op::CONNECT.mask() } else { 0 };
    Entry {
        flags: Entry::PRESENT,
        connect: Verdict::ALLOW.0,
        anonymous: Verdict::ALLOW.0,
        judged: any | programs,
        outside: [Verdict::ALLOW.0; Op::COUNT],
        system: [Verdict::ALLOW.0; Op::SYSTEM_COUNT],
        commands,
        ..Entry::default()
    }
}

/// The expressions of control groups, each with what it decides: the number of the standing session, in the place of a
/// rule's.
pub(super) fn expressions(policy: &Policy) -> (Vec<String>, Vec<Slot>) {
    let groups = policy.enrolled().filter(|(entry, _)| matches!(entry.by, By::Unit | By::Cgroup));
    groups
        .map(|(entry, target)| {
            let slot = Slot::new(Verdict::REPORT, target.number);
            (expression(entry.by, &target.text), slot)
        })
        .unzip()
}

/// The regular expression of a control group and all below. It begins with the byte that is a program's number elsewhere.
fn expression(by: By, text: &str) -> String {
    let mut pattern = String::from(r"\x00");
    if by == By::Unit {
        pattern.push_str("(?:/[^/]+)*/");
    }
    for (at, part) in Glob(text.to_owned()).parts().enumerate() {
        if at > 0 {
            pattern.push_str("[^/]*");
        }
        part.bytes().for_each(|byte| pattern.push_str(&format!("\\x{byte:02X}")));
    }
    pattern.push_str("(?:/.*)?");
    pattern
}

impl Compiled {
    /// The number of the standing session of a control group, by its path in the unified hierarchy.
    #[must_use]
    pub fn standing_of(&self, path: &str) -> Option<u32> {
        let mut command = Command::begin(self, PROFILE, 0).ok()?;
        for byte in path.bytes() {
            if !command.goes_on() {
                return None;
            }
            command.read(self, byte).ok()?;
        }
        let rule = self.command(command.state)?.rule;
        let decision = decide::command(self, PROFILE, command, false).ok()?;
        (rule.is_some() && command.goes_on()).then_some(decision.rule)
    }
}

impl Checker<'_> {
    /// Reads `[[enroll]]`.
    pub(super) fn enroll(&mut self, value: &Value<'_>) -> Vec<Enroll> {
        let tables = self.report.tables(value, "enroll");
        tables.into_iter().filter_map(|(table, span)| self.enroll_one(table, &span)).collect()
    }

    fn enroll_one(&mut self, table: &DeTable<'_>, span: &std::ops::Range<usize>) -> Option<Enroll> {
        self.report.keys(table, &ENROLL);
        let profile = self.required(table, span, "profile").and_then(|value| {
            let name = self.report.string(value, "`profile`")?;
            Some((name.to_owned(), self.report.origin(&value.span())))
        });
        let mut by = BY.into_iter().filter_map(|(key, by)| Some((by, table.get(key)?)));
        let Some((by, value)) = by.next() else {
            self.report.error_help(
                span,
                "`enroll` says neither `exe` nor `user`, `unit` or `cgroup`",
                "say what becomes a session: exe = [\"/usr/local/bin/claude\"]",
            );
            return None;
        };
        if let Some((_, more)) = BY.iter().filter_map(|(key, by)| Some((by, table.get(*key)?))).nth(1) {
            self.report.error_help(
                &more.span(),
                format!("`enroll` goes by `{}` already", by.name()),
                "write another [[enroll]]",
            );
        }
        let cwd = table.get("cwd").and_then(|value| self.directory(value, by));
        let entries = self.report.array(value, by.name());
        if entries.is_empty() && value.get_ref().is_array() {
            self.report.error(&value.span(), format!("`{}` is empty, so nothing is enrolled", by.name()));
        }
        let targets: Vec<_> = entries.iter().filter_map(|entry| self.target(entry, by)).collect();
        let (profile, origin) = profile?;
        (!targets.is_empty()).then_some(Enroll { profile, cwd, by, targets, origin })
    }

    fn directory(&mut self, value: &Value<'_>, by: By) -> Option<PathBuf> {
        let text = self.report.string(value, "`cwd`")?;
        let path = Path::new(text);
        let plain = path.is_absolute()
            && path.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
        if by == By::Exe {
            self.report.error_help(
                &value.span(),
                "`cwd` is for standing sessions: a program's is the directory that it is executed in",
                "remove it",
            );
        } else if !plain {
            self.report
                .error(&value.span(), format!("`cwd` must be an absolute path without `..`, not {text:?}"));
        }
        plain.then(|| path.to_owned())
    }

    fn target(&mut self, value: &Value<'_>, by: By) -> Option<Target> {
        let text = self.report.string(value, &format!("an entry of `{}`", by.name()))?.to_owned();
        let origin = self.report.origin(&value.span());
        let mut rule = None;
        let wrong = match by {
            By::Exe => {
                let path = self.path(value, "an entry of `exe`")?;
                let wrong = unusable(&path);
                let reason = Some("it becomes a session".to_owned());
                rule = Some(FileRule {
                    path,
                    ops: vec![Op::CONNECT],
                    verdict: Verdict::REPORT,
                    reason,
                    origin: origin.clone(),
                });
                wrong
            }
            By::User if text == "root" || text == "0" => Some((
                "root can't be enrolled",
                "the guard runs as root; enroll the unit or the program instead",
            )),
            By::User if text.is_empty() || text.contains(char::is_whitespace) => {
                Some(("no user has such a name", "write the name of a user, or the number"))
            }
            By::Unit if !is_unit(&text) => Some((
                "it is not the name of a unit",
                "write it as systemd does, with its ending: `actions-runner@*.service`",
            )),
            By::Cgroup if !is_cgroup(&text) => Some((
                "it is not the path of a control group",
                "write the path below /sys/fs/cgroup: `/kubepods/*`",
            )),
            _ => None,
        };
        if let Some((what, help)) = wrong {
            self.report.error_help(&value.span(), format!("{text:?}: {what}"), help);
            return None;
        }
        Some(Target { text, origin, rule, number: 0 })
    }
}

/// Why programs can't be enrolled by a path.
fn unusable(path: &PathPattern) -> Option<(&'static str, &'static str)> {
    let help = "name the program, or the directory that has it: `/usr/local/bin/claude`, `/home/*/.local/bin/claude`";
    match &path.form {
        Form::Below(Base::Root, parts) if parts.is_empty() => Some(("everything would be enrolled", help)),
        Form::Below(Base::Root, _) => None,
        Form::Below(..) => Some(("variables are what sessions have, and there is none yet", help)),
        Form::Anywhere(_) | Form::Ending(_) => Some(("it may be anywhere", help)),
    }
}

fn is_unit(text: &str) -> bool {
    let ending = [".service", ".scope", ".slice"].iter().any(|ending| text.ends_with(ending));
    ending
        && text != "-.slice"
        && !text.starts_with('.')
        && !text.contains(['/', '\0', '\n'])
        && text.is_ascii()
}

fn is_cgroup(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('/') else { return false };
    !rest.contains(['\0', '\n'])
        && rest.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
}

/// What an `[[enroll]]` says that no single source can tell.
pub(super) fn mistakes(policy: &Policy) -> Vec<Diagnostic> {
    let mut mistakes = Vec::new();
    let mut seen: BTreeMap<String, &Origin> = BTreeMap::new();
    for (entry, target) in policy.enrolled() {
        if let Some(first) = seen.insert(entry.key(target), &target.origin) {
            let message = format!("`{}` is enrolled already at {first}", entry.key(target));
            mistakes.push(Diagnostic::error(&target.origin, message).help("remove one of them"));
        }
    }
    for entry in &policy.enroll {
        match policy.profile(&entry.profile) {
            None => {
                let message = format!("there is no profile `{}`", entry.profile);
                let names: Vec<_> = policy.profiles.iter().map(|profile| profile.name.as_str()).collect();
                let help = super::parse::suggest(&entry.profile, names.iter().copied());
                let help = help.unwrap_or_else(|| format!("profiles are {}", super::parse::list(&names)));
                mistakes.push(Diagnostic::error(&entry.origin, message).help(help));
            }
            Some(profile) => mistakes.extend(without_paths(entry, profile)),
        }
    }
    mistakes
}

/// A control group has no home directory, and no directory that it was started in.
fn without_paths(entry: &Enroll, profile: &Profile) -> Option<Diagnostic> {
    if !matches!(entry.by, By::Unit | By::Cgroup) || !needs_session_paths(profile) {
        return None;
    }
    let paths =
        profile.scope.iter().map(|scope| &scope.path).chain(profile.rules.iter().map(|rule| &rule.path));
    let uses = |base| paths.clone().any(|path| matches!(&path.form, Form::Below(of, _) if *of == base));
    let (what, help) = if uses(Base::Home) {
        ("${home}", "use another profile, which names the directories, or enroll the user")
    } else if uses(Base::Cwd) && entry.cwd.is_none() {
        ("${cwd}", "say it in this [[enroll]]: cwd = \"/srv/build\"")
    } else {
        return None;
    };
    let message = format!("profile `{}` uses `{what}`, which a control group doesn't have", profile.name);
    Some(Diagnostic::error(&entry.origin, message).help(help))
}

#[cfg(test)]
mod tests;
