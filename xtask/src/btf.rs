//! `cargo xtask btf`: small samples of kernels' BTF, which unit tests resolve the layout against.
//!
//! A kernel's BTF has some megabytes. A sample keeps the structures that the hooks read, whole, and what
//! is inside of them by value; what they only point to becomes a forward declaration of the same name.
//!
//! Format: `Documentation/bpf/btf.rst`, Linux 6.1.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::path::Path;

use anyhow::{Context, Result, bail};
use clap::Args;
use object::read::elf::ElfFile64;
use object::{Object, ObjectSection};

use crate::project::Project;
use crate::run::note;
use crate::setup::image;
use crate::setup::kernels::{self, Kernel, SERIES};

/// Which samples to make.
#[derive(Args, Debug)]
pub(crate) struct BtfArgs {
    /// Only of these kernel series (all four otherwise)
    #[arg(long, value_name = "SERIES")]
    kernel: Vec<String>,
}

/// The structures that `agent-guard/src/kernel/layout.rs` names.
const STRUCTS: [&str; 35] = [
    "cgroup",
    "cgroup_root",
    "cred",
    "ctl_table",
    "dentry",
    "fdtable",
    "file",
    "files_struct",
    "fs_struct",
    "iattr",
    "in6_addr",
    "inode",
    "kernfs_node",
    "linux_binprm",
    "mm_struct",
    "mnt_namespace",
    "mount",
    "msghdr",
    "net",
    "nsproxy",
    "path",
    "proc_inode",
    "pt_regs",
    "qstr",
    "signal_struct",
    "sock",
    "sock_common",
    "socket",
    "super_block",
    "task_struct",
    "unix_address",
    "unix_sock",
    "user_namespace",
    "vfsmount",
    "vm_area_struct",
];

/// Functions whose parameters the layout reads, too.
const PROTOTYPES: [&str; 2] = ["bpf_lsm_inode_setattr", "bpf_lsm_perf_event_open"];

/// How the functions begin that tell which LSM hooks programs can be attached to.
const HOOKS: &str = "bpf_lsm_";

/// How the description of the samples begins; a table with one row each follows.
const README: &str = "# BTF samples

Types of real kernels, for the unit tests of the layout. `cargo xtask btf` made them out of the kernels that
`cargo xtask setup` downloads (Debian's, GPL-2.0): the structures that the hooks read, what is inside of them,
and the names of the LSM hooks.

| Sample | Kernel | Debian version |
|---|---|---|
";

/// The command.
pub(crate) fn command(project: &Project, args: &BtfArgs) -> Result<()> {
    let wanted: Vec<&str> = if args.kernel.is_empty() {
        SERIES.to_vec()
    } else {
        args.kernel.iter().map(String::as_str).collect()
    };
    let folder = project.root.join("agent-guard/testdata/btf");
    std::fs::create_dir_all(&folder).with_context(|| format!("can't create {}", folder.display()))?;
    for series in wanted {
        if !SERIES.contains(&series) {
            bail!("`{series}` is none of the kernel series {}", SERIES.join(", "));
        }
        let kernel = kernels::cached(project, series).with_context(|| {
            format!("there is no kernel {series} yet: run `cargo xtask setup --kernel {series}`")
        })?;
        let sample = sample(&kernel).with_context(|| format!("no sample of {}", kernel.release))?;
        write(&folder.join(format!("{series}.btf")), &sample)?;
        describe(&folder.join("README.md"), &kernel)?;
        note("btf", format!("{series}: {} KiB out of {}", sample.len().div_ceil(1024), kernel.release));
    }
    Ok(())
}

fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    std::fs::write(path, bytes).with_context(|| format!("can't write {}", path.display()))
}

/// Puts the kernel's row into the description, in place of an earlier one of that series.
fn describe(readme: &Path, kernel: &Kernel) -> Result<()> {
    let before = std::fs::read_to_string(readme).unwrap_or_default();
    let mut rows: BTreeMap<usize, String> = BTreeMap::new();
    for (at, series) in SERIES.into_iter().enumerate() {
        let start = format!("| `{series}.btf` |");
        if series == kernel.name {
            rows.insert(at, format!("{start} {} | {} |", kernel.release, kernel.version));
        } else if let Some(row) = before.lines().find(|line| line.starts_with(&start)) {
            rows.insert(at, row.to_owned());
        }
    }
    let mut text = README.to_owned();
    for row in rows.values() {
        text.push_str(row);
        text.push('\n');
    }
    write(readme, text.as_bytes())
}

/// The sample of a kernel.
fn sample(kernel: &Kernel) -> Result<Vec<u8>> {
    let path = kernel.image.display();
    let mut image = std::fs::read(&kernel.image).with_context(|| format!("can't read {path}"))?;
    if !image.starts_with(b"\x7fELF") {
        image = image::uncompressed(&image).with_context(|| format!("can't unpack {path}"))?;
    }
    let elf: ElfFile64<'_> = ElfFile64::parse(&*image).with_context(|| format!("{path} is no ELF file"))?;
    let section = elf
        .section_by_name(".BTF")
        .with_context(|| format!("{path} has no BTF: it was built without CONFIG_DEBUG_INFO_BTF"))?;
    let data = section.data().with_context(|| format!("the section .BTF of {path} can't be read"))?;
    Btf::parse(data)?.reduced()?.bytes()
}

