//! Does one forbidden thing in one particular way and says how it went.
//!
//! `attack NAME ARG...` prints `ok`, or the name of the errno the attempt ended in (`EPERM`); `attack serve`
//! does the same for each line it reads. What goes wrong on the way to the attempt is told on stderr, with
//! exit code 2: an attack that couldn't be made must not be mistaken for one that was stopped.

mod asking;
mod compat;
mod connected;
mod exec;
mod families;
mod family;
mod files;
mod handed;
mod harmless;
mod inplace;
mod ioctl;
mod kept;
mod listening;
mod loops;
mod metadata;
mod mounting;
mod net;
mod others;
mod process;
mod protocols;
mod races;
mod races_net;
mod reading;
mod sessions;
mod sys;
mod system;
mod unix;
mod uring;

use std::io::{BufRead, Write};
use std::process::ExitCode;

use anyhow::{Context, Result, bail};
use tests::errno_name;

/// Makes an attempt; answers the errno it ended in, 0 for success.
type Attack = fn(&[&str]) -> Result<i32>;

/// Asks for something; answers what was said, in one line.
type Question = fn(&[&str]) -> Result<String>;

/// All attacks, by name.
const FAMILIES: &[&[(&str, Attack)]] = &[
    files::ATTACKS,
    metadata::ATTACKS,
    mounting::ATTACKS,
    kept::ATTACKS,
    system::ATTACKS,
    others::ATTACKS,
    reading::ATTACKS,
    inplace::ATTACKS,
    ioctl::ATTACKS,
    compat::ATTACKS,
    handed::ATTACKS,
    harmless::ATTACKS,
    races::ATTACKS,
    process::ATTACKS,
    exec::ATTACKS,
    uring::ATTACKS,
    net::ATTACKS,
    protocols::ATTACKS,
    families::ATTACKS,
    listening::ATTACKS,
    connected::ATTACKS,
    races_net::ATTACKS,
    unix::ATTACKS,
    loops::ATTACKS,
    family::ATTACKS,
    sessions::ATTACKS,
];

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let result =
        if words == ["serve"] { serve() } else { attempt(&words).map(|answer| println!("{answer}")) };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("attack: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Makes the attempt that the words name.
pub(crate) fn attempt(words: &[&str]) -> Result<String> {
    let [name, args @ ..] = words else { bail!("usage: attack NAME ARG... | attack serve") };
    if let Some((_, question)) = asking::QUESTIONS.iter().find(|(known, _)| known == name) {
        return question(args).with_context(|| format!("{name} could not be asked"));
    }
    let attack = FAMILIES
        .iter()
        .copied()
        .flatten()
        .find(|(known, _)| known == name)
        .map(|(_, attack)| attack)
        .with_context(|| format!("there is no attack called {name}"))?;
    let errno = attack(args).with_context(|| format!("{name} could not be tried"))?;
    Ok(errno_name(errno))
}

/// Answers a line for each line: an attempt's outcome, or `? ` and why it could not be made.
fn serve() -> Result<()> {
    let mut out = std::io::stdout();
    for line in std::io::stdin().lock().lines() {
        let line = line.context("can't read from stdin")?;
        let words: Vec<&str> = line.split(' ').filter(|word| !word.is_empty()).collect();
        let answer = attempt(&words).unwrap_or_else(|error| format!("? {error:#}").replace('\n', " "));
        writeln!(out, "{answer}").and_then(|()| out.flush()).context("can't write to stdout")?;
    }
    Ok(())
}
