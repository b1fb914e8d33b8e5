//! `[profile.NAME.exec]`: what may be executed, and with which arguments.

use std::{fmt, ops::Range};

use agent_guard_common::{Op, Verdict};
use toml::de::DeTable;

use super::{
    check::Checker,
    diagnostic::Diagnostic,
    model::{Origin, Policy, Profile},
    parse::{Keys, Value},
};

const EXEC: Keys = Keys { place: "`exec`", known: &["outside_scope", "anonymous", "rule"], later: &[] };
const RULE: Keys = Keys { place: "a rule", known: &["argv", "verdict", "reason"], later: &[] };

/// Words of a rule, at most.
const MAX_WORDS: usize = 64;
/// Bytes of a word, at most.
const MAX_WORD: usize = 1024;

/// What `exec` says, but for `outside_scope`, which is `files.outside.execute` in other words.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Exec {
    /// Programs that no path leads to.
    pub anonymous: Verdict,
    /// `exec.rule`.
    pub rules: Vec<CommandRule>,
}

impl Default for Exec {
    fn default() -> Self {
        Self { anonymous: Verdict::DENY, rules: Vec::new() }
    }
}

impl Exec {
    /// [`Op::EXEC`] as a bit if anything but `allow` is said.
    #[must_use]
    pub fn judged(&self) -> u64 {
        let plain =
            self.anonymous == Verdict::ALLOW && self.rules.iter().all(|rule| rule.verdict == Verdict::ALLOW);
        if plain { 0 } else { Op::EXEC.mask() }
    }
}

/// An entry of `exec.rule`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandRule {
    /// The command.
    pub command: CommandPattern,
    /// What happens.
    pub verdict: Verdict,
    /// Why, for people.
    pub reason: Option<String>,
    /// Where its command stands.
    pub origin: Origin,
}

/// A command as policies write it: the program, then its arguments.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct CommandPattern {
    /// The program: a name, without the directory that it is in.
    pub program: Glob,
    /// Its path, where the policy says one.
    pub path: Option<String>,
    /// The rest.
    pub arguments: Vec<Word>,
}

/// A word of a command.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Word {
    /// One argument.
    One(Glob),
    /// `...`: any number of arguments.
    Any,
}

/// A text in which `*` stands for any text.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Glob(pub String);

impl Glob {
    /// The texts between the stars.
    pub fn parts(&self) -> impl Iterator<Item = &str> {
        self.0.split('*')
    }

    /// The text, if it has no star.
    #[must_use]
    pub fn literal(&self) -> Option<&str> {
        if self.0.contains('*') { None } else { Some(&self.0) }
    }
}

impl fmt::Display for CommandPattern {
    /// As a policy writes it, without commas.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.path.as_deref().unwrap_or(&self.program.0))?;
        self.arguments.iter().try_for_each(|word| match word {
            Word::Any => f.write_str(" ..."),
            Word::One(Glob(text)) if text.is_empty() || text.contains(char::is_whitespace) => {
                write!(f, " {text:?}")
            }
            Word::One(Glob(text)) => write!(f, " {text}"),
        })
    }
}

/// What the author of a policy should know.
pub(super) fn warnings(policy: &Policy) -> impl Iterator<Item = Diagnostic> + '_ {
    let rules = policy.profiles.iter().flat_map(|profile| &profile.exec.rules);
    rules.filter(|rule| rule.command.arguments.is_empty()).map(|rule| {
        let message = format!("`{}` is only about the program without any argument", rule.command);
        Diagnostic::warning(&rule.origin, message).help("write `\"...\"` behind it for any arguments")
    })
}

