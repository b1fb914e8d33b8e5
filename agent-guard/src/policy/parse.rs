//! TOML with positions: the document of a source, and how its tables are walked so that every
//! mistake of a file is found in one run.

use std::ops::Range;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{diagnostic::Diagnostic, model::Origin, source::Source};

/// Where the lines of a text begin.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let starts = std::iter::once(0).chain(text.match_indices('\n').map(|(at, _)| at + 1)).collect();
        Self { text, starts }
    }

    /// Line and column, both from 1, of a byte. The column counts characters.
    pub(super) fn at(&self, offset: usize) -> (u32, u32) {
        let line = self.starts.partition_point(|&start| start <= offset);
        let start = line.checked_sub(1).and_then(|at| self.starts.get(at)).copied().unwrap_or(0);
        let before = self.text.get(start..).unwrap_or_default().char_indices();
        let column = before.take_while(|&(at, _)| start + at < offset).count() + 1;
        (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
    }
}

/// A value and where it stands.
pub(super) type Value<'i> = Spanned<DeValue<'i>>;

/// The keys that a table may have.
pub(super) struct Keys {
    /// The table, as messages call it.
    pub(super) place: &'static str,
    /// Keys that are enforced.
    pub(super) known: &'static [&'static str],
    /// Keys of the policy language that this version doesn't enforce.
    pub(super) later: &'static [&'static str],
}

/// Collects the mistakes of one source.
#[derive(Debug)]
pub(super) struct Report<'a> {
    source: &'a Source,
    lines: Lines<'a>,
    mistakes: Vec<Diagnostic>,
}

impl<'a> Report<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self { source, lines: Lines::new(&source.text), mistakes: Vec::new() }
    }

    /// The mistakes, from the top of the file.
    pub(super) fn finish(mut self) -> Vec<Diagnostic> {
        self.mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
        self.mistakes
    }

    pub(super) fn origin(&self, span: &Range<usize>) -> Origin {
        let (line, column) = self.lines.at(span.start);
        Origin { file: self.source.name.clone(), line, column }
    }

    /// Notes a mistake.
    pub(super) fn error(&mut self, span: &Range<usize>, message: impl Into<String>) {
        let origin = self.origin(span);
        self.mistakes.push(Diagnostic::error(&origin, message));
    }

    /// Notes a mistake and what to do about it.
    pub(super) fn error_help(
        &mut self,
        span: &Range<usize>,
        message: impl Into<String>,
        help: impl Into<String>,
    ) {
        let origin = self.origin(span);
        self.mistakes.push(Diagnostic::error(&origin, message).help(help));
    }

    /// Notes that something of the policy language is not enforced: never ignored, so that nobody
    /// relies on it.
    pub(super) fn later(&mut self, span: &Range<usize>, what: &str) {
        self.error_help(
            span,
            format!("{what} is not enforced yet by this version of agent-guard"),
            "remove it: a policy says only what is enforced",
        );
    }

    /// The document, unless it is no TOML.
    pub(super) fn document(&mut self) -> Option<Spanned<DeTable<'a>>> {
        let (document, errors) = DeTable::parse_recoverable(&self.source.text);
        if errors.is_empty() {
            return Some(document);
        }
        for error in errors {
            self.error(&error.span().unwrap_or(0..0), error.message());
        }
        None
    }

    /// Notes every key that the table may not have.
    pub(super) fn keys(&mut self, table: &DeTable<'_>, keys: &Keys) {
        for key in table.keys() {
            let (name, span) = (key.get_ref().as_ref(), key.span());
            if keys.known.contains(&name) {
                continue;
            }
            if keys.later.contains(&name) {
                self.later(&span, &format!("`{name}` in {}", keys.place));
                continue;
            }
            let candidates = keys.known.iter().chain(keys.later).copied();
            self.error_help(
                &span,
                format!("unknown key `{}` in {}", name.escape_debug(), keys.place),
                suggest(name, candidates).unwrap_or_else(|| format!("known are {}", list(keys.known))),
            );
        }
    }

    fn wrong(&mut self, value: &Value<'_>, what: &str, expected: &str) {
        let found = value.get_ref().type_str();
        self.error(&value.span(), format!("{what} must be {expected}, not {found}"));
    }

    pub(super) fn string<'v>(&mut self, value: &'v Value<'_>, what: &str) -> Option<&'v str> {
        let found = value.get_ref().as_str();
        if found.is_none() {
            self.wrong(value, what, "a string");
        }
        found
    }

    pub(super) fn table<'v, 'i>(&mut self, value: &'v Value<'i>, what: &str) -> Option<&'v DeTable<'i>> {
        let found = value.get_ref().as_table();
        if found.is_none() {
            self.wrong(value, what, "a table");
        }
        found
    }

    /// The values of an array.
    pub(super) fn array<'v, 'i>(&mut self, value: &'v Value<'i>, what: &str) -> &'v [Value<'i>] {
        match value.get_ref() {
            DeValue::Array(found) => found,
            _ => {
                self.wrong(value, what, "an array");
                &[]
            }
        }
    }

    /// The tables of an array of tables.
    pub(super) fn tables<'v, 'i>(
        &mut self,
        value: &'v Value<'i>,
        what: &str,
    ) -> Vec<(&'v DeTable<'i>, Range<usize>)> {
        if let DeValue::Table(_) = value.get_ref() {
            self.error_help(
                &value.span(),
                format!("{what} must be an array of tables, not table"),
                format!("write two brackets: [[{what}]]"),
            );
            return Vec::new();
        }
        let values = self.array(value, what);
        values.iter().filter_map(|value| Some((self.table(value, what)?, value.span()))).collect()
    }
}

/// Names for a message: `a`, `b`.
pub(super) fn list<'n>(names: impl IntoIterator<Item = &'n &'n str>) -> String {
    names.into_iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
}

/// What was probably meant.
pub(super) fn suggest<'n>(name: &str, candidates: impl IntoIterator<Item = &'n str>) -> Option<String> {
    // Comparing is quadratic, and nobody mistypes that much.
    if name.len() > 64 {
        return None;
    }
    let near = candidates.into_iter().map(|other| (strsim::damerau_levenshtein(name, other), other)).min()?;
    (near.0 <= 1 + near.1.len() / 4).then(|| format!("did you mean `{}`?", near.1))
}
