//! Loads the kernel side, or adopts what an earlier daemon has pinned.
//!
//! Pins: `PINS/abi-N/maps/NAME` and `PINS/abi-N/links-DIGEST/NAME`, where the digest is of the programs. A daemon
//! with the same programs finds its links there and attaches nothing. One with other programs attaches its
//! own, with the same maps, and only then takes the old links away, so there is no moment without. If the kernel refuses
//! one of its own, the old ones stay.
//!
//! A program that no rule needs is neither loaded nor attached, so it costs nobody anything: those that a policy needs
//! are attached before it is published, those that it doesn't need any more taken away after that.

use std::{
    fs,
    hash::{DefaultHasher, Hash as _, Hasher as _},
    io,
    path::{Path, PathBuf},
};

use agent_guard_common::{ABI, layout::KernelLayout};
use aya::{
    EbpfLoader,
    programs::{
        BtfTracePoint, CgroupAttachMode, CgroupSkb, CgroupSkbAttachType, CgroupSock, CgroupSockAddr, Iter,
        Lsm, Program as AyaProgram,
        links::{FdLink, LinkError, PinnedLink},
    },
};
use aya_log::EbpfLogger;

use super::{
    Error,
    btf::Btf,
    enforcement::{Enforcement, State},
    host::Host,
    layout,
    maps::NAMES,
    memory::Memory,
    programs::{self, Kind, Program},
    support::{self, Tier},
    symbols,
};
use crate::sys::bpf;

/// The kernel side, built into this binary.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/agent-guard-ebpf"));

/// Which programs are at work.
#[derive(Clone, Debug)]
pub struct Attached {
    /// Programs of this kernel.
    pub present: Vec<Program>,
    /// Programs whose hook this kernel doesn't have. Another one sees the same, or policies that need it are refused.
    pub absent: Vec<Program>,
    /// What can be enforced here.
    pub tier: Tier,
    /// Whether they were at work already.
    pub adopted: bool,
    /// Whether nothing of this version was there before.
    fresh: bool,
    layout: KernelLayout,
    root: PathBuf,
    /// Where maps are pinned.
    pub maps: PathBuf,
    /// Where links are pinned.
    pub links: PathBuf,
}

/// Where this version pins.
#[must_use]
pub fn root(pins: &Path) -> PathBuf {
    pins.join(format!("abi-{ABI}"))
}

/// Whether an earlier daemon has left something to adopt.
#[must_use]
pub fn adoptable(pins: &Path) -> bool {
    root(pins).join("maps").exists()
}

/// Loads or adopts what is needed whatever the policy says.
///
/// # Errors
///
/// If this kernel can't enforce what a policy can say, or refuses a program: nothing new stays attached then.
pub fn load(pins: &Path) -> Result<Attached, Error> {
    let (btf, tier) = support::check()?;
    support::bpf_file_system(pins)?;
    other_versions(pins)?;
    let layout = layout::resolve(&btf)?;
    let (present, absent) = programs(&btf, &tier)?;
    let root = root(pins);
    let maps = root.join("maps");
    let links = root.join(format!("links-{:016x}", digest(&layout, &tier)));
    let fresh = !maps.exists();
    let mut attached =
        Attached { present, absent, tier, adopted: links.exists(), maps, links, fresh, layout, root };
    let done = create(&attached.maps).and_then(|()| attached.require(0));
    if let Err(error) = done {
        attached.abandon()?;
        return Err(error);
    }
    attached.adopted &= !fresh;
    Ok(attached)
}

impl Attached {
    /// Whether a program is at work.
    #[must_use]
    pub fn at_work(&self, program: &Program) -> bool {
        let pin = self.links.join(program.name);
        if program.in_group() { bpf::ties(&pin).unwrap_or(false) } else { pin.exists() }
    }

    /// What is enforced while a policy is in force that judges these operations (bits by their numbers).
    #[must_use]
    pub fn enforcement(&self, judged: u64) -> Enforcement {
        let state = |program: &Program| match () {
            () if self.at_work(program) => State::AtWork,
            () if program.needed(judged) => State::Gone,
            () => State::Idle,
        };
        let present = self.present.iter().map(|program| (*program, state(program)));
        let absent = self.absent.iter().map(|program| (*program, State::Absent));
        Enforcement::new(present.chain(absent), support::shortcomings(&Host::this())).within(&self.tier)
    }

    /// What a policy can have enforced.
    #[must_use]
    pub fn possible(&self) -> Enforcement {
        let present = self.present.iter().map(|program| (*program, State::AtWork));
        let absent = self.absent.iter().map(|program| (*program, State::Absent));
        Enforcement::new(present.chain(absent), support::shortcomings(&Host::this())).within(&self.tier)
    }

    /// Where the program is pinned that tells identities.
    #[must_use]
    pub fn identify(&self) -> PathBuf {
        self.links.join(programs::IDENTIFY)
    }

    /// Where the program is pinned that tags trees.
    #[must_use]
    pub fn tree(&self) -> PathBuf {
        self.links.join(programs::TREE)
    }

