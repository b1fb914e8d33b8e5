//! What is printed: tables and colours for people, JSON for programs.

use std::io::{self, IsTerminal as _, Write};

use serde::Serialize;

use super::exit::{Exit, Failure};

/// A colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Colour {
    Red,
    Green,
    Yellow,
    Dim,
    Bold,
}

/// Standard output.
pub(super) struct Out {
    pub(super) json: bool,
    colours: bool,
}

impl Out {
    pub(super) fn new(json: bool) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Self { json, colours: !json && wanted && io::stdout().is_terminal() }
    }

    /// A text in a colour, on a terminal.
    pub(super) fn paint(&self, colour: Colour, text: &str) -> String {
        if !self.colours {
            return text.to_owned();
        }
        let code = match colour {
            Colour::Red => 31,
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Dim => 2,
            Colour::Bold => 1,
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }

    /// Bytes as they are.
    pub(super) fn raw(&self, bytes: &[u8]) -> Result<(), Failure> {
        let mut out = io::stdout().lock();
        written(out.write_all(bytes).and_then(|()| out.flush()))
    }

    /// One line for people. What comes from sessions goes through [`printable`] before.
    pub(super) fn line(&self, text: &str) -> Result<(), Failure> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// A value for programs.
    pub(super) fn value(&self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::new(Exit::Failed, error.to_string()))?;
        self.line(&harmless_json(&text))
    }

    /// A table with a heading; the last column isn't padded.
    pub(super) fn table(&self, heading: &[&str], rows: &[Vec<String>]) -> Result<(), Failure> {
        let mut widths: Vec<usize> = heading.iter().map(|cell| cell.chars().count()).collect();
        let rows: Vec<Vec<String>> =
            rows.iter().map(|row| row.iter().map(|cell| printable(cell)).collect()).collect();
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.chars().count());
            }
        }
        let heading: Vec<String> = heading.iter().map(|&cell| cell.to_owned()).collect();
        self.line(&self.paint(Colour::Bold, &padded(&heading, &widths)))?;
        rows.iter().try_for_each(|row| self.line(&padded(row, &widths)))
    }

    /// Names and values, one a line; what has no value isn't shown.
    pub(super) fn fields(&self, fields: &[(&str, String)]) -> Result<(), Failure> {
        let width = fields.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
        for (name, value) in fields.iter().filter(|(_, value)| !value.is_empty()) {
            let name = self.paint(Colour::Bold, &format!("{name:width$}"));
            self.line(&format!("{name}  {}", printable(value)))?;
        }
        Ok(())
    }
}

fn padded(row: &[String], widths: &[usize]) -> String {
    let mut out = String::new();
    for (at, (cell, width)) in row.iter().zip(widths).enumerate() {
        if at + 1 == row.len() {
            out.push_str(cell);
        } else {
            out.push_str(&format!("{cell:width$}  "));
        }
    }
    out
}

/// Whoever reads our output into a pipe and leaves early has what they wanted.
pub(super) fn written(result: io::Result<()>) -> Result<(), Failure> {
    match result {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::new(Exit::Done, "")),
        Err(error) => Err(Failure::new(Exit::Failed, format!("standard output: {error}"))),
    }
}

/// Whether a character could change what a terminal shows elsewhere: control characters, and those
/// that reorder or hide text.
fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// A text that an agent may have chosen, safe to show to the person who decides about it.
pub(super) fn printable(text: &str) -> String {
    if !text.contains(is_harmful) {
        return text.to_owned();
    }
    text.chars().map(|c| if is_harmful(c) { c.escape_default().to_string() } else { c.to_string() }).collect()
}

/// The same for JSON: its own escapes, so that it stays the same JSON.
pub(super) fn harmless_json(text: &str) -> String {
    if !text.contains(|c| c != '\n' && is_harmful(c)) {
        return text.to_owned();
    }
    text.chars()
        .map(|c| if c != '\n' && is_harmful(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() })
        .collect()
}

/// A span of time for people.
pub(super) fn span(ms: u64) -> String {
    let seconds = ms / 1000;
    match seconds {
        0 => format!("{ms}ms"),
        1..=119 => format!("{seconds}s"),
        120..=7199 => format!("{}m", seconds / 60),
        7200..=172_799 => format!("{}h", seconds / 3600),
        _ => format!("{}d", seconds / 86_400),
    }
}

/// A number with its noun.
pub(super) fn count(number: u64, noun: &str) -> String {
    let es = if noun.ends_with('s') { "es" } else { "s" };
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}{es}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn terminals_are_safe_from_names() {
        assert_eq!(printable("/srv/\x1b[2Jx\u{9b}0m"), "/srv/\\u{1b}[2Jx\\u{9b}0m");
        assert_eq!(printable("gpj.\u{202e}exe"), "gpj.\\u{202e}exe");
        assert_eq!(printable("/srv/größe"), "/srv/größe");
        let json = harmless_json("{\n\"a\": \"\u{9b}\u{202e}\"}");
        assert_eq!(json, "{\n\"a\": \"\\u009b\\u202e\"}");
    }

    #[test]
    fn columns_line_up() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        assert_eq!(padded(&row(["ä", "b", "long"]), &[3, 2, 1]), "ä    b   long");
    }

    #[test]
    fn spans_and_counts() {
        assert_eq!([span(5), span(90_000), span(600_000), span(90_000_000)], ["5ms", "90s", "10m", "25h"]);
        assert_eq!(count(1, "process"), "1 process");
        assert_eq!(count(2, "process"), "2 processes");
    }
}
