//! What is understood, and what isn't.

use clap::CommandFactory as _;

use super::*;

fn parse(words: &[&str]) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(std::iter::once("agent-guard").chain(words.iter().copied()))
}

#[test]
fn the_definition_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn what_this_version_does_not_have_is_refused() {
    for words in [
        ["run", "--plan", "x", "--", "true"].as_slice(),
        &["run", "--ttl", "2h", "--", "true"],
        &["run", "true"],
        &["attach"],
        &["attach", "--pid", "0"],
        &["attach", "--pid", "7", "--ttl", "2h"],
        &["undo", "list"],
        &["approvals", "approve", "x", "--for", "session"],
        &["policy", "explain", "--profile", "p"],
        &["policy", "explain", "--profile", "p", "--op", "delete"],
        &["policy", "explain", "--profile", "p", "--connect", "h:1", "--cwd", "/"],
        &["policy", "explain", "--profile", "p", "--connect", "h:1", "--session", "x", "--file", "f"],
        &["policy", "explain", "--profile", "p", "--op", "delete", "--path", "/", "--connect", "h:1"],
        &["policy", "explain", "--profile", "p", "--connect", "h:1", "--listen", "0.0.0.0:1"],
        &["policy", "explain", "--profile", "p", "--address", "10.0.0.1"],
        &["policy", "explain", "--profile", "p", "--listen", "0.0.0.0:1", "--address", "10.0.0.1"],
        &["events", "--verdict", "denied"],
        &["events", "--since", "yesterday"],
    ] {
        assert_eq!(parse(words).unwrap_err().exit_code(), 2, "{words:?}");
    }
}

#[test]
fn run_takes_everything_after_the_dashes() {
    let cli = parse(&["run", "--profile", "ci", "--", "ls", "--help", "-v"]).unwrap();
    let Command::Run(args) = cli.command else { panic!("not run") };
    assert_eq!(
        (args.profile.as_deref().unwrap_or_default(), args.command.len(), args.verbose),
        ("ci", 3, false)
    );
}

#[test]
fn lists_of_verdicts() {
    let cli = parse(&["events", "--verdict", "deny,hold"]).unwrap();
    let Command::Events(args) = cli.command else { panic!("not events") };
    assert_eq!(args.verdict, ["deny", "hold"]);
}
