//! Paths in a policy: absolute, and with one spelling.

use std::path::PathBuf;

/// Why a path can't be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Unusable {
    /// A form of the policy language that isn't enforced.
    Later(String),
    /// Wrong; and what to do about it.
    Wrong(String, &'static str),
}

/// Reads a path: absolute, no `.`, `..` or empty components, no wildcards.
pub(super) fn parse(text: &str) -> Result<PathBuf, Unusable> {
    if let Some(variable) = ["${cwd}", "${home}", "${tmp}"].into_iter().find(|name| text.contains(name)) {
        return Err(Unusable::Later(format!("`{variable}` in a path")));
    }
    if text.contains("${") {
        return Err(wrong(format!("unknown variable in path {text:?}"), "write the path out"));
    }
    if text.contains('*') {
        return Err(Unusable::Later(format!("the wildcard in path {text:?}")));
    }
    if text.contains('\0') {
        return Err(wrong(format!("path {text:?} has a NUL character"), "no file can have such a name"));
    }
    let Some(rest) = text.strip_prefix('/') else {
        return Err(wrong(format!("path {text:?} is not absolute"), "begin it with `/`"));
    };
    if rest.is_empty() {
        return Ok(PathBuf::from("/"));
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    for component in rest.split('/') {
        let name = match component {
            "" => "an empty component (`//`)",
            "." => "the component `.`",
            ".." => "the component `..`",
            _ => continue,
        };
        return Err(wrong(format!("path {text:?} has {name}"), "write it without"));
    }
    Ok(PathBuf::from(format!("/{rest}")))
}

fn wrong(message: String, help: &'static str) -> Unusable {
    Unusable::Wrong(message, help)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn one_spelling() {
        for (text, path) in [("/", "/"), ("/a", "/a"), ("/a/", "/a"), ("/a/b.c/..d", "/a/b.c/..d")] {
            assert_eq!(parse(text).as_deref(), Ok(Path::new(path)));
        }
    }

    #[test]
    fn what_no_path_is() {
        for text in ["", "a", "./a", "~/x", "//", "/a//", "/a//b", "/a/./b", "/..", "/a\0", "/${x}"] {
            assert!(matches!(parse(text), Err(Unusable::Wrong(..))), "{text:?}");
        }
        for text in ["**/.git", "/home/*/.ssh", "${cwd}", "${home}/x", "${tmp}"] {
            assert!(matches!(parse(text), Err(Unusable::Later(_))), "{text:?}");
        }
    }
}
