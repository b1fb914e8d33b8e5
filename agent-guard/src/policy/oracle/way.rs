//! The way up from a path, and what is met on it.

use std::{io, path::Path};

use agent_guard_common::ObjectKey;

use super::{
    super::{model::Part, world::World},
    Bound, What,
};

/// A level of the way up: what is there, what it is called, and how many levels are below it.
#[derive(Clone, Debug)]
pub(super) struct Level {
    name: Option<String>,
    key: Option<ObjectKey>,
    /// In the object's own file system.
    own: bool,
    below: usize,
}

/// Whether the first names, from the last one up, are these parts.
pub(super) fn matches(parts: &[Part], names: &[&str]) -> bool {
    names.len() >= parts.len()
        && parts.iter().rev().zip(names).all(|(part, name)| match part {
            Part::Name(wanted) => wanted == name,
            Part::Any => true,
        })
}

/// The way from what a path leads to up to the root of everything.
pub(super) fn levels(world: &World, path: &Path, mut follow: bool) -> io::Result<Vec<Level>> {
    let mut all: Vec<(Option<String>, Option<ObjectKey>, bool)> = Vec::new();
    let mut at = path;
    let spot = loop {
        match (world.find(at, follow), at.parent(), at.file_name()) {
            (Ok(spot), ..) => break spot,
            (Err(error), Some(above), Some(name))
                if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
            {
                all.push((Some(name.to_string_lossy().into_owned()), None, true));
                (at, follow) = (above, true);
            }
            (Err(error), ..) => return Err(error),
        }
    };
    all.extend(world.climb(&spot).into_iter().map(|(name, key)| (name, Some(key), true)));
    all.extend(world.beyond(&spot).into_iter().flatten().map(|(name, key)| (name, Some(key), false)));
    let mut below = 0;
    let level = |(name, key, own): (Option<String>, _, _)| {
        let level = Level { below, key, own, name };
        // The root of a file system and what it is mounted on are one level.
        below += usize::from(level.name.is_some());
        level
    };
    Ok(all.into_iter().map(level).collect())
}

/// Where something is met: how many levels are below, and whether within the object's own file system.
pub(super) fn meets(bound: &Bound<'_>, levels: &[Level]) -> Vec<(usize, bool)> {
    let mut met = Vec::new();
    for (at, level) in levels.iter().enumerate() {
        let up: Vec<&Level> = levels.iter().skip(at).collect();
        let named: Vec<&Level> = up.iter().copied().filter(|level| level.name.is_some()).collect();
        let names: Vec<&str> = named.iter().filter_map(|level| level.name.as_deref()).collect();
        // Only what has a name in the object's own file system is found by that.
        let by_name = level.own && level.name.is_some();
        let own = match &bound.what {
            What::Object(key) => (level.key == Some(*key)).then_some(level.own),
            What::Ending(text) => {
                (by_name && names.first().is_some_and(|name| name.ends_with(text.as_str()))).then_some(true)
            }
            What::Anywhere(parts) => {
                let last = named.get(parts.len() - 1).is_some_and(|level| level.own);
                (by_name && matches(parts, &names)).then_some(last)
            }
            What::Names(anchor, parts) => {
                let last = named.get(parts.len() - 1).map(|last| last.below);
                // The next level after the last of these names.
                let above = up.iter().find(|level| last.is_some_and(|last| level.below > last));
                let there = above.filter(|above| above.key == Some(*anchor));
                there.filter(|_| by_name && matches(parts, &names)).map(|above| above.own)
            }
        };
        let Some(own) = own else { continue };
        match (bound.below, level.below.checked_sub(1)) {
            (false, _) => met.push((level.below, own)),
            (true, Some(below)) => met.push((below, own)),
            // Of the directory itself nothing is said.
            (true, None) => {}
        }
    }
    met
}
