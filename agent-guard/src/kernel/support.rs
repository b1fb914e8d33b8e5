//! What this kernel can enforce: preconditions and hooks.

use std::{io::ErrorKind, path::Path};

use aya::programs::{LsmAttachType, ProgramError, ProgramType};

use super::{Error, btf::Btf, host::Host};

/// Where the kernel describes its own types.
pub const BTF: &str = "/sys/kernel/btf/vmlinux";
/// Where the kernel lists its security modules.
pub const LSM_LIST: &str = "/sys/kernel/security/lsm";
/// How far the kernel is locked down: the modes, the one in force in brackets. Not there without that security module.
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// What of a policy a kernel can have enforced.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tier {
    /// All of it, by LSM programs.
    All,
    /// Where sockets go and are bound, by programs of the root control group; and why no more than that.
    NetworkOnly(String),
}

impl Tier {
    /// Why it isn't everything.
    #[must_use]
    pub fn why(&self) -> Option<&str> {
        match self {
            Self::All => None,
            Self::NetworkOnly(why) => Some(why),
        }
    }
}

/// Checks what must be there before anything is loaded, and reads the kernel's BTF.
///
/// # Errors
///
/// What is missing, and what to do about it.
pub fn check() -> Result<(Btf, Tier), Error> {
    if !rustix::process::geteuid().is_root() {
        return Err(Error::NotRoot);
    }
    let host = Host::this();
    Ok((host.btf()?, tier(&host, takes_lsm_programs)?))
}

/// What a kernel can have enforced, by its security modules, and by whether it takes LSM programs.
///
/// # Errors
///
/// If neither can be told.
pub fn tier(host: &Host, takes: impl FnOnce() -> Result<bool, Error>) -> Result<Tier, Error> {
    let list = host.read(LSM_LIST);
    if let Ok(list) = &list
        && !has_bpf(list)
    {
        let parameter = lsm_parameter(host, Some(list));
        return Ok(Tier::NetworkOnly(format!(
            "`bpf` is not among this kernel's security modules, so only the network is judged; for all of it add the boot \
             parameter {parameter} and reboot"
        )));
    }
    if !takes()? {
        return Ok(Tier::NetworkOnly(
            "this kernel refuses LSM programs, so only the network is judged; for all of it use one that takes them".to_owned(),
        ));
    }
    list.map(|_| Tier::All).map_err(|source| Error::NoLsmList { source })
}

/// Whether the kernel takes LSM programs, whether or not it runs them.
fn takes_lsm_programs() -> Result<bool, Error> {
    match aya::sys::is_program_supported(ProgramType::Lsm(LsmAttachType::Mac)) {
        Ok(takes) => Ok(takes),
        Err(ProgramError::SyscallError(error)) if error.io_error.kind() == ErrorKind::PermissionDenied => {
            Ok(false)
        }
        Err(source) => Err(Error::Program { name: "that does nothing", source: Box::new(source) }),
    }
}

/// Whether `bpf` is among these security modules.
#[must_use]
pub fn has_bpf(list: &str) -> bool {
    list.trim().split(',').any(|name| name == "bpf")
}

/// The boot parameter that adds `bpf` to what is there: to what the command line says, else to the modules that the
/// kernel lists. `capability` is always on and not named.
#[must_use]
pub fn lsm_parameter(host: &Host, list: Option<&str>) -> String {
    let said = host.boot_parameter("lsm");
    let names = said.as_deref().or(list).unwrap_or_default().split(',').map(str::trim);
    let names = names.filter(|name| !["", "capability", "bpf"].contains(name));
    let names: Vec<_> = names.chain(["bpf"]).collect();
    format!("lsm={}", names.join(","))
}

/// Checks that the BPF file system is where pins go.
///
/// # Errors
///
/// If it isn't mounted there.
pub fn bpf_file_system(pins: &Path) -> Result<(), Error> {
    const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
    let mut at = pins;
    loop {
        match rustix::fs::statfs(at) {
            #[expect(clippy::unnecessary_cast, reason = "the type differs between architectures")]
            Ok(stat) if stat.f_type as i64 == BPF_FS_MAGIC => return Ok(()),
            Ok(_) => return Err(Error::NoBpfFs { path: pins.into() }),
            Err(_) => match at.parent() {
                Some(parent) => at = parent,
                None => return Err(Error::NoBpfFs { path: pins.into() }),
            },
        }
    }
}

/// Says why the kernel has refused a program, where that is known.
#[must_use]
pub fn because(error: Error) -> Error {
    let refused = matches!(error, Error::Object(_) | Error::Program { .. });
    let mode = std::fs::read_to_string(LOCKDOWN).unwrap_or_default();
    if refused && keeps_memory_to_itself(&mode) { Error::LockedDown(Box::new(error)) } else { error }
}

/// Whether a kernel that is locked down so lets no program read its memory (`LOCKDOWN_BPF_READ_KERNEL`,
/// `security/lockdown/lockdown.c`).
fn keeps_memory_to_itself(mode: &str) -> bool {
    mode.contains("[confidentiality]")
}

