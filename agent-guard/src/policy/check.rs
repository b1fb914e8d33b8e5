//! From documents to the model. Goes on after a mistake, so that one run finds all of them.

use std::{collections::BTreeMap, ops::Range};

use agent_guard_common::{Op, Verdict};
use sha2::{Digest, Sha256};
use toml::de::{DeTable, DeValue};

use super::{
    diagnostic::Diagnostic,
    enroll::{self, Enroll},
    exec::Exec,
    model::{
        Degraded, Denied, FileRule, Mode, NameLimits, Outside, PathPattern, Policy, Profile, Resolver,
        ScopePath,
    },
    parse,
    parse::{Keys, Report, Value},
    paths,
    persistence::Persistence,
    source::Source,
    system::System,
};

const TOP: Keys = Keys {
    place: "the policy",
    known: &["version", "critical", "enroll", "profile", "resolver"],
    later: &[],
};
const PROFILE: Keys = Keys {
    place: "a profile",
    known: &["mode", "degraded", "files", "exec", "network", "system"],
    later: &["ttl", "limit", "approval", "backup"],
};
const FILES: Keys =
    Keys { place: "`files`", known: &["scope", "outside", "rule", "persistence"], later: &[] };
const RULE: Keys = Keys { place: "a rule", known: &["path", "ops", "verdict", "reason"], later: &[] };
const OUTSIDE: Keys = Keys {
    place: "`files.outside`",
    known: &["read", "execute", "write", "create", "delete", "rename", "metadata"],
    later: &[],
};

/// Longest name of a profile.
const MAX_NAME: usize = 64;

/// Reads the policy out of its sources.
pub(super) fn policy(sources: &[Source]) -> Result<Policy, Vec<Diagnostic>> {
    let mut mistakes = Vec::new();
    let (mut critical, mut enroll) = (Vec::new(), Vec::new());
    let mut profiles: BTreeMap<String, Profile> = BTreeMap::new();
    let mut resolver = Resolver::default();
    for source in sources {
        let mut checker = Checker { report: Report::new(source) };
        let Document { critical: more, enroll: enrolled, profiles: found, resolver: asks } =
            checker.document();
        mistakes.extend(checker.report.finish());
        critical.extend(more);
        enroll.extend(enrolled);
        match (&resolver.origin, &asks.origin) {
            (_, None) => {}
            (None, _) => resolver = asks,
            (Some(first), Some(again)) => {
                let message = format!("`resolver` is already defined at {first}");
                mistakes.push(Diagnostic::error(again, message).help("keep one of them"));
            }
        }
        for profile in found {
            if let Some(first) = profiles.get(&profile.name) {
                let message = format!("profile `{}` is already defined at {}", profile.name, first.origin);
                mistakes.push(
                    Diagnostic::error(&profile.origin, message).help("keep one of them, or rename one"),
                );
            } else {
                profiles.insert(profile.name.clone(), profile);
            }
        }
    }
    if !mistakes.is_empty() {
        return Err(mistakes);
    }
    let mut policy = Policy {
        critical,
        enroll,
        own: Vec::new(),
        homes: Vec::new(),
        profiles: profiles.into_values().collect(),
        resolver,
        files: sources.iter().map(|source| source.name.clone()).collect(),
        digest: digest(sources),
    };
    policy.persist(&[]);
    let mut mistakes = enroll::mistakes(&policy);
    mistakes.extend(policy.number_standing(&BTreeMap::new()).err());
    if mistakes.is_empty() { Ok(policy) } else { Err(mistakes) }
}

