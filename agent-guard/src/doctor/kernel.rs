//! The kernel: what it is, what it was built with, how it was booted, and what it takes.

use std::{collections::BTreeMap, process::Command};

use super::{
    Check, Need, State, boot,
    probe::{Answer, Probe},
};
use crate::kernel::{
    Error,
    btf::Btf,
    host::Host,
    layout, programs,
    support::{self, Tier},
};

/// Series that the tests run on.
const TESTED: [(u32, u32); 4] = [(6, 1), (6, 12), (6, 18), (7, 2)];
/// What a kernel must have been built with.
const NEEDED: [&str; 6] =
    ["BPF_SYSCALL", "BPF_JIT", "BPF_LSM", "DEBUG_INFO_BTF", "SECURITY_PATH", "SECURITY_NETWORK"];

pub(super) fn checks(
    host: &Host,
    btf: Result<&Btf, &Error>,
    probe: &dyn Probe,
    (tier, programs): (&Tier, Answer),
) -> Vec<Check> {
    let config = Config::read(host);
    let kernel = [version(host), built(&config, btf.ok(), tier), modules(host, &config, tier), types(btf)];
    let mut checks = Vec::from(kernel);
    if let Ok(btf) = btf {
        checks.extend([structures(btf), hooks(btf, tier)]);
    }
    let programs = asked("lsm_program", "a program for an LSM hook is verified and attached", programs);
    checks.extend([
        programs.but(tier),
        asked("ring_buffer", "ring buffers", probe.ring_buffer()),
        asked("task_storage", "task storage", probe.task_storage()),
        lockdown(host),
        preemption(host),
        unprivileged(host),
    ]);
    checks
}

fn version(host: &Host) -> Check {
    let release = host.release();
    let series = support::series(&release);
    let found = format!("Linux {release}");
    if series < (6, 1) {
        let advice = "use Linux 6.1 or later; Debian's 6.1, 6.12, 6.18 and 7.2 are tested";
        return Check::not("kernel", Need::Enforcement, State::Missing, format!("{found}, older than 6.1"))
            .then(advice);
    }
    let tested =
        if TESTED.contains(&series) { "of a series that is tested" } else { "of a series that isn't tested" };
    Check::ok("kernel", Need::Enforcement, format!("{found}, {tested}"))
}

/// What a kernel was built with.
struct Config {
    /// Where it says so.
    file: String,
    options: BTreeMap<String, String>,
}

impl Config {
    /// Reads it from wherever distributions put it.
    fn read(host: &Host) -> Option<Self> {
        let release = host.release();
        let files = [
            format!("/boot/config-{release}"),
            format!("/lib/modules/{release}/config"),
            format!("/usr/lib/modules/{release}/config"),
        ];
        let plain = files.into_iter().find_map(|file| Some((host.read(&file).ok()?, file)));
        let (text, file) = plain.or_else(|| Some((packed(host)?, "/proc/config.gz".to_owned())))?;
        let options = text.lines().filter_map(|line| {
            let (name, value) = line.trim().strip_prefix("CONFIG_")?.split_once('=')?;
            Some((name.to_owned(), value.trim_matches('"').to_owned()))
        });
        Some(Self { file, options: options.collect() })
    }

    fn has(&self, option: &str) -> bool {
        self.options.get(option).is_some_and(|value| value == "y")
    }
}

/// `/proc/config.gz`, by the program that every host has for it.
fn packed(host: &Host) -> Option<String> {
    let path = host.path("/proc/config.gz");
    let done = path.exists().then(|| Command::new("gzip").arg("-dc").arg(path).output().ok())??;
    done.status.success().then(|| String::from_utf8_lossy(&done.stdout).into_owned())
}