/// What a kernel can't do in full, although all hooks are there.
#[must_use]
pub fn shortcomings(host: &Host) -> Vec<String> {
    let mut found = Vec::new();
    if overlooks_tags(&host.release()) && preemption(host) == Some(true) {
        found.push(
            "this kernel is fully preemptible and older than 6.2: the look-up of a tag can fail while another one on the \
             same CPU is preempted, and that action isn't judged; boot with preempt=voluntary, or use a later kernel"
                .to_owned(),
        );
    }
    found
}

/// Whether a kernel of that release overlooks tags where its code can be preempted anywhere: `bpf_task_storage_get`
/// gives up there until 6.2.
#[must_use]
pub fn overlooks_tags(release: &str) -> bool {
    series(release) < (6, 2)
}

/// The first two numbers of a release.
#[must_use]
pub fn series(release: &str) -> (u32, u32) {
    let mut numbers =
        release.split(|c: char| !c.is_ascii_digit()).map_while(|number| number.parse::<u32>().ok());
    (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default())
}

/// Whether kernel code can be preempted anywhere: by the kernel's configuration (`uname -v`), or as chosen at boot or run
/// time where that is possible (`PREEMPT_DYNAMIC`). Nothing where that can't be told: the mode in force is for root, and
/// on debugfs.
#[must_use]
pub fn preemption(host: &Host) -> Option<bool> {
    let version = host.version();
    let mut words = version.split_ascii_whitespace();
    if words.any(|word| ["PREEMPT", "PREEMPT_RT"].contains(&word)) {
        return Some(true);
    }
    if !version.contains("PREEMPT_DYNAMIC") {
        return Some(false);
    }
    if let Ok(mode) = host.read("/sys/kernel/debug/sched/preempt")
        && !mode.is_empty()
    {
        return Some(mode.contains("(full)"));
    }
    host.boot_parameter("preempt").map(|mode| mode == "full")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::host::tests::Tree;

    #[test]
    fn bpf_among_lsms() {
        assert!(has_bpf("lockdown,capability,landlock,yama,bpf\n"));
        assert!(!has_bpf("lockdown,capability,ebpf"));
        let tree = Tree::new("lsms");
        let parameter = |list| lsm_parameter(&tree.host(), Some(list));
        assert_eq!(parameter("lockdown,capability,yama"), "lsm=lockdown,yama,bpf");
        assert_eq!(parameter("capability"), "lsm=bpf");
        assert_eq!(lsm_parameter(&tree.host(), None), "lsm=bpf");
        // What the command line says is kept as it is, also what this kernel doesn't have; the last one counts.
        tree.write("/proc/cmdline", "quiet lsm=yama lsm=landlock,tomoyo,,yama -- lsm=none\n");
        assert_eq!(parameter("lockdown,capability,landlock,yama"), "lsm=landlock,tomoyo,yama,bpf");
    }

    #[test]
    fn what_is_enforced_where() {
        let tree = Tree::new("tiers");
        let tier = |takes| tier(&tree.host(), move || Ok(takes));
        // Neither the list nor the programs.
        assert!(matches!(tier(false), Ok(Tier::NetworkOnly(why)) if why.contains("refuses")));
        assert!(matches!(tier(true), Err(Error::NoLsmList { .. })));
        tree.write(LSM_LIST, "lockdown,capability,yama,bpf");
        assert_eq!(tier(true).unwrap(), Tier::All);
        assert!(matches!(tier(false), Ok(Tier::NetworkOnly(why)) if why.contains("refuses")));
        // Programs that nobody runs.
        tree.write(LSM_LIST, "lockdown,capability,yama");
        assert!(matches!(tier(true), Ok(Tier::NetworkOnly(why)) if why.contains("lsm=lockdown,yama,bpf")));
    }

    #[test]
    fn lockdown() {
        assert!(keeps_memory_to_itself("none integrity [confidentiality]\n"));
        assert!(!keeps_memory_to_itself("none [integrity] confidentiality\n") && !keeps_memory_to_itself(""));
    }

    #[test]
    fn preempted_anywhere() {
        assert!(overlooks_tags("6.1.0-56-cloud-amd64") && overlooks_tags("5.10.1"));
        assert!(!overlooks_tags("6.2.0-rc1") && !overlooks_tags("6.12.1") && !overlooks_tags("7.0"));
        let tree = Tree::new("preemption");
        let mode = |version: &str, mode: Option<&str>, line: &str| {
            tree.write("/proc/sys/kernel/version", version);
            tree.write("/sys/kernel/debug/sched/preempt", mode.unwrap_or_default());
            tree.write("/proc/cmdline", line);
            preemption(&tree.host())
        };
        let dynamic = "#1 SMP PREEMPT_DYNAMIC Debian 6.1.1 (2026-01-01)";
        assert_eq!(mode(dynamic, Some("none (voluntary) full"), "quiet"), Some(false));
        assert_eq!(mode(dynamic, Some("none voluntary (full)"), "quiet"), Some(true));
        assert_eq!(mode(dynamic, Some("none (voluntary) full"), "preempt=full"), Some(false));
        assert_eq!(mode(dynamic, None, "quiet preempt=full"), Some(true));
        assert_eq!(mode(dynamic, None, "quiet preempt=none"), Some(false));
        assert_eq!(mode(dynamic, None, "quiet"), None);
        assert_eq!(mode("#1 SMP PREEMPT Debian", None, ""), Some(true));
        assert_eq!(mode("#1 SMP Debian", None, ""), Some(false));
    }
}
