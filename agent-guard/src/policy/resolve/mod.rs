//! From paths to what the kernel finds rules by: objects, and chains of names.
//!
//! A path in a policy names what it leads to when the policy is loaded, and what is there later. Symbolic links are
//! followed now, the last component's too, and what counts is the path that it really has: the depth of a rule is
//! the depth of that path, so that a detour through links doesn't change which rule is deepest. Below a variable and from
//! the first `*` on nothing is followed: whoever can write there would choose what a rule is about.
//!
//! A path is bound to up to four keys ([`keys`]):
//!
//! - the object that it leads to, if there is one;
//! - the names below the deepest directory above it that exists. It may be moved, the rule moves along;
//! - its whole path within its file system. All directories above it may be replaced;
//! - its whole path from the root of the name space, if file systems are mounted on the way. They may be unmounted, or
//!   others mounted.
//!
//! A pattern with a `*` is bound to such chains too, and to what exists now ([`expand`]). What is mounted below a path
//! belongs to it ([`mounts`]).

use std::path::{Path, PathBuf};

use agent_guard_common::{NameKey, ObjectKey, names::Shape};

use super::{
    diagnostic::Diagnostic,
    fs::{Filesystem, Mounts, join},
    model::{FileRule, Origin, PathPattern, Policy},
    rules::Numbers,
    session::SessionPaths,
    tables::ScopePlace,
    walk::Level,
};

mod expand;
mod keys;
mod lookups;
mod mounts;

/// Who says something.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Owner {
    /// `[[critical]]`.
    Critical,
    /// A profile, by its place in the policy.
    Profile(usize),
    /// The profile of the session that is bound.
    Session,
    /// `[[enroll]]`, which has a profile of its own.
    Enrollment,
}

/// What is said: a rule, or that something is in scope.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Subject<'p> {
    pub(super) owner: Owner,
    /// Number and rule; none for the scope.
    pub(super) rule: Option<(u32, &'p FileRule)>,
    pub(super) path: &'p PathPattern,
    pub(super) origin: &'p Origin,
    /// It is of `persistence`.
    pub(super) shipped: bool,
}

/// What the kernel finds rules by.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) enum Key {
    /// An object.
    Object(ObjectKey),
    /// A chain of names: the hash of its last one, that one's bit in the filter, and the chain's shape.
    Chain(NameKey, u64, u32, Shape),
    /// What names end in: the bit in the filter, and the number of bytes.
    Ending(NameKey, u32, u32),
}

/// Something that is said at a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Binding<'p> {
    pub(super) key: Key,
    /// Of everything that is directly in there, not of the thing itself.
    pub(super) below: bool,
    pub(super) subject: Subject<'p>,
    /// Number of components of the path.
    pub(super) depth: u32,
}

/// An object that can be seen in several places, and what is said above one of them.
#[derive(Clone, Debug)]
pub(super) struct Shared<'p> {
    /// The object and what is above it in its own file system.
    pub(super) tree: Vec<Level>,
    pub(super) key: ObjectKey,
    /// With the depth of each.
    pub(super) above: Vec<(Subject<'p>, u32)>,
}

/// A policy and what its paths lead to.
#[derive(Debug)]
pub(super) struct Resolved<'p> {
    pub(super) policy: &'p Policy,
    pub(super) bindings: Vec<Binding<'p>>,
    /// Those nearest to the root of their file systems first.
    pub(super) shared: Vec<Shared<'p>>,
    /// Where the scopes of profiles begin.
    pub(super) scopes: Vec<ScopePlace>,
    /// What the author of the policy should know.
    pub(super) warnings: Vec<Diagnostic>,
}

/// Looks up every path of a policy that is the same for all sessions.
///
/// # Errors
///
/// Every path that can't be looked up.
pub(super) fn resolve<'p>(
    policy: &'p Policy,
    fs: &dyn Filesystem,
    key: [u64; 2],
) -> Result<Resolved<'p>, Vec<Diagnostic>> {
    let subjects = subjects(policy).filter(|subject| !subject.path.is_variable()).collect();
    run(policy, fs, key, subjects, None)
}

/// Looks up the paths of one session.
///
/// # Errors
///
/// Every path that can't be looked up or can't be used.
pub(super) fn session<'p>(
    policy: &'p Policy,
    fs: &dyn Filesystem,
    key: [u64; 2],
    session: &SessionPaths,
) -> Result<Resolved<'p>, Vec<Diagnostic>> {
    let mine = policy.profiles.iter().position(|profile| profile.name == session.profile);
    let known = session.home.as_ref().is_none_or(|home| policy.knows_home(home));
    let subjects = subjects(policy)
        .filter(|subject| subject.path.is_variable() && mine.map(Owner::Profile) == Some(subject.owner))
        // What is said of that home directory already isn't said once more.
        .filter(|subject| !(subject.shipped && known))
        .map(|subject| Subject { owner: Owner::Session, ..subject });
    run(policy, fs, key, subjects.collect(), Some(session))
}

