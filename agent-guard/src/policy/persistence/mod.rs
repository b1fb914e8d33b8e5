//! `files.persistence`: what a profile says of everything that makes something run later, whoever's it is, also where
//! there is nothing yet.
//!
//! The set ([`set`]) becomes rules of the profile, like those that an operator writes: critical ones come first, the deepest
//! path decides, among equals the strictest. They make nothing milder than it is without them ([`Persistence::least`]), and
//! `allow` is no rules.

use std::path::{Path, PathBuf};

use agent_guard_common::{Op, Verdict};
use toml::de::DeTable;

use super::{
    check::Checker,
    diagnostic::Diagnostic,
    model::{Base, FileRule, Form, Origin, Part, PathPattern, Policy, Profile},
    parse, paths,
    protected::BUILT_IN,
};
use set::GROUPS;

mod set;

/// Operations that the set is about.
pub(super) const OPS: [Op; 5] = [Op::WRITE, Op::CREATE, Op::DELETE, Op::RENAME, Op::METADATA];
/// Verdicts that it can have.
const VERDICTS: [Verdict; 4] = [Verdict::DENY, Verdict::HOLD, Verdict::REPORT, Verdict::ALLOW];
/// Where home directories are, of users that there are and of others.
const HOMES: [&str; 2] = ["/home/*", "/root"];

/// `files.persistence` of a profile.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Persistence {
    /// What happens.
    pub verdict: Verdict,
    /// Where the policy says so; the built-in origin if it doesn't.
    pub origin: Origin,
    /// Its rules.
    pub rules: Vec<FileRule>,
}

impl Default for Persistence {
    /// Nothing may be made to run later.
    fn default() -> Self {
        let origin = Origin { file: BUILT_IN.to_owned(), line: 0, column: 0 };
        Self { verdict: Verdict::DENY, origin, rules: Vec::new() }
    }
}

impl Policy {
    /// Makes the rules of every profile's `persistence`, for these home directories besides those in `/home` and `/root`.
    /// Returns those that no rule can name.
    pub fn persist(&mut self, homes: &[PathBuf]) -> Vec<PathBuf> {
        let (known, unusable): (Vec<_>, Vec<_>) =
            homes.iter().filter(|home| !usual(home)).cloned().partition(|home| is_plain(home));
        let set = set_for(&known);
        self.homes = known;
        for profile in &mut self.profiles {
            let rules = set.iter().flat_map(|pattern| pattern.rules(profile)).collect();
            profile.persistence.rules = rules;
        }
        unusable
    }

    /// Whether the set names what is in a home directory without a variable.
    pub(super) fn knows_home(&self, home: &Path) -> bool {
        usual(home) || self.homes.iter().any(|known| known == home)
    }
}

/// Whether it is where home directories usually are.
fn usual(home: &Path) -> bool {
    home == Path::new("/root") || home.parent() == Some(Path::new("/home"))
}

/// Whether rules can name a home directory.
fn is_plain(home: &Path) -> bool {
    let path = home.to_str().and_then(|text| paths::parse(text).ok());
    path.is_some_and(|path| match path.form {
        Form::Below(base, parts) => !base.is_variable() && !parts.contains(&Part::Any),
        _ => false,
    })
}

/// A path of the set.
#[derive(Debug)]
struct Pattern {
    path: PathPattern,
    /// Below a home directory.
    home: bool,
    reason: &'static str,
}

/// The whole set.
fn set_for(homes: &[PathBuf]) -> Vec<Pattern> {
    let homes: Vec<&str> = HOMES
        .into_iter()
        .chain(homes.iter().filter_map(|home| home.to_str()))
        .chain([Base::Home.text()])
        .collect();
    let mut set = Vec::new();
    for group in GROUPS {
        let mut add = |text: &str, home| {
            // A test parses all of them.
            set.extend(paths::parse(text).ok().map(|path| Pattern { path, home, reason: group.reason }));
        };
        group.host.iter().chain(group.anywhere).for_each(|text| add(text, false));
        for home in &homes {
            group.home.iter().for_each(|name| add(&format!("{}/{name}", home.trim_end_matches('/')), true));
        }
    }
    set
}

impl Pattern {
    /// The rules of a profile about it: one, unless the operations differ in what is said of them without it.
    fn rules(&self, profile: &Profile) -> Vec<FileRule> {
        let Persistence { verdict, origin, .. } = &profile.persistence;
        if *verdict == Verdict::ALLOW {
            return Vec::new();
        }
        let verdicts = OPS.map(|op| (op, verdict.stricter(self.least(profile, op))));
        let rule = |verdict: Verdict| {
            let ops: Vec<Op> = verdicts.iter().filter(|(_, is)| *is == verdict).map(|(op, _)| *op).collect();
            let reason = Some(format!("makes something run later: {}", self.reason));
            let (path, origin) = (self.path.clone(), origin.clone());
            (!ops.is_empty()).then_some(FileRule { path, ops, verdict, reason, origin })
        };
        Verdict::ALL.into_iter().filter_map(rule).collect()
    }

