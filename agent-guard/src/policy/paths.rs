//! Paths in a policy: their forms, and one spelling of each.

use agent_guard_common::names::{self, Shape};

use super::model::{Base, Form, Part, PathPattern};

/// Why a path can't be used, and what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Unusable(pub(super) String, pub(super) &'static str);

const FORMS: &str = "write `/srv/prod`; `*` for one whole component: `/home/*/.ssh`; a name anywhere: `**/.git`; an ending \
                     anywhere: `**/*.tfstate`; or begin with `${cwd}`, `${home}` or `${tmp}`";

/// Longest name that a file can have.
const MAX_NAME: usize = 255;

/// Reads a path.
pub(super) fn parse(text: &str) -> Result<PathPattern, Unusable> {
    if text.contains('\0') {
        return Err(wrong(format!("path {text:?} has a NUL character"), "no file can have such a name"));
    }
    let form = if let Some(rest) = text.strip_prefix("**/") {
        anywhere(text, rest)?
    } else if text.starts_with("${") {
        let (base, rest) = variable(text)?;
        Form::Below(base, parts(text, rest)?)
    } else {
        let Some(rest) = text.strip_prefix('/') else {
            let message = format!("path {text:?} is not absolute");
            return Err(wrong(message, if text.contains('*') { FORMS } else { "begin it with `/`" }));
        };
        Form::Below(Base::Root, parts(text, rest)?)
    };
    check_stars(text, &form)?;
    Ok(PathPattern::new(form))
}

/// `a`, `a/b`, `*/b` or `*TEXT`, after `**/`.
fn anywhere(text: &str, rest: &str) -> Result<Form, Unusable> {
    if let Some(ending) = rest.strip_prefix('*')
        && !ending.is_empty()
        && !ending.contains(['*', '/'])
    {
        let length = u32::try_from(ending.len()).unwrap_or(u32::MAX);
        if !names::SUFFIX.contains(&length) {
            let message = format!(
                "the ending in {text:?} has {length} bytes, and must have {} to {}",
                2,
                names::SUFFIX.end()
            );
            return Err(wrong(message, FORMS));
        }
        return Ok(Form::Ending(ending.to_owned()));
    }
    let parts = parts(text, rest)?;
    match parts.last() {
        Some(Part::Name(_)) => Ok(Form::Anywhere(parts)),
        Some(Part::Any) => Err(wrong(
            format!("path {text:?} ends in `*` below `**`"),
            "end it in a name, or name the directory above",
        )),
        None => Err(wrong(format!("path {text:?} has nothing after `**/`"), "everything is `/`")),
    }
}

/// A variable, and what comes after it.
fn variable(text: &str) -> Result<(Base, &str), Unusable> {
    let variables = [Base::Cwd, Base::Home, Base::Tmp];
    for base in variables {
        if let Some(rest) = text.strip_prefix(base.text()) {
            if rest.is_empty() {
                return Ok((base, rest));
            }
            if let Some(rest) = rest.strip_prefix('/') {
                return Ok((base, rest));
            }
            let message = format!("in path {text:?} a `/` is missing after `{}`", base.text());
            return Err(wrong(message, "a variable stands for a whole directory"));
        }
    }
    Err(wrong(format!("unknown variable in path {text:?}"), "there are `${cwd}`, `${home}` and `${tmp}`"))
}

/// What is between slashes. One at the end says nothing.
fn parts(text: &str, rest: &str) -> Result<Vec<Part>, Unusable> {
    if rest.is_empty() {
        return Ok(Vec::new());
    }
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let parts = rest.split('/').map(|component| part(text, component)).collect::<Result<Vec<_>, _>>()?;
    if parts.len() > usize::try_from(names::MAX_CHAIN).unwrap_or(usize::MAX) {
        let message =
            format!("path {text:?} has {} components, and can have {}", parts.len(), names::MAX_CHAIN);
        return Err(wrong(message, "name a directory above"));
    }
    Ok(parts)
}

fn part(text: &str, component: &str) -> Result<Part, Unusable> {
    let what = match component {
        "*" => return Ok(Part::Any),
        "" => "an empty component (`//`)",
        "." => "the component `.`",
        ".." => "the component `..`",
        _ if component.contains("**") => {
            return Err(wrong(
                format!("`**` can only stand at the beginning, not where path {text:?} has it"),
                FORMS,
            ));
        }
        _ if component.contains('*') => {
            return Err(wrong(
                format!("`*` stands for a whole component, not for a part as in path {text:?}"),
                FORMS,
            ));
        }
        _ if component.contains("${") => {
            return Err(wrong(
                format!("a variable can only stand at the beginning, not where path {text:?} has it"),
                FORMS,
            ));
        }
        _ if component.len() > MAX_NAME => "a component of more than 255 bytes",
        _ => return Ok(Part::Name(component.to_owned())),
    };
    Err(wrong(format!("path {text:?} has {what}"), "write it without"))
}

