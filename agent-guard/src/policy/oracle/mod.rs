//! A second, naive evaluator, straight from the definition: paths and lists, no tables and no hashes, nothing shared with the
//! decision that the kernel runs. Tests compare the two.
//!
//! It judges in a [`World`]. Nothing there may be seen in two places while the policy is loaded.

use std::{
    io,
    path::{Path, PathBuf},
};

use agent_guard_common::{ObjectKey, Op, Source, Verdict};

use super::{
    model::{Base, FileRule, Form, Mode, Part, PathPattern, Policy, Profile},
    session::SessionPaths,
    world::{Spot, World},
};

mod net;
mod way;

pub use net::{abstract_name, by_name, connect, listen, looked_up};
use way::{Level, levels, matches, meets};

/// What the oracle says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Answer {
    /// What happens.
    pub verdict: Verdict,
    /// What the policy says.
    pub policy: Verdict,
    /// Which part of the policy.
    pub source: Source,
    /// Line of the rule, where a single one decides.
    pub line: Option<u32>,
}

/// What a rule was bound to when the policy was loaded.
#[derive(Clone, PartialEq, Debug)]
enum What {
    /// An object, whatever it is called now.
    Object(ObjectKey),
    /// Names below a directory, whatever they lead to now.
    Names(ObjectKey, Vec<Part>),
    /// Names in any directory.
    Anywhere(Vec<Part>),
    /// Names that end so.
    Ending(String),
}

/// Who says something. A session's own paths are told apart from the rest of its profile.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Critical,
    Profile,
    Session,
}

#[derive(Clone, Debug)]
struct Bound<'p> {
    what: What,
    /// About everything directly in there.
    below: bool,
    depth: usize,
    who: Who,
    /// None for the scope.
    rule: Option<&'p FileRule>,
}

/// A policy as one session of a profile has it, with what its paths led to.
#[derive(Clone, Debug)]
pub struct Oracle<'p> {
    profile: &'p Profile,
    bound: Vec<Bound<'p>>,
    /// Paths that lead to something: what is mounted below belongs to them.
    whole: Vec<(PathBuf, Bound<'p>)>,
}

impl<'p> Oracle<'p> {
    /// Loads a policy. None if there is no such profile.
    ///
    /// # Errors
    ///
    /// A path of the policy that can't be looked up.
    pub fn load(policy: &'p Policy, world: &World, session: &SessionPaths) -> io::Result<Option<Self>> {
        let Some(profile) = policy.profile(&session.profile) else { return Ok(None) };
        let mut oracle = Self { profile, bound: Vec::new(), whole: Vec::new() };
        for rule in &policy.critical {
            oracle.path(world, session, Who::Critical, &rule.path, Some(rule))?;
        }
        for entry in &profile.scope {
            oracle.path(world, session, Who::Profile, &entry.path, None)?;
        }
        let known = session.home.as_ref().is_none_or(|home| policy.knows_home(home));
        let shipped = profile.persistence.rules.iter().filter(|rule| !(known && rule.path.is_variable()));
        for rule in profile.rules.iter().chain(&profile.sockets).chain(shipped) {
            oracle.path(world, session, Who::Profile, &rule.path, Some(rule))?;
        }
        oracle.mounts(world)?;
        Ok(Some(oracle))
    }

