//! `[profile.NAME.network]`, read.

use std::ops::Range;

use agent_guard_common::{Op, Verdict};
use toml::de::DeTable;

use super::super::{
    check::Checker,
    model::{AbstractRule, Denied, FileRule, NameRule, NetRule, Profile},
    net::{self, For, Host},
    parse::{self, Keys, Value},
    paths,
    sockets::{self, Socket},
};

const NETWORK: Keys = Keys {
    place: "`network`",
    known: &["connect", "allow", "report", "hold", "deny", "listen", "denied", "names"],
    later: &[],
};

/// The lists, and what they say of their entries.
const LISTS: [(&str, Verdict); 4] = [
    ("allow", Verdict::ALLOW),
    ("report", Verdict::REPORT),
    ("hold", Verdict::HOLD),
    ("deny", Verdict::DENY),
];

/// What Unix sockets begin with.
const UNIX: &str = "unix:";

impl Checker<'_> {
    /// Reads the table of a profile.
    pub(in super::super) fn network(&mut self, network: &DeTable<'_>, profile: &mut Profile) {
        self.report.keys(network, &NETWORK);
        if let Some(verdict) = network.get("connect").and_then(|value| self.verdict(value)) {
            profile.connect = verdict;
        }
        for (list, verdict) in LISTS {
            let Some(value) = network.get(list) else { continue };
            for entry in self.report.array(value, &format!("`{list}`")) {
                let Some(text) = self.report.string(entry, &format!("an entry of `{list}`")) else {
                    continue;
                };
                match text.strip_prefix(UNIX) {
                    Some(socket) => self.socket(socket, &entry.span(), verdict, profile),
                    None => self.destination(text, &entry.span(), verdict, profile),
                }
            }
        }
        if let Some(value) = network.get("listen") {
            for entry in self.report.array(value, "`listen`") {
                profile.listen.extend(self.listen(entry));
            }
        }
        if let Some(value) = network.get("denied") {
            profile.denied = self.denied(value);
        }
        if let Some(names) =
            network.get("names").and_then(|value| self.report.table(value, "`network.names`"))
        {
            profile.limits = self.limits(names);
        }
    }

    /// An address or a name.
    fn destination(&mut self, text: &str, span: &Range<usize>, verdict: Verdict, profile: &mut Profile) {
        let (origin, text) = (self.report.origin(span), text.to_owned());
        match net::parse(&text, For::Connecting) {
            Ok(net::Entry { host: Host::Networks(prefixes), ports }) => {
                profile.network.push(NetRule { text, prefixes, ports, verdict, origin });
            }
            Ok(net::Entry { host: Host::Names(pattern), ports }) => {
                profile.names.push(NameRule { text, pattern, ports, verdict, origin });
            }
            Err(net::Unusable(message, help)) => self.report.error_help(span, message, help),
        }
    }

    /// What comes behind `unix:`.
    fn socket(&mut self, text: &str, span: &Range<usize>, verdict: Verdict, profile: &mut Profile) {
        let origin = self.report.origin(span);
        match sockets::parse(text) {
            Ok(Socket::File(path)) => {
                let ops = vec![Op::CONNECT];
                profile.sockets.push(FileRule { path, ops, verdict, reason: None, origin });
            }
            Ok(Socket::Abstract(name, begins)) => {
                profile.abstracts.push(AbstractRule { name, begins, verdict, origin });
            }
            Err(paths::Unusable(message, help)) => self.report.error_help(span, message, help),
        }
    }

    /// An address of the host's.
    fn listen(&mut self, entry: &Value<'_>) -> Option<NetRule> {
        let span = entry.span();
        let text = self.report.string(entry, "an entry of `listen`")?;
        if text.starts_with(UNIX) {
            self.report.error_help(
                &span,
                format!("{text:?} is no address of the host's"),
                "where a session may make sockets that are files is said by rules on files about `create`, and abstract names may be \
                 bound by everybody: remove it",
            );
            return None;
        }
        match net::parse(text, For::Listening) {
            Ok(net::Entry { host: Host::Networks(prefixes), ports }) => Some(NetRule {
                text: text.to_owned(),
                prefixes,
                ports,
                verdict: Verdict::ALLOW,
                origin: self.report.origin(&span),
            }),
            Ok(net::Entry { host: Host::Names(_), .. }) => {
                self.report.error_help(
                    &span,
                    format!("{text:?} is a name, and what is bound is an address"),
                    "write addresses of the host's, `localhost`, or `0.0.0.0/0` and `::/0` for every one",
                );
                None
            }
            Err(net::Unusable(message, help)) => {
                self.report.error_help(&span, message, help);
                None
            }
        }
    }

    fn denied(&mut self, value: &Value<'_>) -> Denied {
        let known = [Denied::NotPermitted, Denied::Refused];
        let Some(text) = self.report.string(value, "`denied`") else { return Denied::default() };
        known.into_iter().find(|denied| denied.name() == text).unwrap_or_else(|| {
            let names = known.map(Denied::name);
            let help = parse::suggest(&text.to_ascii_uppercase(), names);
            let help = help.unwrap_or_else(|| format!("errors are {}", parse::list(&names)));
            self.report.error_help(
                &value.span(),
                format!("a denied connection can't fail with {text:?}"),
                help,
            );
            Denied::default()
        })
    }
}