fn built(config: &Option<Config>, btf: Option<&Btf>, tier: &Tier) -> Check {
    const NAME: &str = "config";
    if let Some(config) = config {
        // Without these the network is judged all the same.
        let lsm = ["BPF_LSM", "SECURITY_PATH", "SECURITY_NETWORK"];
        let needed = NEEDED.into_iter().filter(|option| *tier == Tier::All || !lsm.contains(option));
        let lacks: Vec<_> = needed.filter(|option| !config.has(option)).collect();
        let file = &config.file;
        if lacks.is_empty() {
            return Check::ok(
                NAME,
                Need::Enforcement,
                match tier {
                    Tier::All => format!("CONFIG_BPF_LSM and what else is needed ({file})"),
                    Tier::NetworkOnly(_) => format!("what the network's half needs ({file})"),
                },
            );
        }
        let lacks: Vec<_> = lacks.into_iter().map(|option| format!("CONFIG_{option}")).collect();
        let found = format!("built without {} ({file})", lacks.join(", "));
        return Check::not(NAME, Need::Enforcement, State::Missing, found)
            .then("use a kernel that was built with them; those of Debian, Ubuntu and Fedora are");
    }
    let has_hooks = btf.is_some_and(|btf| {
        programs::PROGRAMS
            .iter()
            .any(|program| program.lsm_hook().is_some() && programs::present(btf, program))
    });
    if has_hooks {
        return Check::ok(NAME, Need::Enforcement, "CONFIG_BPF_LSM, as the kernel's types show");
    }
    Check::not(NAME, Need::Enforcement, State::Unknown, "no configuration of this kernel can be read")
        .then("look for CONFIG_BPF_LSM=y where your distribution has it")
}

/// Whether `bpf` is among the security modules.
fn modules(host: &Host, config: &Option<Config>, tier: &Tier) -> Check {
    listed(host, config).but(tier)
}

fn listed(host: &Host, config: &Option<Config>) -> Check {
    const NAME: &str = "lsm";
    let said = host.boot_parameter("lsm");
    let booted = said.map_or_else(|| "no lsm= at boot".to_owned(), |list| format!("booted with lsm={list}"));
    match host.read(support::LSM_LIST) {
        Ok(list) if support::has_bpf(&list) => {
            Check::ok(NAME, Need::Enforcement, format!("{list} ({booted})"))
        }
        Ok(list) => {
            let found = format!("`bpf` is not among the security modules: {list} ({booted})");
            let parameter = support::lsm_parameter(host, Some(&list));
            Check::not(NAME, Need::Enforcement, State::Missing, found).steps(boot::with(host, &parameter))
        }
        Err(error) => {
            let found = format!("{} can't be read: {error} ({booted})", support::LSM_LIST);
            let check = Check::not(NAME, Need::Enforcement, State::Missing, found)
                .then("mount -t securityfs securityfs /sys/kernel/security (systemd does it at boot)");
            let default = config.as_ref().and_then(|config| config.options.get("LSM")).map(String::as_str);
            let list = host.boot_parameter("lsm").or_else(|| default.map(str::to_owned));
            match list {
                Some(list) if !support::has_bpf(&list) => {
                    check.steps(boot::with(host, &support::lsm_parameter(host, Some(&list))))
                }
                _ => check,
            }
        }
    }
}

fn types(btf: Result<&Btf, &Error>) -> Check {
    match btf {
        Ok(_) => Check::ok("btf", Need::Enforcement, support::BTF),
        Err(Error::NoBtf { source }) => {
            let found = format!("{} can't be read: {source}", support::BTF);
            Check::not("btf", Need::Enforcement, State::Missing, found)
                .then("use a kernel that was built with CONFIG_DEBUG_INFO_BTF=y")
        }
        Err(error) => Check::not("btf", Need::Enforcement, State::Missing, error.to_string())
            .then("use a kernel that was built with CONFIG_DEBUG_INFO_BTF=y"),
    }
}

/// Whether all that the hooks read is where they look for it.
fn structures(btf: &Btf) -> Check {
    let unresolved = layout::unresolved(btf);
    if unresolved.is_empty() {
        return Check::ok("layout", Need::Enforcement, "all members that the hooks read");
    }
    let all: Vec<String> = unresolved.iter().map(ToString::to_string).collect();
    Check::not("layout", Need::Enforcement, State::Missing, all.join("; "))
        .then("use a kernel of a series that is tested, or report these members")
}