/// What the tables have room for: a `*` at the end, and others not too far from it.
fn check_stars(text: &str, form: &Form) -> Result<(), Unusable> {
    let (Form::Below(_, parts) | Form::Anywhere(parts)) = form else { return Ok(()) };
    let parts = match parts.split_last() {
        Some((Part::Any, before)) => before,
        _ => parts,
    };
    if let Some(Part::Any) = parts.last() {
        return Err(wrong(
            format!("path {text:?} ends in more than one `*`"),
            "end it in one: it names everything in a directory, and all below",
        ));
    }
    let far = usize::try_from(Shape::STARS).unwrap_or(0);
    if parts.iter().rev().skip(far).any(|part| *part == Part::Any) {
        let message = format!("path {text:?} has a `*` with more than {} components after it", far - 1);
        return Err(wrong(message, "name a directory above"));
    }
    Ok(())
}

fn wrong(message: String, help: &'static str) -> Unusable {
    Unusable(message, help)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_spelling() {
        for (text, shown) in [
            ("/", "/"),
            ("/a", "/a"),
            ("/a/", "/a"),
            ("/a/b.c/..d", "/a/b.c/..d"),
            ("/home/*/.ssh/", "/home/*/.ssh"),
            ("/*", "/*"),
            ("/*/*/a", "/*/*/a"),
            ("/a/*/b/*", "/a/*/b/*"),
            ("**/.git", "**/.git"),
            ("**/a/*/c/", "**/a/*/c"),
            ("**/*/a", "**/*/a"),
            ("**/*.tfstate", "**/*.tfstate"),
            ("${cwd}", "${cwd}"),
            ("${cwd}/", "${cwd}"),
            ("${home}/.ssh", "${home}/.ssh"),
            ("${tmp}/*", "${tmp}/*"),
        ] {
            assert_eq!(parse(text).unwrap().to_string(), shown);
        }
        let ending = Form::Ending(".tf".into());
        assert_eq!(parse("**/*.tf").unwrap().form, ending);
        assert!(
            matches!(parse("**/*.tf/").unwrap_err(), Unusable(message, _) if message.contains("whole component"))
        );
    }

    #[test]
    fn what_no_path_is() {
        let long = format!("/{}", "x".repeat(256));
        let deep = "/a".repeat(57);
        let far = format!("/*{}", "/a".repeat(25));
        let ending = format!("**/*{}", "x".repeat(33));
        for (text, part) in [
            ("", "not absolute"),
            ("a", "not absolute"),
            ("./a", "not absolute"),
            ("~/x", "not absolute"),
            ("//", "empty component"),
            ("/a//", "empty component"),
            ("/a//b", "empty component"),
            ("/a/./b", "component `.`"),
            ("/..", "component `..`"),
            ("/a\0", "NUL"),
            ("/${x}", "only stand at the beginning"),
            ("/${cwd}", "only stand at the beginning"),
            ("${x}/a", "unknown variable"),
            ("${cwd", "unknown variable"),
            ("${cwd}x", "a `/` is missing"),
            ("${cwd}//x", "empty component"),
            ("**", "not absolute"),
            ("*", "not absolute"),
            ("*.x", "not absolute"),
            ("**/", "nothing after"),
            ("**/*", "ends in `*`"),
            ("**/a/*", "ends in `*`"),
            ("**//a", "empty component"),
            ("**/**/a", "only stand at the beginning"),
            ("/a/**", "only stand at the beginning"),
            ("/**/a", "only stand at the beginning"),
            ("/a*b", "whole component"),
            ("/*.x", "whole component"),
            ("**/a*", "whole component"),
            ("**/*a/b", "whole component"),
            ("**/*a*", "whole component"),
            ("**/*a", "has 1 bytes"),
            (&ending, "has 33 bytes"),
            ("/*/*", "more than one `*`"),
            ("/a/*/*", "more than one `*`"),
            ("${cwd}/*/*", "more than one `*`"),
            (&long, "more than 255 bytes"),
            (&deep, "has 57 components"),
            (&far, "more than 24 components"),
        ] {
            let Unusable(message, help) = parse(text).unwrap_err();
            assert!(message.contains(part) && !help.is_empty(), "{text:?}: {message}");
        }
        assert!(parse(&"/a".repeat(56)).is_ok() && parse(&format!("/*{}/*", "/a".repeat(24))).is_ok());
    }
}
