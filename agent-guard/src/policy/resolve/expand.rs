//! From patterns to the paths that are there.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use agent_guard_common::ObjectKey;

use super::{
    super::{
        diagnostic::Diagnostic,
        fs::Object,
        model::{Base, Form, Origin, Part, Policy},
        session::SessionPaths,
        tables::ScopePlace,
    },
    Binding, Key, Owner, Resolver, Subject,
    keys::{self, Link},
};

/// What patterns with a `*` match when the policy is loaded, at most, all together. What is beyond is found by name only.
const MAX_MATCHES: usize = 10_000;

/// A path that begins somewhere, and how far it has been looked up.
#[derive(Debug)]
pub(super) struct Start<'p> {
    subject: Subject<'p>,
    /// What is looked up next, links followed.
    path: PathBuf,
    /// Names behind that which aren't there, the last first.
    missing: Vec<OsString>,
    /// What comes behind those: the first is `*` or below a variable.
    rest: &'p [Part],
    /// Ends in `*`.
    below: bool,
}

impl<'p> Resolver<'_, 'p> {
    /// Looks up where paths begin; of those that may be anywhere everything is said at once.
    pub(super) fn locate(
        &mut self,
        subjects: Vec<Subject<'p>>,
        session: Option<&SessionPaths>,
    ) -> Vec<Start<'p>> {
        let mut starts = Vec::with_capacity(subjects.len());
        for subject in subjects {
            match &subject.path.form {
                Form::Anywhere(parts) => self.anywhere(subject, parts),
                Form::Ending(text) => {
                    self.named.ending(text, subject);
                    self.bind_anywhere(subject, keys::ending(self.key, text), 1);
                }
                Form::Below(base, parts) => starts.extend(self.start(subject, *base, parts, session)),
            }
        }
        let mut open: Vec<&mut Start<'p>> = starts.iter_mut().collect();
        while !open.is_empty() {
            self.lookups.fetch(open.iter().map(|start| start.path.clone()), true);
            open.retain_mut(|start| match self.lookups.get(&start.path, true) {
                Ok(Some(_)) => false,
                Ok(None) => match (start.path.file_name().map(OsStr::to_owned), start.path.pop()) {
                    (Some(name), true) => {
                        start.missing.push(name);
                        true
                    }
                    _ => false,
                },
                // A home directory that root can't look at: its name is known.
                Err(error) if start.subject.shipped => {
                    self.warnings.push(cannot_look(start, &error, Diagnostic::warning));
                    start.path.file_name().map(OsStr::to_owned).is_some_and(|name| {
                        start.missing.push(name);
                        start.path.pop()
                    })
                }
                Err(error) => {
                    self.mistakes.push(cannot_look(start, &error, Diagnostic::error));
                    false
                }
            });
        }
        starts
    }

    fn anywhere(&mut self, subject: Subject<'p>, parts: &'p [Part]) {
        self.named.anywhere(parts, subject);
        let links: Vec<Link<'_>> = parts.iter().map(Link::from).collect();
        let depth = u32::try_from(links.len()).unwrap_or(u32::MAX);
        self.bind_anywhere(subject, keys::chain(self.key, ObjectKey::ANYWHERE, &links), depth);
    }

    fn bind_anywhere(&mut self, subject: Subject<'p>, key: Option<Key>, depth: u32) {
        self.bindings.extend(key.map(|key| Binding { key, below: false, subject, depth }));
    }

    fn start(
        &mut self,
        subject: Subject<'p>,
        base: Base,
        parts: &'p [Part],
        session: Option<&SessionPaths>,
    ) -> Option<Start<'p>> {
        let (parts, below) = match parts.split_last() {
            Some((Part::Any, before)) => (before, true),
            _ => (parts, false),
        };
        let (mut path, followed) = match (base, session) {
            (Base::Root, _) => {
                let star = parts.iter().position(|part| *part == Part::Any);
                (PathBuf::from("/"), star.unwrap_or(parts.len()))
            }
            (variable, Some(session)) => (self.value(subject, variable, session)?, 0),
            (_, None) => return None,
        };
        let (names, rest) = parts.split_at_checked(followed)?;
        path.extend(names.iter().filter_map(|part| match part {
            Part::Name(name) => Some(name),
            Part::Any => None,
        }));
        Some(Start { subject, path, missing: Vec::new(), rest, below })
    }

    /// What a variable stands for.
    fn value(&mut self, subject: Subject<'p>, variable: Base, session: &SessionPaths) -> Option<PathBuf> {
        let value = match variable {
            Base::Home => session.home.as_ref(),
            Base::Tmp => Some(&session.tmp),
            Base::Root | Base::Cwd => Some(&session.cwd),
        };
        // What isn't there has nothing that could be allowed or denied.
        let value = value?;
        let normal = value.components().skip(1).all(|part| matches!(part, std::path::Component::Normal(_)));
        if !value.is_absolute() || !normal {
            let message = format!("`{}` is {value:?}, which is not an absolute path", variable.text());
            self.mistakes
                .push(Diagnostic::error(subject.origin, message).help("start the session elsewhere"));
            return None;
        }
        Some(value.clone())
    }

    /// Notes where the scopes of profiles begin.
    pub(super) fn note_scopes(&mut self, policy: &Policy, starts: &[Start<'p>]) {
        for start in starts.iter().filter(|start| start.subject.rule.is_none()) {
            let Owner::Profile(at) = start.subject.owner else { continue };
            let Some(profile) = policy.profiles.get(at) else { continue };
            let Ok(Some(there)) = self.lookups.get(&start.path, true) else { continue };
            self.scopes.push(ScopePlace {
                profile: profile.name.clone(),
                path: start.subject.path.clone(),
                there: there.path.clone(),
                object: there.key,
                missing: start.missing.iter().rev().collect(),
                rest: start.rest.iter().cloned().chain(start.below.then_some(Part::Any)).collect(),
            });
        }
    }

    /// Binds what has been located, and everything that is there of what follows.
    pub(super) fn bind(&mut self, starts: Vec<Start<'p>>) {
        self.warn_of_links(&starts);
        // So that neither takes the other's.
        let (mut room, mut more) = (MAX_MATCHES, MAX_MATCHES * 10);
        let mut whole = Vec::new();
        for mut start in starts {
            start.missing.reverse();
            let Ok(Some(at)) = self.lookups.get(&start.path, true) else { continue };
            let at = at.clone();
            if start.missing.is_empty() && !start.rest.is_empty() {
                let room = if start.subject.shipped { &mut more } else { &mut room };
                self.expand(&start, at, room);
            } else if start.missing.is_empty() {
                whole.push((start, at));
            } else {
                let missing = start.missing.iter().map(|name| Link::Name(name));
                let missing: Vec<_> = missing.chain(start.rest.iter().map(Link::from)).collect();
                self.bind_path(start.subject, start.below, &at, &missing);
            }
        }
        let parents: Vec<_> =
            whole.iter().filter_map(|(_, at)| at.path.parent().map(PathBuf::from)).collect();
        self.lookups.fetch(parents, false);
        for (start, at) in whole {
            self.bind_whole(&start, &at);
        }
    }

    fn bind_whole(&mut self, start: &Start<'p>, at: &Object) {
        let Subject { owner, rule, path, origin, .. } = start.subject;
        if owner == Owner::Session && rule.is_none() && at.path.parent().is_none() {
            let message = format!("`{path}` is `/`, so everything would be in the scope");
            let help = "start the session in the directory that it is to work in";
            self.mistakes.push(Diagnostic::error(origin, message).help(help));
        }
        self.named.whole(&at.path, start.subject, start.below);
        self.bind_path(start.subject, start.below, at, &[]);
    }

    /// Binds a pattern at every directory that a beginning of it matches, and at what the whole matches. No link is
    /// followed.
    fn expand(&mut self, start: &Start<'p>, at: Object, room: &mut usize) {
        let mut level = vec![at];
        let mut rest = start.rest;
        let mut cut = false;
        while let Some((first, after)) = rest.split_first() {
            let links: Vec<Link<'_>> = rest.iter().map(Link::from).collect();
            let mut candidates = Vec::new();
            for at in &level {
                match first {
                    Part::Name(name) => candidates.push((at, at.path.join(name))),
                    Part::Any => {
                        self.bind_path(start.subject, start.below, at, &links);
                        let names = self.lookups.names(&at.path);
                        cut |= names.len() > *room;
                        candidates.extend(names.iter().take(*room).map(|name| (at, at.path.join(name))));
                        *room = room.saturating_sub(names.len());
                    }
                }
            }
            self.lookups.fetch(candidates.iter().map(|(_, path)| path.clone()), false);
            let mut next = Vec::new();
            for (at, path) in candidates {
                match self.lookups.known(&path).filter(|found| found.directory || after.is_empty()) {
                    Some(found) => next.push(found.clone()),
                    None if *first == Part::Any => {}
                    None => self.bind_path(start.subject, start.below, at, &links),
                }
            }
            (level, rest) = (next, after);
        }
        for at in &level {
            self.bind_whole(start, at);
        }
        // Of the many patterns of `persistence` the first says it for all.
        if cut && !(start.subject.shipped && std::mem::replace(&mut self.crowded, true)) {
            let message = format!("`{}` matches more than there is room for", start.subject.path);
            let warning = Diagnostic::warning(start.subject.origin, message);
            self.warnings.push(warning.help(format!(
                "of what the patterns of a policy match when it is loaded {MAX_MATCHES} keep their rules when they are \
                 moved; the others have them by name"
            )));
        }
    }

    /// A name that leads nowhere now may lead anywhere later.
    fn warn_of_links(&mut self, starts: &[Start<'p>]) {
        let first = |start: &Start<'p>| start.missing.last().map(|name| start.path.join(name));
        self.lookups.fetch(starts.iter().filter_map(first), false);
        for start in starts {
            let Some(path) = first(start) else { continue };
            if let Ok(Some(link)) = self.lookups.get(&path, false) {
                let message = format!("{:?} is a link that leads nowhere", link.path);
                self.warnings.push(
                    Diagnostic::warning(start.subject.origin, message)
                        .help("the rule is about the link, and not about what it will lead to"),
                );
            }
        }
    }
}

fn cannot_look(
    start: &Start<'_>,
    error: &str,
    diagnostic: impl FnOnce(&Origin, String) -> Diagnostic,
) -> Diagnostic {
    let path = start.path.display();
    let message = if start.subject.owner == Owner::Session {
        format!("`{}`: {path} can't be looked up: {error}", start.subject.path)
    } else {
        format!("\"{path}\" can't be looked up: {error}")
    };
    diagnostic(start.subject.origin, message)
        .help("every path of a policy must be one that root can look at, whether something is there or not")
}
