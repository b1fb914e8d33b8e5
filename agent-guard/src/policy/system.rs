//! `[profile.NAME.system]`: what may be done to the system.

use agent_guard_common::{Op, Verdict, system::CAPABILITIES};
use toml::de::DeTable;

use crate::kernel::enforcement::{Holdable, holdable};

use super::{
    check::Checker,
    diagnostic::Diagnostic,
    model::{Origin, Policy, Profile},
    parse::{self, Keys, Value},
};

const SYSTEM: Keys = Keys {
    place: "`system`",
    known: &[
        "mount",
        "namespaces",
        "modules",
        "bpf",
        "perf",
        "kexec",
        "reboot",
        "clock",
        "swap",
        "hostname",
        "raw_disk",
        "raw_network",
        "cgroups",
        "setuid",
        "keyrings",
        "sysctl",
        "helpers",
        "ptrace",
        "signal",
        "priority",
        "vsock",
        "netlink",
        "crypto",
        "bluetooth",
        "tun",
        "sockets",
        "capabilities",
    ],
    later: &[],
};

/// What may be done to the system: one verdict an operation, and capabilities.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct System {
    verdicts: [Verdict; Op::SYSTEM_COUNT],
    /// Bits by their numbers.
    pub capabilities: u64,
    /// Where verdicts stand that the policy says.
    said: Vec<(Op, Origin)>,
}

impl Default for System {
    /// Nothing may.
    fn default() -> Self {
        Self { verdicts: [Verdict::DENY; Op::SYSTEM_COUNT], capabilities: 0, said: Vec::new() }
    }
}

/// All capabilities that there are.
const ALL: u64 = (1 << CAPABILITIES.len()) - 1;

impl System {
    /// The verdict for an operation.
    pub fn get(&self, op: Op) -> Verdict {
        self.verdicts.get(usize::from(op.0) & (Op::SYSTEM_COUNT - 1)).copied().unwrap_or(Verdict::DENY)
    }

    fn set(&mut self, op: Op, verdict: Verdict, origin: Origin) {
        if let Some(slot) = self.verdicts.get_mut(usize::from(op.0) & (Op::SYSTEM_COUNT - 1)) {
            *slot = verdict;
            self.said.push((op, origin));
        }
    }

    /// Where the policy says something of an operation.
    #[must_use]
    pub fn origin(&self, op: Op) -> Option<&Origin> {
        self.said.iter().find(|(said, _)| *said == op).map(|(_, origin)| origin)
    }

    /// As the tables have it.
    #[must_use]
    pub fn bytes(&self) -> [u8; Op::SYSTEM_COUNT] {
        self.verdicts.map(|verdict| verdict.0)
    }

    /// Operations that anything but `allow` is said of, by their [`Op::mask`].
    #[must_use]
    pub fn judged(&self) -> u64 {
        let ops = Op::SYSTEM.into_iter().filter(|op| self.get(*op) != Verdict::ALLOW);
        let some = if self.capabilities == ALL { 0 } else { Op::CAPABILITY.mask() };
        ops.fold(some, |judged, op| judged | op.mask())
    }

    /// Names of the capabilities that may be used; `*` for all.
    #[must_use]
    pub fn capability_names(&self) -> Vec<String> {
        if self.capabilities == ALL {
            return vec!["*".to_owned()];
        }
        let named = (0..).zip(CAPABILITIES).filter(|(number, _)| self.capabilities >> number & 1 != 0);
        named.map(|(_, name)| name.to_owned()).collect()
    }
}

/// What the author of a policy should know.
pub(super) fn warnings(policy: &Policy) -> impl Iterator<Item = Diagnostic> + '_ {
    let said = policy.profiles.iter().flat_map(|profile| {
        profile.system.said.iter().map(move |(op, origin)| (profile.system.get(*op), *op, origin))
    });
    said.filter(|(verdict, op, _)| *verdict == Verdict::HOLD && holdable(*op) == Holdable::No).map(
        |(_, op, origin)| {
            let message = format!("`{}` can't be held: it will be denied, and the event says so", op.name());
            Diagnostic::warning(origin, message)
                .help("write `deny`, or `allow` for the time that it is needed")
        },
    )
}

