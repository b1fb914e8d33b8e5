//! The keys that a path is bound to.

use std::{ffi::OsStr, os::unix::ffi::OsStrExt, path::Path};

use agent_guard_common::{
    NameKey, ObjectKey,
    names::{self, Shape},
};

use super::{
    super::{diagnostic::Diagnostic, fs::Object, model::Part},
    Binding, Key, Resolver, Subject, depth, join,
};

/// A component of a chain.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Link<'a> {
    Name(&'a OsStr),
    Any,
}

impl<'a> From<&'a Part> for Link<'a> {
    fn from(part: &'a Part) -> Self {
        match part {
            Part::Name(name) => Self::Name(OsStr::new(name)),
            Part::Any => Self::Any,
        }
    }
}

/// The names of a path.
fn links(path: &Path) -> Vec<Link<'_>> {
    path.iter().skip(usize::from(path.is_absolute())).map(Link::Name).collect()
}

/// The key of a chain, the first name first. None for one that the tables can't hold.
pub(super) fn chain(key: [u64; 2], anchor: ObjectKey, links: &[Link<'_>]) -> Option<Key> {
    let length = u32::try_from(links.len()).ok().filter(|&length| length <= names::MAX_CHAIN)?;
    let Some(Link::Name(last)) = links.last() else { return None };
    let mut shape = Shape::new(length);
    if anchor == ObjectKey::ANYWHERE {
        shape = shape.anywhere();
    }
    let mut hashes = Vec::with_capacity(links.len());
    for (at, link) in (0..).zip(links.iter().rev()) {
        hashes.push(match link {
            Link::Name(name) => names::name(key, name.as_bytes()),
            Link::Any if shape.star(at) => names::STAR,
            Link::Any => return None,
        });
    }
    let last_hash = hashes.first().copied()?;
    let name = NameKey { anchor, name: names::chain(key, hashes) };
    Some(Key::Chain(name, last_hash, names::bit_of(last.as_bytes()), shape))
}

/// The key of everything whose name ends so.
pub(super) fn ending(key: [u64; 2], text: &str) -> Option<Key> {
    let bytes = text.as_bytes();
    let &[.., before, last] = bytes else { return None };
    let name = NameKey { anchor: ObjectKey::ANYWHERE, name: names::suffix(key, bytes) };
    let bit = names::suffix_bit(u16::from_le_bytes([before, last]));
    Some(Key::Ending(name, bit, u32::try_from(bytes.len()).ok()?))
}

/// What is bound, and where.
struct Bind<'a, 'p> {
    binding: Binding<'p>,
    key: [u64; 2],
    bindings: &'a mut Vec<Binding<'p>>,
    too_long: bool,
}

impl Bind<'_, '_> {
    fn add(&mut self, key: Key) {
        self.bindings.push(Binding { key, ..self.binding });
    }

    /// The root of a file system has no name.
    fn chain(&mut self, anchor: ObjectKey, links: &[Link<'_>]) {
        if links.is_empty() {
            return;
        }
        match chain(self.key, anchor, links) {
            Some(key) => self.add(key),
            None => self.too_long = true,
        }
    }
}

impl<'p> Resolver<'_, 'p> {
    /// Binds something to a path: to an existing object, or to what doesn't exist below one.
    pub(super) fn bind_path(&mut self, subject: Subject<'p>, below: bool, at: &Object, missing: &[Link<'_>]) {
        let depth = depth(&at.path).saturating_add(u32::try_from(missing.len()).unwrap_or(u32::MAX));
        let parent = if missing.is_empty() { self.parent(at) } else { None };
        let key = Key::Object(at.key);
        let binding = Binding { key, below, subject, depth };
        let mut bind = Bind { binding, key: self.key, bindings: &mut self.bindings, too_long: false };
        if missing.is_empty() {
            bind.add(key);
        }
        if let (Some(anchor), Some(name)) = (parent, at.path.file_name()) {
            bind.chain(anchor, &[Link::Name(name)]);
        }
        if let Some(inside) = self.mounts.inside(at.mount, &at.path) {
            let anchor = if inside == Path::new("/") { at.root } else { at.key };
            bind.chain(anchor, missing);
            bind.chain(at.root, &[&links(&inside), missing].concat());
        }
        if let Some((root, inside)) = &self.root {
            let logical = join(inside, at.path.strip_prefix("/").unwrap_or(&at.path));
            bind.chain(*root, &[&links(&logical), missing].concat());
        }
        if bind.too_long {
            let message =
                format!("the real path of `{}` has more than {} components", subject.path, names::MAX_CHAIN);
            self.mistakes.push(Diagnostic::error(subject.origin, message).help("name a directory above"));
        }
    }

    /// The directory that an object is in, as an anchor.
    fn parent(&mut self, at: &Object) -> Option<ObjectKey> {
        let above = self.lookups.get(at.path.parent()?, false).ok()??.clone();
        let inside = self.mounts.inside(above.mount, &above.path)?;
        Some(if inside == Path::new("/") { above.root } else { above.key })
    }
}