/// SHA-256 over names and texts, each with its length before it.
fn digest(sources: &[Source]) -> String {
    let mut hash = Sha256::new();
    for part in sources.iter().flat_map(|source| [&source.name, &source.text]) {
        hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// What one source says.
#[derive(Default)]
struct Document {
    critical: Vec<FileRule>,
    enroll: Vec<Enroll>,
    profiles: Vec<Profile>,
    resolver: Resolver,
}

/// Reads one source.
pub(super) struct Checker<'a> {
    pub(super) report: Report<'a>,
}

impl Checker<'_> {
    fn document(&mut self) -> Document {
        let Some(document) = self.report.document() else { return Default::default() };
        let top = document.get_ref();
        self.report.keys(top, &TOP);
        self.version(top.get("version"));
        let critical = match top.get("critical") {
            Some(value) => self.rules(value, "critical", true),
            None => Vec::new(),
        };
        let enroll = top.get("enroll").map_or_else(Vec::new, |value| self.enroll(value));
        let mut profiles = Vec::new();
        if let Some(table) = top.get("profile").and_then(|value| self.report.table(value, "`profile`")) {
            for (name, value) in table {
                profiles.extend(self.profile(name.get_ref(), &name.span(), value));
            }
        }
        let resolver = top.get("resolver").map(|value| self.resolver(value)).unwrap_or_default();
        Document { critical, enroll, profiles, resolver }
    }

    fn version(&mut self, value: Option<&Value<'_>>) {
        let help = "write `version = 1`";
        let Some(value) = value else {
            return self.report.error_help(&(0..0), "`version` is missing", help);
        };
        match value.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 && number.as_str() == "1" => {}
            DeValue::Integer(number) => {
                let message = format!("version {number} of the policy language is not known");
                self.report.error_help(&value.span(), message, help);
            }
            other => {
                let message = format!("`version` must be an integer, not {}", other.type_str());
                self.report.error_help(&value.span(), message, help);
            }
        }
    }

    fn profile(&mut self, name: &str, span: &Range<usize>, value: &Value<'_>) -> Option<Profile> {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
            self.report.error_help(
                span,
                format!("{name:?} can't be the name of a profile"),
                format!("use 1 to {MAX_NAME} of the characters a-z, A-Z, 0-9, `-`, `_` and `.`"),
            );
        }
        let table = self.report.table(value, "a profile")?;
        self.report.keys(table, &PROFILE);
        let mut profile = Profile {
            name: name.to_owned(),
            mode: self.mode(table.get("mode")),
            scope: Vec::new(),
            outside: Outside::default(),
            rules: Vec::new(),
            persistence: Persistence::default(),
            degraded: self.degraded(table.get("degraded")),
            connect: Verdict::DENY,
            network: Vec::new(),
            names: Vec::new(),
            limits: NameLimits::default(),
            listen: Vec::new(),
            denied: Denied::default(),
            sockets: Vec::new(),
            abstracts: Vec::new(),
            exec: Exec::default(),
            system: System::default(),
            origin: self.report.origin(span),
        };
        if let Some(files) = table.get("files").and_then(|value| self.report.table(value, "`files`")) {
            self.files(files, &mut profile);
        }
        if let Some(exec) = table.get("exec").and_then(|value| self.report.table(value, "`exec`")) {
            let outside = table.get("files").and_then(|files| files.get_ref().as_table()?.get("outside"));
            let outside = outside.and_then(|outside| outside.get_ref().as_table()?.get("execute"));
            self.exec(exec, &mut profile, outside);
        }
        if let Some(network) = table.get("network").and_then(|value| self.report.table(value, "`network`")) {
            self.network(network, &mut profile);
        }
        if let Some(system) = table.get("system").and_then(|value| self.report.table(value, "`system`")) {
            self.system(system, &mut profile);
        }
        Some(profile)
    }

    fn mode(&mut self, value: Option<&Value<'_>>) -> Mode {
        let known = [("enforce", Mode::Enforce), ("report", Mode::Report)];
        self.one_of(value, "mode", known).unwrap_or(Mode::Enforce)
    }

    fn degraded(&mut self, value: Option<&Value<'_>>) -> Degraded {
        let known = [("refuse", Degraded::Refuse), ("report", Degraded::Report)];
        self.one_of(value, "degraded", known).unwrap_or_default()
    }

    fn one_of<T: Copy>(&mut self, value: Option<&Value<'_>>, key: &str, known: [(&str, T); 2]) -> Option<T> {
        let value = value?;
        let text = self.report.string(value, &format!("`{key}`"))?;
        let found = known.into_iter().find(|(name, _)| *name == text);
        if found.is_none() {
            let [one, other] = known.map(|(name, _)| name);
            let help = parse::suggest(text, [one, other]);
            let help = help.unwrap_or_else(|| format!("`{key}` is `{one}` or `{other}`"));
            self.report.error_help(&value.span(), format!("unknown {key} {text:?}"), help);
        }
        found.map(|(_, what)| what)
    }

    fn files(&mut self, files: &DeTable<'_>, profile: &mut Profile) {
        self.report.keys(files, &FILES);
        if let Some(value) = files.get("scope") {
            for entry in self.report.array(value, "`scope`") {
                profile.scope.extend(self.scope(entry));
            }
        }
        if let Some(outside) =
            files.get("outside").and_then(|value| self.report.table(value, "`files.outside`"))
        {
            self.outside(outside, &mut profile.outside);
        }
        self.persistence(files, &mut profile.persistence);
        if let Some(value) = files.get("rule") {
            profile.rules = self.rules(value, &format!("profile.{}.files.rule", profile.name), false);
        }
    }

    fn outside(&mut self, table: &DeTable<'_>, outside: &mut Outside) {
        self.report.keys(table, &OUTSIDE);
        for op in Op::FILE {
            let Some(value) = table.get(op.name()) else { continue };
            let Some(verdict) = self.verdict(value) else { continue };
            outside.set(op, verdict);
        }
    }

    fn rules(&mut self, value: &Value<'_>, what: &str, critical: bool) -> Vec<FileRule> {
        let tables = self.report.tables(value, what);
        tables.into_iter().filter_map(|(table, span)| self.rule(table, &span, critical)).collect()
    }

    fn rule(&mut self, table: &DeTable<'_>, span: &Range<usize>, critical: bool) -> Option<FileRule> {
        self.report.keys(table, &RULE);
        let path = self.required(table, span, "path");
        let ops = self.required(table, span, "ops");
        let verdict = self.required(table, span, "verdict");
        let reason = if critical { self.required(table, span, "reason") } else { table.get("reason") };
        let origin = self.report.origin(&path.map_or_else(|| span.clone(), Value::span));
        let path = path
            .and_then(|value| if critical { self.critical_path(value) } else { self.path(value, "`path`") });
        let judged = verdict.and_then(|value| self.verdict(value));
        if let (true, Some(value), Some(judged)) = (critical, verdict, judged)
            && judged.goes_on()
        {
            self.report.error_help(
                &value.span(),
                format!("a critical path can't have the verdict {:?}", judged.name()),
                "what is critical is decided before every profile, so this would open it for all of them: \
                 use `hold`, `deny` or `kill`",
            );
        }
        let ops = ops.map(|value| self.ops(value));
        let reason = reason.and_then(|value| self.report.string(value, "`reason`"));
        Some(FileRule { path: path?, ops: ops?, verdict: judged?, reason: reason.map(str::to_owned), origin })
    }

    pub(super) fn required<'v, 'i>(
        &mut self,
        table: &'v DeTable<'i>,
        span: &Range<usize>,
        key: &str,
    ) -> Option<&'v Value<'i>> {
        let value = table.get(key);
        if value.is_none() {
            self.report.error(span, format!("`{key}` is missing"));
        }
        value
    }

    pub(super) fn path(&mut self, value: &Value<'_>, what: &str) -> Option<PathPattern> {
        match paths::parse(self.report.string(value, what)?) {
            Ok(path) => Some(path),
            Err(paths::Unusable(message, help)) => {
                self.report.error_help(&value.span(), message, help);
                None
            }
        }
    }

    /// A path that can be part of the scope.
    fn scope(&mut self, value: &Value<'_>) -> Option<ScopePath> {
        let path = self.path(value, "an entry of `scope`")?;
        if path.is_anywhere() {
            let message = format!("`{path}` can't be in the scope: it may be anywhere");
            self.report.error_help(
                &value.span(),
                message,
                "name the directories, or write a rule with the verdict `allow`",
            );
            return None;
        }
        Some(ScopePath { path, origin: self.report.origin(&value.span()) })
    }

    /// A path that is the same for every session.
    fn critical_path(&mut self, value: &Value<'_>) -> Option<PathPattern> {
        let path = self.path(value, "`path`")?;
        if path.is_variable() {
            let message = format!("`{path}` can't be critical: each session has another one");
            self.report.error_help(
                &value.span(),
                message,
                "write the path out, or write a rule of a profile",
            );
            return None;
        }
        Some(path)
    }

    pub(super) fn verdict(&mut self, value: &Value<'_>) -> Option<Verdict> {
        let text = self.report.string(value, "a verdict")?;
        let verdict = Verdict::from_name(text);
        if verdict.is_none() {
            let names = Verdict::ALL.map(Verdict::name);
            let help = parse::suggest(text, names);
            let help = help.unwrap_or_else(|| format!("verdicts are {}", parse::list(&names)));
            self.report.error_help(&value.span(), format!("unknown verdict {text:?}"), help);
        }
        verdict
    }

    fn ops(&mut self, value: &Value<'_>) -> Vec<Op> {
        let mut ops = Vec::new();
        let values = self.report.array(value, "`ops`");
        if values.is_empty() && value.get_ref().is_array() {
            self.report.error(&value.span(), "`ops` is empty, so the rule is about nothing");
        }
        for value in values {
            let Some(name) = self.report.string(value, "an operation") else { continue };
            let Some(op) = Op::FILE.into_iter().find(|op| op.name() == name) else {
                let names = Op::FILE.map(Op::name);
                let help = parse::suggest(name, names);
                let help = help.unwrap_or_else(|| format!("operations are {}", parse::list(&names)));
                self.report.error_help(&value.span(), format!("unknown operation {name:?}"), help);
                continue;
            };
            if ops.contains(&op) {
                self.report.error(&value.span(), format!("`{name}` is named twice"));
            } else {
                ops.push(op);
            }
        }
        ops.sort();
        ops
    }
}