impl Checker<'_> {
    /// Reads the table of a profile.
    pub(super) fn system(&mut self, table: &DeTable<'_>, profile: &mut Profile) {
        self.report.keys(table, &SYSTEM);
        for op in Op::SYSTEM {
            let Some(value) = table.get(op.name()) else { continue };
            let Some(verdict) = self.verdict(value) else { continue };
            profile.system.set(op, verdict, self.report.origin(&value.span()));
        }
        if let Some(value) = table.get("capabilities") {
            for entry in self.report.array(value, "`capabilities`") {
                profile.system.capabilities |= self.capability(entry);
            }
        }
    }

    /// A capability, as `CAP_SYS_NICE` or `sys_nice`; `*` is all.
    fn capability(&mut self, value: &Value<'_>) -> u64 {
        let Some(text) = self.report.string(value, "a capability") else { return 0 };
        if text == "*" {
            return ALL;
        }
        let name = text.to_ascii_lowercase();
        let name = name.strip_prefix("cap_").unwrap_or(&name);
        let number = CAPABILITIES.iter().position(|known| *known == name);
        let bit =
            number.and_then(|number| u32::try_from(number).ok()).and_then(|number| 1_u64.checked_shl(number));
        bit.unwrap_or_else(|| {
            let help = parse::suggest(name, CAPABILITIES);
            let help = help.unwrap_or_else(|| "capabilities(7) lists them; `*` is all of them".to_owned());
            self.report.error_help(&value.span(), format!("unknown capability {text:?}"), help);
            0
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::{load, source::Source};
    use super::*;

    fn system(text: &str) -> Result<(System, Vec<String>), Vec<String>> {
        let text = format!("version = 1\n[profile.p.system]\n{text}");
        let policy = load(vec![Source { name: "a.toml".to_owned(), text }])
            .map_err(|errors| errors.iter().map(ToString::to_string).collect::<Vec<_>>())?;
        let warnings = warnings(&policy).map(|warning| warning.to_string()).collect();
        Ok((policy.profile("p").unwrap().system.clone(), warnings))
    }

    #[test]
    fn nothing_is_allowed_unless_said() {
        let (nothing, _) = system("").unwrap();
        assert!(Op::SYSTEM.into_iter().all(|op| nothing.get(op) == Verdict::DENY));
        assert_eq!((nothing.capabilities, nothing.judged().count_ones()), (0, 27));
        let (some, warnings) =
            system("mount = \"allow\"\nsetuid = \"hold\"\ncapabilities = [\"CAP_CHOWN\", \"sys_nice\"]")
                .unwrap();
        assert_eq!((some.get(Op::MOUNT), some.get(Op::SETUID)), (Verdict::ALLOW, Verdict::HOLD));
        assert_eq!(some.capability_names(), ["chown", "sys_nice"]);
        assert_eq!(some.judged() & Op::MOUNT.mask(), 0);
        assert!(warnings.is_empty());
    }

    #[test]
    fn every_operation_has_a_key() {
        for op in Op::SYSTEM {
            let (said, _) = system(&format!("{} = \"report\"", op.name())).unwrap();
            assert_eq!(said.get(op), Verdict::REPORT, "{}", op.name());
        }
        let (all, _) = system("capabilities = [\"*\"]").unwrap();
        assert_eq!((all.capability_names(), all.judged() & Op::CAPABILITY.mask()), (vec!["*".to_owned()], 0));
    }

    #[test]
    fn mistakes() {
        let errors =
            system("mout = \"deny\"\nbpf = \"maybe\"\ncapabilities = [\"sys_admni\", 3]").unwrap_err();
        let all = errors.join("\n");
        for part in ["mout", "maybe", "sys_admni", "sys_admin", "a.toml:3:1"] {
            assert!(all.contains(part), "{part} in {all}");
        }
    }

    #[test]
    fn what_cant_be_held() {
        let (_, warnings) = system("reboot = \"hold\"\nmount = \"hold\"").unwrap();
        assert_eq!(warnings.len(), 1);
        assert!(
            warnings[0].contains("`reboot` can't be held") && warnings[0].contains(":3:"),
            "{warnings:?}"
        );
    }
}