fn hooks(btf: &Btf, tier: &Tier) -> Check {
    const NAME: &str = "hooks";
    let absent: Vec<&programs::Program> =
        programs::programs(tier).filter(|program| !programs::present(btf, program)).collect();
    let (replaced, lost): (Vec<&programs::Program>, Vec<&programs::Program>) =
        absent.into_iter().partition(|program| program.instead.is_some());
    if lost.is_empty() {
        let texts: Vec<String> = replaced
            .iter()
            .filter_map(|program| Some(format!("{} stands in for {}", program.instead?, program.name)))
            .collect();
        let rest = if texts.is_empty() { String::new() } else { format!("; {}", texts.join(", ")) };
        return Check::ok(NAME, Need::Enforcement, format!("all that operations need{rest}"));
    }
    let state = if lost.iter().any(|program| program.always) { State::Missing } else { State::Degraded };
    let texts: Vec<String> =
        lost.iter().map(|program| format!("{} ({})", program.name, program.enforces)).collect();
    Check::not(NAME, Need::Enforcement, state, format!("this kernel doesn't have {}", texts.join(", ")))
        .then("policies that need them are refused: allow those operations, or use another kernel")
}

fn asked(name: &'static str, what: &str, answer: Answer) -> Check {
    match answer {
        Answer::Yes => Check::ok(name, Need::Enforcement, what),
        Answer::No => {
            Check::not(name, Need::Enforcement, State::Missing, format!("this kernel can't: {what}"))
                .then("use a kernel that has them; see config")
        }
        Answer::Refused(why) => Check::not(
            name,
            Need::Enforcement,
            State::Missing,
            format!("the kernel refuses it ({what}): {why}"),
        )
        .then("in a container or a locked down machine, do it on the host; else see config and lsm"),
        Answer::NotAsked => {
            Check::not(name, Need::Enforcement, State::Unknown, format!("only root may try: {what}"))
                .then("sudo agent-guard doctor")
        }
    }
}

/// In confidentiality mode no program may read the kernel's memory (`LOCKDOWN_BPF_READ_KERNEL`,
/// `include/linux/security.h`), and the hooks must.
fn lockdown(host: &Host) -> Check {
    const NAME: &str = "lockdown";
    let advice = || boot::with(host, "lockdown=integrity");
    match host.read("/sys/kernel/security/lockdown") {
        Ok(mode) if mode.contains("[confidentiality]") => {
            let found = "confidentiality: programs can't read what they judge";
            Check::not(NAME, Need::Enforcement, State::Missing, found).steps(advice())
        }
        Ok(mode) => Check::ok(NAME, Need::Enforcement, mode),
        Err(_) if host.boot_parameter("lockdown").as_deref() == Some("confidentiality") => {
            let found = "booted with lockdown=confidentiality: programs can't read what they judge";
            Check::not(NAME, Need::Enforcement, State::Missing, found).steps(advice())
        }
        Err(_) if host.has(support::LSM_LIST) => Check::ok(NAME, Need::Enforcement, "not in this kernel"),
        Err(error) => Check::not(NAME, Need::Enforcement, State::Unknown, format!("can't be read: {error}"))
            .then("mount -t securityfs securityfs /sys/kernel/security"),
    }
}

/// Row 1g of `docs/bypasses.md`.
fn preemption(host: &Host) -> Check {
    const NAME: &str = "preemption";
    if !support::overlooks_tags(&host.release()) {
        return Check::ok(NAME, Need::Enforcement, "any mode will do on this kernel");
    }
    match support::preemption(host) {
        Some(false) => Check::ok(NAME, Need::Enforcement, "not full"),
        Some(true) => {
            let found = "full, on a kernel older than 6.2: tags can be overlooked";
            Check::not(NAME, Need::Enforcement, State::Degraded, found)
                .steps(boot::with(host, "preempt=voluntary"))
        }
        None => {
            let found =
                "which mode is in force can't be told: /sys/kernel/debug/sched/preempt isn't readable";
            Check::not(NAME, Need::Enforcement, State::Unknown, found)
                .then("ask as root, with debugfs mounted: mount -t debugfs debugfs /sys/kernel/debug")
        }
    }
}

fn unprivileged(host: &Host) -> Check {
    const NAME: &str = "unprivileged_bpf";
    match host.read("/proc/sys/kernel/unprivileged_bpf_disabled").as_deref() {
        Ok("0") => Check::not(NAME, Need::Advice, State::Degraded, "any user may load BPF programs").then(
            "write kernel.unprivileged_bpf_disabled=2 into /etc/sysctl.d/60-bpf.conf, then sysctl --system",
        ),
        Ok(value) => Check::ok(NAME, Need::Advice, format!("kernel.unprivileged_bpf_disabled={value}")),
        Err(error) => Check::not(NAME, Need::Advice, State::Unknown, format!("can't be read: {error}")),
    }
}