    /// Attaches what a policy needs that judges these operations (bits by their numbers) and isn't at work yet. To be
    /// called before the policy is published.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a program: none of those that were missing stays attached then.
    pub fn require(&self, judged: u64) -> Result<(), Error> {
        let needed = self.present.iter().filter(|program| program.needed(judged));
        let missing: Vec<_> = needed.filter(|program| !self.at_work(program)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        // A pin that is there ties nothing any more.
        missing.iter().try_for_each(|program| unlink(&self.links.join(program.name)))?;
        let result = create(&self.links).and_then(|()| self.attach(&missing));
        if result.is_err() {
            // Half of what is missing enforces half a policy.
            missing.iter().try_for_each(|program| unlink(&self.links.join(program.name)))?;
        }
        result.map_err(support::because)
    }

    /// Takes away what a policy that is in force doesn't need.
    ///
    /// # Errors
    ///
    /// If a pin can't be removed.
    pub fn release(&self, judged: u64) -> Result<(), Error> {
        let surplus = self.present.iter().filter(|program| !program.needed(judged));
        surplus.map(|program| self.links.join(program.name)).try_for_each(|link| unlink(&link))
    }

    /// Whether programs of another version of this one are at work: there is an upgrade to finish.
    ///
    /// # Errors
    ///
    /// If the pins can't be read.
    pub fn upgrades(&self) -> Result<bool, Error> {
        Ok(!others(&self.root, &self.links)?.is_empty())
    }

    /// Finishes an upgrade: has what a policy needs that judges these operations at work, and then takes the programs of
    /// other versions away. To be called before the next policy is published: what the old ones have decided must not be
    /// found again, and decisions are found by the generation.
    ///
    /// # Errors
    ///
    /// If the kernel refuses a program, or a pin can't be removed: the old ones stay then.
    pub fn replace(&self, judged: u64) -> Result<(), Error> {
        self.require(judged)?;
        drop_others(&self.root, &self.links)?;
        tracing::info!("the programs of another version were at work; this version's have taken their place");
        Ok(())
    }

    /// Takes away what this daemon has attached, if it can't start: everything if nothing was there before, and its own
    /// programs if those of another version are at work.
    ///
    /// # Errors
    ///
    /// If a pin can't be removed.
    pub fn abandon(&self) -> Result<(), Error> {
        if !self.fresh {
            // Those that an earlier start has left may be the only ones: that one may have come to taking others away.
            return if !self.adopted && self.links.exists() && self.upgrades()? {
                remove(&self.links)
            } else {
                Ok(())
            };
        }
        for directory in [&self.links, &self.maps] {
            if directory.exists() {
                remove(directory)?;
            }
        }
        fs::remove_dir(&self.root).map_err(Error::call("rmdir", self.root.display().to_string()))
    }
}

/// Removes a pin, if it is there.
fn unlink(path: &Path) -> Result<(), Error> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(Error::call("unlink", path.display().to_string())(error))
        }
        _ => Ok(()),
    }
}

/// Sorts programs by whether this kernel has their hook. Without those that keep the tag and the guard there is no guard.
fn programs(btf: &Btf, tier: &Tier) -> Result<(Vec<Program>, Vec<Program>), Error> {
    let (present, absent): (Vec<_>, Vec<_>) =
        programs::programs(tier).copied().partition(|program| programs::present(btf, program));
    match absent.iter().find(|program| program.always && program.instead.is_none()) {
        Some(program) => Err(Error::NoHook(program.name)),
        None => Ok((present, absent)),
    }
}

/// Names a set of programs: the object and the offsets that were put into it. Only ever compared on one host
/// between two boots, so any good hash will do.
fn digest(layout: &KernelLayout, tier: &Tier) -> u64 {
    let mut hasher = DefaultHasher::new();
    OBJECT.hash(&mut hasher);
    format!("{layout:?}{}", *tier == Tier::All).hash(&mut hasher);
    hasher.finish()
}

impl Attached {
    fn attach(&self, programs: &[&Program]) -> Result<(), Error> {
        let Self { layout, maps, links, tier, .. } = self;
        let btf = aya::Btf::from_sys_fs()?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&btf)).allow_unsupported_maps().override_global("LAYOUT", layout, true);
        let [rename_lock] = symbols::addresses(["rename_lock"]).map(Option::unwrap_or_default);
        let network_only = u32::from(*tier != Tier::All);
        loader.override_global("RENAME_LOCK", &rename_lock, true);
        loader.override_global("NETWORK_ONLY", &network_only, true);
        let memory = Memory::known();
        loader
            .override_global("PAGE_OFFSET_BASE", &memory.page_offset_base, true)
            .override_global("SME_ME_MASK", &memory.encryption_mask, true)
            .override_global("PAGE_LEVELS", &memory.levels, true);
        for name in NAMES {
            loader.map_pin_path(name, maps.join(name));
        }
        let mut object = loader.load(OBJECT)?;
        for program in programs {
            let code = object.program_mut(program.name).ok_or(Error::NoProgram(program.name))?;
            let pinned =
                |error: aya::pin::PinError| Error::Pin { name: program.name, what: error.to_string() };
            match attach_one(code, program, &btf)? {
                Some(link) => drop(link.pin(links.join(program.name)).map_err(pinned)?),
                None => code.pin(links.join(program.name)).map_err(pinned)?,
            }
            tracing::debug!(
                program = program.name,
                verified = code.info().ok().and_then(|info| info.verified_instruction_count()),
                "loaded"
            );
        }
        Ok(())
    }
}