    /// What the profile says of it for certain without the set: by its deepest rule that is about it or a directory above, else, if
    /// the scope can't have it, outside.
    fn least(&self, profile: &Profile, op: Op) -> Verdict {
        let about = profile.rules.iter().filter(|rule| rule.ops.contains(&op));
        let covering = about.filter_map(|rule| Some((covers(&rule.path, &self.path)?, rule.verdict)));
        match covering.max() {
            Some((_, verdict)) => verdict,
            None if profile.scope.iter().any(|entry| self.may_be_in(&entry.path)) => Verdict::ALLOW,
            None => profile.outside.get(op),
        }
    }

    /// Whether something that it names can be in that part of the scope.
    fn may_be_in(&self, scope: &PathPattern) -> bool {
        match (&scope.form, &self.path.form) {
            (Form::Below(one, scope), Form::Below(other, path)) if one == other => {
                scope.iter().zip(path).all(|(one, other)| meets(one, other) || *other == Part::Any)
            }
            // Where a session is started isn't known; nobody should start one in a directory of the host.
            (Form::Below(..), Form::Below(..)) => self.home,
            _ => true,
        }
    }
}

/// Whether the first part stands for all that the second does.
fn meets(one: &Part, other: &Part) -> bool {
    *one == Part::Any || one == other
}

/// How many components of a path a rule is about, if it is about that path, or a directory above it, for certain.
fn covers(rule: &PathPattern, path: &PathPattern) -> Option<usize> {
    let (Form::Below(_, parts) | Form::Anywhere(parts)) = &path.form else { return None };
    match (&rule.form, &path.form) {
        (Form::Below(Base::Root, names), Form::Anywhere(_)) => names.is_empty().then_some(0),
        (Form::Below(one, names), Form::Below(other, _)) if one == other => {
            let all = names.len() <= parts.len() && names.iter().zip(parts).all(|(a, b)| meets(a, b));
            all.then_some(names.len())
        }
        (Form::Below(..), _) => None,
        (Form::Anywhere(names), _) => {
            let here = |end: &usize| {
                let some = end.checked_sub(names.len()).and_then(|start| parts.get(start..*end));
                some.is_some_and(|some| names.iter().zip(some).all(|(a, b)| meets(a, b)))
            };
            (1..=parts.len()).rev().find(here)
        }
        (Form::Ending(text), _) => {
            let ends = |part: &Part| matches!(part, Part::Name(name) if name.ends_with(text.as_str()));
            parts.iter().rposition(ends).map(|at| at + 1)
        }
    }
}

/// What the author of a policy should know.
pub(super) fn warnings(policy: &Policy) -> impl Iterator<Item = Diagnostic> + '_ {
    let reported = policy.profiles.iter().filter(|profile| {
        let stricter = || OPS.iter().any(|op| !profile.outside.get(*op).goes_on());
        profile.persistence.verdict == Verdict::REPORT && !profile.scope.is_empty() && stricter()
    });
    reported.map(|profile| {
        let message = "`persistence = \"report\"` lets sessions change git hooks anywhere, and start files where the scope may \
                       have them, outside of the scope as well";
        Diagnostic::warning(&profile.persistence.origin, message)
            .help("write \"hold\" or \"deny\", or \"allow\", which leaves all of it to rules, scope and outside")
    })
}

impl Checker<'_> {
    /// Reads `persistence` from the table `files`.
    pub(super) fn persistence(&mut self, files: &DeTable<'_>, persistence: &mut Persistence) {
        let Some(value) = files.get("persistence") else { return };
        let Some(text) = self.report.string(value, "`persistence`") else { return };
        let Some(verdict) = VERDICTS.into_iter().find(|verdict| verdict.name() == text) else {
            let names = VERDICTS.map(Verdict::name);
            let help = parse::suggest(text, names);
            let help = help.unwrap_or_else(|| format!("`persistence` can be {}", parse::list(&names)));
            return self.report.error_help(
                &value.span(),
                format!("{text:?} can't be said of persistence"),
                help,
            );
        };
        persistence.verdict = verdict;
        persistence.origin = self.report.origin(&value.span());
    }
}

#[cfg(test)]
mod tests;