mod kind {
    pub(super) const INT: u32 = 1;
    pub(super) const PTR: u32 = 2;
    pub(super) const ARRAY: u32 = 3;
    pub(super) const STRUCT: u32 = 4;
    pub(super) const UNION: u32 = 5;
    pub(super) const ENUM: u32 = 6;
    pub(super) const FWD: u32 = 7;
    pub(super) const TYPEDEF: u32 = 8;
    pub(super) const FUNC: u32 = 12;
    pub(super) const FUNC_PROTO: u32 = 13;
    pub(super) const VAR: u32 = 14;
    pub(super) const DATASEC: u32 = 15;
    pub(super) const FLOAT: u32 = 16;
    pub(super) const DECL_TAG: u32 = 17;
    pub(super) const TYPE_TAG: u32 = 18;
    pub(super) const ENUM64: u32 = 19;
}

/// What a word of a type is.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Word {
    Name,
    Type,
    Number,
}

/// A type: the three words that all have, and those that follow them.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Type {
    name: u32,
    info: u32,
    size_or_type: u32,
    rest: Vec<u32>,
}

impl Type {
    fn kind(&self) -> u32 {
        (self.info >> 24) & 0x1f
    }

    fn is_struct(&self) -> bool {
        matches!(self.kind(), kind::STRUCT | kind::UNION)
    }

    /// How many words follow the first three.
    fn rest_words(&self) -> Result<usize> {
        let count = (self.info & 0xffff) as usize;
        Ok(match self.kind() {
            kind::INT | kind::VAR | kind::DECL_TAG => 1,
            kind::ARRAY => 3,
            kind::STRUCT | kind::UNION | kind::DATASEC | kind::ENUM64 => count * 3,
            kind::ENUM | kind::FUNC_PROTO => count * 2,
            kind::PTR | kind::FWD..=kind::FUNC | kind::FLOAT | kind::TYPE_TAG => 0,
            other => bail!("BTF has a type of kind {other}, which this program doesn't know"),
        })
    }

    /// The words that name other types or strings.
    fn links(&mut self) -> impl Iterator<Item = (Word, &mut u32)> {
        let kind = self.kind();
        let second = match kind {
            kind::PTR | kind::TYPEDEF..=kind::VAR | kind::DECL_TAG | kind::TYPE_TAG => Word::Type,
            _ => Word::Number,
        };
        let pattern: &[Word] = match kind {
            kind::ARRAY => &[Word::Type, Word::Type, Word::Number],
            kind::STRUCT | kind::UNION => &[Word::Name, Word::Type, Word::Number],
            kind::ENUM => &[Word::Name, Word::Number],
            kind::ENUM64 => &[Word::Name, Word::Number, Word::Number],
            kind::FUNC_PROTO => &[Word::Name, Word::Type],
            kind::DATASEC => &[Word::Type, Word::Number, Word::Number],
            _ => &[Word::Number],
        };
        [(Word::Name, &mut self.name), (second, &mut self.size_or_type)]
            .into_iter()
            .chain(pattern.iter().copied().cycle().zip(&mut self.rest))
            .filter(|(word, _)| *word != Word::Number)
    }

    fn types(&self) -> Vec<u32> {
        let mut copy = self.clone();
        copy.links().filter(|(word, _)| *word == Word::Type).map(|(_, id)| *id).collect()
    }
}

/// Types by number (0 is `void` and isn't there), and their strings.
struct Btf {
    types: BTreeMap<u32, Type>,
    strings: Vec<u8>,
}

impl Btf {
    fn parse(data: &[u8]) -> Result<Self> {
        let word = |at: usize| -> Result<u32> {
            let bytes = data.get(at..).and_then(<[u8]>::first_chunk).context("BTF ends too early")?;
            Ok(u32::from_le_bytes(*bytes))
        };
        if word(0)? & 0xffff != 0xeb9f {
            bail!("not BTF of a little-endian machine");
        }
        let part = |at: usize| -> Result<&[u8]> {
            let start = (word(4)? as usize).saturating_add(word(at)? as usize);
            data.get(start..start.saturating_add(word(at + 4)? as usize)).context("BTF ends too early")
        };
        let strings = part(16)?.to_vec();
        let (words, _) = part(8)?.as_chunks::<4>();
        let mut words = words.iter().map(|bytes| u32::from_le_bytes(*bytes)).peekable();
        let mut types = BTreeMap::new();
        while words.peek().is_some() {
            let mut next = || words.next().context("BTF ends within a type");
            let mut new = Type { name: next()?, info: next()?, size_or_type: next()?, rest: Vec::new() };
            new.rest = (0..new.rest_words()?).map(|_| next()).collect::<Result<_>>()?;
            types.insert(u32::try_from(types.len() + 1)?, new);
        }
        Ok(Self { types, strings })
    }