/// Loads and attaches a program. No link for one that is attached to nothing.
fn attach_one(code: &mut AyaProgram, program: &Program, btf: &aya::Btf) -> Result<Option<FdLink>, Error> {
    let name = program.name;
    let refused = |source| Error::Program { name, source: Box::new(source) };
    let unusable = |error: LinkError| Error::Pin { name, what: error.to_string() };
    match program.kind {
        Kind::Lsm | Kind::LsmAt(_) => {
            let code: &mut Lsm = code.try_into().map_err(refused)?;
            code.load(program.lsm_hook().unwrap_or(name), btf).map_err(refused)?;
            let id = code.attach().map_err(refused)?;
            Ok(Some(code.take_link(id).map_err(refused)?.into()))
        }
        Kind::Iterator(over) => {
            let code: &mut Iter = code.try_into().map_err(refused)?;
            code.load(over, btf).map_err(refused)?;
            Ok(None)
        }
        Kind::Sockets | Kind::Addresses => {
            let code: &mut CgroupSockAddr = code.try_into().map_err(refused)?;
            code.load().map_err(refused)?;
            let group = Host::this().root_group()?;
            // A link takes no mode: it always lets others be attached, too (`cgroup_bpf_link_attach`, kernel/bpf/cgroup.c).
            let id = code.attach(group, CgroupAttachMode::Single).map_err(refused)?;
            let link = code.take_link(id).map_err(refused)?;
            Ok(Some(FdLink::try_from(link).map_err(unusable)?))
        }
        Kind::Creation => {
            let code: &mut CgroupSock = code.try_into().map_err(refused)?;
            code.load().map_err(refused)?;
            let id = code.attach(Host::this().root_group()?, CgroupAttachMode::Single).map_err(refused)?;
            let link = code.take_link(id).map_err(refused)?;
            Ok(Some(FdLink::try_from(link).map_err(unusable)?))
        }
        Kind::Packets => {
            let code: &mut CgroupSkb = code.try_into().map_err(refused)?;
            code.load().map_err(refused)?;
            let group = Host::this().root_group()?;
            let id =
                code.attach(group, CgroupSkbAttachType::Egress, CgroupAttachMode::Single).map_err(refused)?;
            let link = code.take_link(id).map_err(refused)?;
            Ok(Some(FdLink::try_from(link).map_err(unusable)?))
        }
        Kind::Tracepoint => {
            let code: &mut BtfTracePoint = code.try_into().map_err(refused)?;
            code.load(name, btf).map_err(refused)?;
            let id = code.attach().map_err(refused)?;
            Ok(Some(code.take_link(id).map_err(refused)?.into()))
        }
    }
}

/// What the programs log by themselves, for faults that no event can say. Found through the pin of one of them, so that
/// it works for adopted programs too.
///
/// # Errors
///
/// If the pin or the log's map isn't there.
pub fn logger(attached: &Attached) -> Result<EbpfLogger<&'static dyn ::log::Log>, Error> {
    // It is there whatever can be enforced.
    let name = "sched_process_fork";
    let failed = |what: String| Error::Pin { name, what };
    let link = PinnedLink::from_pin(attached.links.join(name)).map_err(|error| failed(error.to_string()))?;
    let info = FdLink::from(link).info().map_err(|error| failed(error.to_string()))?;
    EbpfLogger::init_from_id(info.program_id()).map_err(|error| failed(error.to_string()))
}

/// Refuses to work beside pins of another version whose maps can't be shared.
fn other_versions(pins: &Path) -> Result<(), Error> {
    let ours = root(pins);
    for path in entries(pins)? {
        if path != ours && path.join("maps").exists() {
            return Err(Error::OtherVersion { path });
        }
    }
    Ok(())
}

/// Takes away the links of other programs, now that ours are at work.
fn drop_others(root: &Path, ours: &Path) -> Result<(), Error> {
    others(root, ours)?.iter().try_for_each(|path| remove(path))
}

/// Where the links of other programs are.
fn others(root: &Path, ours: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut found = entries(root)?;
    found.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("links-") && path != ours
    });
    Ok(found)
}

fn entries(directory: &Path) -> Result<Vec<PathBuf>, Error> {
    let failed = |source| Error::Call { call: "readdir", object: directory.display().to_string(), source };
    match fs::read_dir(directory) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

fn create(directory: &Path) -> Result<(), Error> {
    fs::create_dir_all(directory).map_err(Error::call("mkdir", directory.display().to_string()))
}

/// Removes a directory of pins: with the last pin of a link the program goes.
fn remove(directory: &Path) -> Result<(), Error> {
    for path in entries(directory)? {
        fs::remove_file(&path).map_err(Error::call("unlink", path.display().to_string()))?;
    }
    fs::remove_dir(directory).map_err(Error::call("rmdir", directory.display().to_string()))
}