    fn path(
        &mut self,
        world: &World,
        session: &SessionPaths,
        who: Who,
        path: &PathPattern,
        rule: Option<&'p FileRule>,
    ) -> io::Result<()> {
        let who = if path.is_variable() { Who::Session } else { who };
        let mut bound = Bound { what: What::Ending(String::new()), below: false, depth: 1, who, rule };
        let (base, mut parts) = match &path.form {
            Form::Ending(text) => {
                self.bound.push(Bound { what: What::Ending(text.clone()), ..bound });
                return Ok(());
            }
            Form::Anywhere(parts) => {
                self.bound.push(Bound { what: What::Anywhere(parts.clone()), depth: parts.len(), ..bound });
                return Ok(());
            }
            Form::Below(base, parts) => (*base, parts.clone()),
        };
        if parts.last() == Some(&Part::Any) {
            parts.pop();
            bound.below = true;
        }
        let mut start = match base {
            Base::Root => "/".into(),
            Base::Cwd => session.cwd.clone(),
            Base::Tmp => session.tmp.clone(),
            Base::Home => match &session.home {
                Some(home) => home.clone(),
                None => return Ok(()),
            },
        };
        // Links are followed up to the first star; below a variable not at all.
        while base == Base::Root
            && let Some(Part::Name(name)) = parts.first()
        {
            start.push(name);
            parts.remove(0);
        }
        loop {
            match world.find(&start, true) {
                Ok(at) => return self.match_parts(world, &bound, &at, &parts),
                Err(error)
                    if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    let name = start.file_name().map(|name| name.to_string_lossy().into_owned());
                    parts.insert(0, Part::Name(name.unwrap_or_default()));
                    start.pop();
                    // What isn't there can't match further.
                    if let Ok(at) = world.find(&start, true) {
                        return self.names(world, &bound, &at, &parts);
                    }
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// What a pattern matches below something, and what it will match.
    fn match_parts(&mut self, world: &World, bound: &Bound<'p>, at: &Spot, parts: &[Part]) -> io::Result<()> {
        let Some((first, rest)) = parts.split_first() else {
            self.whole.push((at.path.clone(), bound.clone()));
            self.bound.push(Bound {
                what: What::Object(world.key(at)),
                depth: depth(&at.path),
                ..bound.clone()
            });
            return self.names(world, bound, at, &[]);
        };
        let there = |name: &str| {
            let child = world.child(at, name).ok()?;
            (rest.is_empty() || world.is_directory(&child)).then_some(child)
        };
        match first {
            Part::Any => {
                self.names(world, bound, at, parts)?;
                let children = world.children(at);
                let found: Vec<_> = children.iter().filter_map(|name| there(name)).collect();
                found.iter().try_for_each(|child| self.match_parts(world, bound, child, rest))
            }
            Part::Name(name) => match there(name) {
                Some(child) => self.match_parts(world, bound, &child, rest),
                None => self.names(world, bound, at, parts),
            },
        }
    }

    /// Binds names: below the deepest directory that is there, below the root of its file system, and below the root of
    /// everything.
    fn names(&mut self, world: &World, bound: &Bound<'p>, at: &Spot, parts: &[Part]) -> io::Result<()> {
        let depth = depth(&at.path) + parts.len();
        let name = |name: &std::ffi::OsStr| Part::Name(name.to_string_lossy().into_owned());
        let mut add = |anchor: ObjectKey, names: Vec<Part>| {
            if !names.is_empty() {
                self.bound.push(Bound { what: What::Names(anchor, names), depth, ..bound.clone() });
            }
        };
        match (parts, at.path.parent(), at.path.file_name()) {
            ([], Some(above), Some(own)) => add(world.key(&world.find(above, false)?), vec![name(own)]),
            _ => add(world.key(at), parts.to_vec()),
        }
        let climb = world.climb(at);
        let inside = climb.iter().rev().filter_map(|(name, _)| name.clone()).map(Part::Name);
        let root = climb.last().map_or(ObjectKey::ANYWHERE, |(_, key)| *key);
        add(root, inside.chain(parts.iter().cloned()).collect());
        let whole = at.path.iter().skip(1).map(name);
        add(world.key(&world.find(Path::new("/"), false)?), whole.chain(parts.iter().cloned()).collect());
        Ok(())
    }

    /// What is mounted belongs to the paths above.
    fn mounts(&mut self, world: &World) -> io::Result<()> {
        for root in world.mounted() {
            let mut more = Vec::new();
            for path in root.path.ancestors() {
                for (whole, bound) in &self.whole {
                    if whole == path && !(bound.below && path == root.path) {
                        more.push(Bound { depth: depth(path) + usize::from(bound.below), ..bound.clone() });
                    }
                }
                let names: Vec<_> =
                    path.iter().rev().map(|name| name.to_string_lossy().into_owned()).collect();
                let names: Vec<_> = names.iter().map(String::as_str).filter(|name| *name != "/").collect();
                let anywhere = self.bound.iter().filter(|bound| match &bound.what {
                    What::Anywhere(parts) => matches(parts, &names),
                    What::Ending(text) => names.first().is_some_and(|name| name.ends_with(text.as_str())),
                    _ => false,
                });
                more.extend(anywhere.map(|bound| Bound { depth: depth(path), ..bound.clone() }));
            }
            let what = What::Object(world.key(&root));
            self.bound.extend(more.into_iter().map(|bound| Bound {
                what: what.clone(),
                below: false,
                ..bound
            }));
        }
        Ok(())
    }

    /// Judges an operation on a path, which may not exist; or a connection to a Unix socket that is there.
    ///
    /// # Errors
    ///
    /// The path, or every directory above it, can't be looked up.
    pub fn judge(&self, world: &World, op: Op, path: &Path) -> io::Result<Answer> {
        let levels = levels(world, path, !matches!(op, Op::CREATE | Op::DELETE | Op::RENAME))?;
        let own = |who: &[Who]| self.deepest(&levels, true, who, op);
        let beyond = |who: &[Who]| self.deepest(&levels, false, who, op);
        let ordinary = [Who::Profile, Who::Session];
        let said = |rule: &FileRule, source| self.answer(rule.verdict, source, Some(rule.origin.line));
        if let Some(rule) = own(&[Who::Critical]) {
            return Ok(said(rule, Source::CRITICAL));
        }
        let mut answer = match own(&ordinary) {
            Some(rule) => said(rule, Source::RULE),
            None => {
                let rest = if op == Op::CONNECT {
                    self.answer(self.profile.connect, Source::NETWORK, None)
                } else if self.in_scope(&levels) {
                    self.answer(Verdict::ALLOW, Source::SCOPE, None)
                } else {
                    self.answer(self.profile.outside.get(op), Source::OUTSIDE, None)
                };
                match beyond(&ordinary) {
                    Some(rule) => stricter(rest, said(rule, Source::RULE)),
                    None => rest,
                }
            }
        };
        if let Some(rule) = beyond(&[Who::Critical]) {
            answer = stricter(answer, said(rule, Source::CRITICAL));
        }
        Ok(answer)
    }

    /// Of the rules that are met, those at the deepest level; of these the strictest; of these the first.
    fn deepest(&self, levels: &[Level], own: bool, who: &[Who], op: Op) -> Option<&'p FileRule> {
        let about = |bound: &&Bound<'p>| {
            who.contains(&bound.who) && bound.rule.is_some_and(|rule| rule.ops.contains(&op))
        };
        let all: Vec<_> = self.bound.iter().filter(about).collect();
        // Two that are bound to the very same: the longer path counts.
        let longest = |bound: &&&Bound<'p>| {
            let same = |other: &&&Bound<'p>| {
                other.what == bound.what && other.below == bound.below && other.who == bound.who
            };
            all.iter().filter(same).all(|other| other.depth <= bound.depth)
        };
        let met = all.iter().filter(longest).flat_map(|bound| {
            let places = meets(bound, levels).into_iter();
            places.filter(|place| place.1 == own).filter_map(move |(below, _)| Some((below, bound.rule?)))
        });
        let first = |rule: &FileRule| (rule.origin.line, rule.origin.column);
        met.min_by(|(a, one), (b, other)| {
            a.cmp(b).then(other.verdict.cmp(&one.verdict)).then_with(|| first(one).cmp(&first(other)))
        })
        .map(|(_, rule)| rule)
    }

    fn in_scope(&self, levels: &[Level]) -> bool {
        let scopes = self.bound.iter().filter(|bound| bound.rule.is_none());
        scopes.flat_map(|bound| meets(bound, levels)).any(|(_, own)| own)
    }

    fn answer(&self, policy: Verdict, source: Source, line: Option<u32>) -> Answer {
        answer(self.profile, policy, source, line)
    }
}

fn stricter(one: Answer, other: Answer) -> Answer {
    if (other.verdict, other.policy) > (one.verdict, one.policy) { other } else { one }
}

fn depth(path: &Path) -> usize {
    path.iter().count() - 1
}

fn answer(profile: &Profile, policy: Verdict, source: Source, line: Option<u32>) -> Answer {
    let softened = profile.mode == Mode::Report && source != Source::CRITICAL && !policy.goes_on();
    let verdict = if softened { Verdict::REPORT } else { policy };
    Answer { verdict, policy, source, line }
}