    fn text(&self, offset: u32) -> &[u8] {
        let rest = self.strings.get(offset as usize..).unwrap_or_default();
        rest.split(|byte| *byte == 0).next().unwrap_or_default()
    }

    /// The structures and functions that the sample is about. Of several of the same name the first, as
    /// the product does it.
    fn roots(&self) -> Result<Vec<u32>> {
        let mut structs = HashMap::new();
        let mut roots = Vec::new();
        for (id, of) in &self.types {
            if of.is_struct() && of.name != 0 {
                structs.entry(self.text(of.name)).or_insert(*id);
            } else if of.kind() == kind::FUNC && self.text(of.name).starts_with(HOOKS.as_bytes()) {
                roots.push(*id);
            }
        }
        for name in STRUCTS {
            let id = structs.get(name.as_bytes()).with_context(|| format!("BTF has no struct {name}"))?;
            roots.push(*id);
        }
        Ok(roots)
    }

    /// The prototypes that are kept whole.
    fn prototypes(&self) -> BTreeSet<u32> {
        let wanted = |of: &&Type| {
            of.kind() == kind::FUNC && PROTOTYPES.iter().any(|name| self.text(of.name) == name.as_bytes())
        };
        self.types.values().filter(wanted).map(|of| of.size_or_type).collect()
    }

    /// Only what belongs into a sample, with the old numbers and strings.
    fn reduced(mut self) -> Result<Self> {
        let prototypes = self.prototypes();
        let mut seen = BTreeSet::new();
        let mut whole = BTreeSet::new();
        let mut open: Vec<(u32, bool)> = self.roots()?.into_iter().map(|id| (id, true)).collect();
        while let Some((id, by_value)) = open.pop() {
            if id == 0 || !seen.insert((id, by_value)) {
                continue;
            }
            let of = self.types.get(&id).with_context(|| format!("BTF has no type {id}"))?;
            // A structure without a name can't be declared without its members.
            let by_value = by_value || of.is_struct() && of.name == 0;
            if of.is_struct() && by_value {
                whole.insert(id);
            } else if of.is_struct() || (of.kind() == kind::FUNC_PROTO && !prototypes.contains(&id)) {
                continue;
            }
            let by_value = by_value && !matches!(of.kind(), kind::PTR | kind::FUNC_PROTO);
            open.extend(of.types().into_iter().map(|id| (id, by_value)));
        }
        let seen: BTreeSet<u32> = seen.into_iter().map(|(id, _)| id).collect();
        self.types.retain(|id, _| seen.contains(id));
        for (id, of) in &mut self.types {
            let (kind, name) = (of.kind(), of.name);
            if of.is_struct() && !whole.contains(id) {
                let union = u32::from(kind == kind::UNION) << 31;
                *of = Type { name, info: kind::FWD << 24 | union, size_or_type: 0, rest: Vec::new() };
            } else if kind == kind::FUNC_PROTO && !prototypes.contains(id) {
                *of = Type { name, info: kind::FUNC_PROTO << 24, size_or_type: 0, rest: Vec::new() };
            }
        }
        Ok(self)
    }

    /// Puts it together, with new numbers and every string once.
    fn bytes(&self) -> Result<Vec<u8>> {
        let mut ids = HashMap::from([(0, 0)]);
        let mut kept: Vec<&Type> = Vec::new();
        let mut prototype = None;
        for (id, of) in &self.types {
            let new = u32::try_from(kept.len() + 1)?;
            // All that is left of most prototypes is that they are some.
            let new = if of.kind() == kind::FUNC_PROTO && of.rest.is_empty() {
                *prototype.get_or_insert(new)
            } else {
                new
            };
            ids.insert(*id, new);
            if new as usize > kept.len() {
                kept.push(of);
            }
        }
        let mut strings = vec![0];
        let mut offsets: HashMap<&[u8], u32> = HashMap::from([(b"".as_slice(), 0)]);
        let mut types: Vec<u8> = Vec::new();
        for of in kept {
            let mut new = of.clone();
            for (word, value) in new.links() {
                let text = self.text(*value);
                *value = match (word, offsets.get(text)) {
                    (Word::Type, _) => *ids.get(value).with_context(|| format!("type {value} was lost"))?,
                    (_, Some(offset)) => *offset,
                    (_, None) => {
                        let offset = u32::try_from(strings.len())?;
                        offsets.insert(text, offset);
                        strings.extend_from_slice(text);
                        strings.push(0);
                        offset
                    }
                };
            }
            let first = [new.name, new.info, new.size_or_type];
            types.extend(first.iter().chain(&new.rest).flat_map(|word| word.to_le_bytes()));
        }
        let (type_len, str_len) = (u32::try_from(types.len())?, u32::try_from(strings.len())?);
        let header = [0x0001_eb9f, 24, 0, type_len, type_len, str_len];
        Ok(header.iter().flat_map(|word| word.to_le_bytes()).chain(types).chain(strings).collect())
    }
}

#[cfg(test)]
mod tests;