fn run<'p>(
    policy: &'p Policy,
    fs: &dyn Filesystem,
    key: [u64; 2],
    subjects: Vec<Subject<'p>>,
    session: Option<&SessionPaths>,
) -> Result<Resolved<'p>, Vec<Diagnostic>> {
    let mut resolver = Resolver {
        lookups: lookups::Lookups::new(fs),
        mounts: Mounts::default(),
        root: None,
        key,
        bindings: Vec::new(),
        named: mounts::Named::default(),
        scopes: Vec::new(),
        crowded: false,
        warnings: Vec::new(),
        mistakes: Vec::new(),
    };
    let starts = resolver.locate(subjects, session);
    // After the look-ups, which may mount something.
    match fs.mounts() {
        Ok(mounts) => resolver.mounts = Mounts::new(mounts),
        Err(error) => {
            let origin =
                Origin { file: policy.files.first().cloned().unwrap_or_default(), line: 1, column: 1 };
            let message = format!("can't read which file systems are mounted: {error}");
            resolver.mistakes.push(Diagnostic::error(&origin, message).help("is /proc mounted?"));
            return Err(resolver.mistakes);
        }
    }
    if let Ok(Some(root)) = resolver.lookups.get(Path::new("/"), false) {
        let inside = resolver.mounts.inside(root.mount, &root.path);
        resolver.root = inside.map(|inside| (root.root, inside));
    }
    resolver.note_scopes(policy, &starts);
    resolver.bind(starts);
    let shared = resolver.inherit();
    let Resolver { bindings, scopes, mut warnings, mut mistakes, .. } = resolver;
    if !mistakes.is_empty() {
        mistakes.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
        return Err(mistakes);
    }
    warnings.sort_by(|a, b| (&a.file, a.line, a.column).cmp(&(&b.file, b.line, b.column)));
    Ok(Resolved { policy, bindings, shared, scopes, warnings })
}

/// What is gathered while paths are looked up.
struct Resolver<'f, 'p> {
    lookups: lookups::Lookups<'f>,
    mounts: Mounts,
    /// The root of the file system that `/` is in, and the path of `/` in there.
    root: Option<(ObjectKey, PathBuf)>,
    key: [u64; 2],
    bindings: Vec<Binding<'p>>,
    named: mounts::Named<'p>,
    scopes: Vec<ScopePlace>,
    /// That there is no room for what `persistence` matches has been said.
    crowded: bool,
    warnings: Vec<Diagnostic>,
    mistakes: Vec<Diagnostic>,
}

/// Everything that a policy says of paths, in the order of its rules; scopes have no number.
fn subjects(policy: &Policy) -> impl Iterator<Item = Subject<'_>> {
    let rule = |owner, number, rule| Subject {
        owner,
        rule: Some((number, rule)),
        path: &rule.path,
        origin: &rule.origin,
        shipped: false,
    };
    let critical =
        (1..).zip(&policy.critical).map(move |(number, entry)| rule(Owner::Critical, number, entry));
    let (mut numbers, mut persistent) = (Numbers::files(policy), Numbers::persistence(policy));
    let mut sockets = Numbers::sockets(policy);
    let mut own = Numbers::own(policy);
    let profiles = policy.profiles.iter().enumerate().flat_map(move |(at, profile)| {
        let owner = Owner::Profile(at);
        let scope = profile.scope.iter();
        let scope = scope.map(move |entry| Subject {
            owner,
            rule: None,
            path: &entry.path,
            origin: &entry.origin,
            shipped: false,
        });
        let rules: Vec<_> = profile.rules.iter().map(|entry| rule(owner, numbers.take(), entry)).collect();
        let sockets: Vec<_> =
            profile.sockets.iter().map(|entry| rule(owner, sockets.take(), entry)).collect();
        let persistence = profile.persistence.rules.iter().map(|entry| rule(owner, persistent.take(), entry));
        let persistence: Vec<_> = persistence.map(|subject| Subject { shipped: true, ..subject }).collect();
        scope.chain(rules).chain(sockets).chain(persistence)
    });
    let own = policy.own.iter().map(move |entry| rule(Owner::Critical, own.take(), entry));
    let mut enrolled = Numbers::enroll(policy);
    let enrolled: Vec<_> = policy.enrolled().map(|(_, target)| (enrolled.take(), target)).collect();
    let enrolled = enrolled.into_iter().filter_map(move |(number, target)| {
        target.rule.as_ref().map(|entry| rule(Owner::Enrollment, number, entry))
    });
    critical.chain(profiles).chain(own).chain(enrolled)
}

/// Number of components.
fn depth(path: &Path) -> u32 {
    u32::try_from(path.components().count().saturating_sub(1)).unwrap_or(u32::MAX)
}