impl Checker<'_> {
    /// Reads the table of a profile.
    pub(super) fn exec(&mut self, table: &DeTable<'_>, profile: &mut Profile, outside: Option<&Value<'_>>) {
        self.report.keys(table, &EXEC);
        if let Some(value) = table.get("outside_scope")
            && let Some(verdict) = self.verdict(value)
        {
            if outside.is_some() && profile.outside.get(Op::EXECUTE) != verdict {
                self.report.error_help(
                    &value.span(),
                    "`exec.outside_scope` and `files.outside.execute` are the same and say different things"
                        .to_owned(),
                    "keep one of them",
                );
            }
            profile.outside.set(Op::EXECUTE, verdict);
        }
        if let Some(verdict) = table.get("anonymous").and_then(|value| self.verdict(value)) {
            profile.exec.anonymous = verdict;
        }
        let Some(value) = table.get("rule") else { return };
        let tables = self.report.tables(value, &format!("profile.{}.exec.rule", profile.name));
        for (table, span) in tables {
            let rule = self.command_rule(table, &span);
            profile.exec.rules.extend(rule);
        }
    }

    fn command_rule(&mut self, table: &DeTable<'_>, span: &Range<usize>) -> Option<CommandRule> {
        self.report.keys(table, &RULE);
        let argv = self.required(table, span, "argv");
        let verdict = self.required(table, span, "verdict");
        let origin = self.report.origin(&argv.map_or_else(|| span.clone(), Value::span));
        let command = argv.map(|value| self.command(value));
        let verdict = verdict.map(|value| self.verdict(value));
        let reason = table.get("reason").and_then(|value| self.report.string(value, "`reason`"));
        Some(CommandRule {
            command: command??,
            verdict: verdict??,
            reason: reason.map(str::to_owned),
            origin,
        })
    }

    fn command(&mut self, value: &Value<'_>) -> Option<CommandPattern> {
        let values = self.report.array(value, "`argv`");
        if values.len() > MAX_WORDS {
            self.report.error(&value.span(), format!("`argv` has more than {MAX_WORDS} words"));
            return None;
        }
        let mut words = Vec::new();
        for value in values {
            words.push((self.word(value)?, value));
        }
        let Some(((first, first_value), rest)) = words.split_first() else {
            if value.get_ref().is_array() {
                self.report.error_help(
                    &value.span(),
                    "`argv` is empty, so the rule is about nothing".to_owned(),
                    "write the program and its arguments: [\"terraform\", \"destroy\", \"...\"]",
                );
            }
            return None;
        };
        let Word::One(Glob(text)) = first else {
            self.report.error_help(
                &first_value.span(),
                "a command begins with its program".to_owned(),
                "`\"*\"` is any program",
            );
            return None;
        };
        let (path, name) = match text.rsplit_once('/') {
            None => (None, text.as_str()),
            Some((directory, name)) => {
                if !text.starts_with('/') || name.is_empty() || directory.contains('*') || name.contains('*')
                {
                    self.report.error_help(
                        &first_value.span(),
                        format!("{text:?} is no program"),
                        "write its name, as it is found by in PATH, or its whole path without `*`",
                    );
                    return None;
                }
                (Some(text.clone()), name)
            }
        };
        let arguments = rest.iter().map(|(word, _)| word.clone()).collect();
        Some(CommandPattern { program: Glob(name.to_owned()), path, arguments })
    }

    fn word(&mut self, value: &Value<'_>) -> Option<Word> {
        let text = self.report.string(value, "a word of `argv`")?;
        if text == "..." {
            return Some(Word::Any);
        }
        if text.len() > MAX_WORD || text.contains('\0') {
            let message = format!("a word can have {MAX_WORD} bytes, of which none is zero");
            self.report.error(&value.span(), message);
            return None;
        }
        Some(Word::One(Glob(text.to_owned())))
    }
}

#[cfg(test)]
mod tests {
    use super::super::{load, source::Source};
    use super::*;

    fn profile(text: &str) -> Result<Profile, String> {
        let text = format!("version = 1\n{text}");
        let policy = load(vec![Source { name: "a.toml".to_owned(), text }]);
        let policy =
            policy.map_err(|errors| errors.iter().map(|error| format!("{error}\n")).collect::<String>())?;
        Ok(policy.profile("p").unwrap().clone())
    }

    #[test]
    fn rules() {
        let found = profile(
            "[profile.p.exec]\nanonymous = \"report\"\noutside_scope = \"deny\"\n\
             [[profile.p.exec.rule]]\nargv = [\"git\", \"push\", \"...\", \"--force\", \"...\"]\nverdict = \"hold\"\n\
             [[profile.p.exec.rule]]\nargv = [\"/usr/bin/aws\", \"*\", \"delete-*\", \"\"]\nverdict = \"deny\"\nreason = \"no\"",
        )
        .unwrap();
        assert_eq!((found.exec.anonymous, found.outside.get(Op::EXECUTE)), (Verdict::REPORT, Verdict::DENY));
        let texts: Vec<_> = found.exec.rules.iter().map(|rule| rule.command.to_string()).collect();
        assert_eq!(texts, ["git push ... --force ...", "/usr/bin/aws * delete-* \"\""]);
        let aws = &found.exec.rules[1].command;
        assert_eq!((aws.program.literal(), aws.path.as_deref()), (Some("aws"), Some("/usr/bin/aws")));
        assert_ne!(found.exec.judged(), 0);
    }

    #[test]
    fn what_is_said_by_nobody() {
        let found = profile("[profile.p]").unwrap();
        assert_eq!(found.exec, Exec::default());
        assert_ne!(found.exec.judged(), 0);
        let found = profile("[profile.p.exec]\nanonymous = \"allow\"").unwrap();
        assert_eq!(found.exec.judged(), 0);
    }

    #[test]
    fn mistakes() {
        let all = profile(
            "[profile.p.files]\noutside = { execute = \"allow\" }\n[profile.p.exec]\noutside_scope = \"deny\"\nrul = 1\n\
             [[profile.p.exec.rule]]\nargv = []\nverdict = \"hold\"\n\
             [[profile.p.exec.rule]]\nargv = [\"...\", \"x\"]\nverdict = \"hold\"\n\
             [[profile.p.exec.rule]]\nargv = [\"bin/x\"]\nverdict = \"hold\"\n\
             [[profile.p.exec.rule]]\nargv = [\"x\", 3]\n",
        )
        .unwrap_err();
        for part in [
            "say different things",
            "did you mean `rule`",
            "a.toml:8:8",
            "about nothing",
            "begins with its program",
            "\"bin/x\" is no program",
            "a word of `argv` must be a string",
            "`verdict` is missing",
        ] {
            assert!(all.contains(part), "{part} in {all}");
        }
    }
}
