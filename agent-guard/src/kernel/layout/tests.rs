//! Against samples of real kernels' BTF, see `testdata/btf/README.md`.

// The samples are of the byte order that all supported machines have.
#![cfg(target_endian = "little")]

use super::*;
use crate::kernel::programs::{self, PROGRAMS};

/// Some offsets of a kernel.
#[derive(Debug, PartialEq, Eq)]
struct Offsets {
    bprm_filename: u32,
    dentry_d_inode: u32,
    dentry_d_name: u32,
    file_f_flags: u32,
    file_f_mode: u32,
    file_f_path: u32,
    inode_i_ino: u32,
    mount_mnt: u32,
    regs_syscall: u32,
    sb_s_root: u32,
    sock_protocol: u32,
    task_mm: u32,
    task_tgid: u32,
    unix_sock_path: u32,
}

impl From<KernelLayout> for Offsets {
    fn from(layout: KernelLayout) -> Self {
        Self {
            bprm_filename: layout.bprm_filename,
            dentry_d_inode: layout.dentry_d_inode,
            dentry_d_name: layout.dentry_d_name,
            file_f_flags: layout.file_f_flags,
            file_f_mode: layout.file_f_mode,
            file_f_path: layout.file_f_path,
            inode_i_ino: layout.inode_i_ino,
            mount_mnt: layout.mount_mnt,
            regs_syscall: layout.regs_syscall,
            sb_s_root: layout.sb_s_root,
            sock_protocol: layout.sock_protocol,
            task_mm: layout.task_mm,
            task_tgid: layout.task_tgid,
            unix_sock_path: layout.unix_sock_path,
        }
    }
}

const V6_1: Offsets = Offsets {
    bprm_filename: 96,
    dentry_d_inode: 48,
    dentry_d_name: 32,
    file_f_flags: 64,
    file_f_mode: 68,
    file_f_path: 16,
    inode_i_ino: 64,
    mount_mnt: 32,
    regs_syscall: 120,
    sb_s_root: 104,
    sock_protocol: 516,
    task_mm: 2272,
    task_tgid: 2420,
    unix_sock_path: 784,
};

const V6_12: Offsets = Offsets {
    file_f_flags: 48,
    file_f_mode: 12,
    file_f_path: 64,
    sock_protocol: 574,
    task_mm: 2304,
    task_tgid: 2436,
    ..V6_1
};

const V6_18: Offsets = Offsets {
    file_f_flags: 40,
    file_f_mode: 4,
    sock_protocol: 532,
    task_mm: 2576,
    task_tgid: 2708,
    unix_sock_path: 800,
    ..V6_12
};

const V7_2: Offsets = Offsets {
    bprm_filename: 112,
    sock_protocol: 540,
    task_mm: 2680,
    task_tgid: 2812,
    unix_sock_path: 808,
    ..V6_18
};

/// A kernel's BTF and what is known of it.
struct Sample {
    series: &'static str,
    data: &'static [u8],
    offsets: Offsets,
    /// Hooks that it doesn't have.
    lacks: &'static [&'static str],
}

macro_rules! sample {
    ($series:literal, $offsets:expr, $lacks:expr) => {
        Sample {
            series: $series,
            data: include_bytes!(concat!("../../../testdata/btf/", $series, ".btf")),
            offsets: $offsets,
            lacks: $lacks,
        }
    };
}

const SAMPLES: [Sample; 4] = [
    sample!("6.1", V6_1, &["file_truncate", "inode_set_acl", "inode_remove_acl", "inode_file_setattr"]),
    sample!("6.12", V6_12, &["inode_file_setattr"]),
    sample!("6.18", V6_18, &[]),
    sample!("7.2", V7_2, &[]),
];

/// The place of a name in the strings of BTF; samples have every string once.
fn name_at(data: &[u8], name: &str) -> (usize, u32) {
    let strings = 24 + word(data, 16) as usize;
    let text = format!("\0{name}\0");
    let found = data[strings..].windows(text.len()).position(|w| w == text.as_bytes()).expect(name) + 1;
    (strings + found, u32::try_from(found).unwrap())
}

fn word(data: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(*data[at..].first_chunk().unwrap())
}

/// Replaces the first letter of a name, everywhere.
fn rename(data: &[u8], name: &str) -> Vec<u8> {
    let mut data = data.to_vec();
    let at = name_at(&data, name).0;
    data[at] = b'X';
    data
}

/// Where a member of a structure is described: its name, its type, its offset.
fn member_at(data: &[u8], of: &str, member: &str) -> usize {
    let (of, member) = (name_at(data, of).1, name_at(data, member).1);
    let types = 24..24 + word(data, 16) as usize;
    let is_struct = |at: &usize| word(data, *at) == of && (word(data, at + 4) >> 24) & 0x1f == 4;
    let start = types.step_by(4).find(is_struct).expect("the structure");
    let count = (word(data, start + 4) & 0xffff) as usize;
    let mut members = (0..count).map(|number| start + 12 + number * 12);
    members.find(|at| word(data, *at) == member).expect("the member")
}

/// Gives a member the type of another one.
fn retype(data: &[u8], of: &str, member: &str, like: &str) -> Vec<u8> {
    let (to, from) = (member_at(data, of, member) + 4, member_at(data, of, like) + 4);
    let mut data = data.to_vec();
    data.copy_within(from..from + 4, to);
    data
}

fn resolved(data: &[u8]) -> Result<KernelLayout, Error> {
    resolve(&Btf::parse(data).unwrap())
}

#[test]
fn every_field_is_in_the_table() {
    let names: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
    // Places of arguments are no members, and neither are answers to yes-or-no questions.
    let members: Vec<_> = KernelLayout::NAMES
        .iter()
        .filter(|name| !name.starts_with("arg_") && !name.starts_with("is_"))
        .copied()
        .collect();
    assert_eq!(names, members);
}

#[test]
fn supported_kernels_resolve() {
    for sample in SAMPLES {
        let layout = resolved(sample.data).unwrap_or_else(|error| panic!("{}: {error}", sample.series));
        assert_eq!(Offsets::from(layout), sample.offsets, "{}", sample.series);
    }
}

#[test]
fn no_field_stays_absent() {
    for sample in SAMPLES {
        let mut layout = resolved(sample.data).unwrap();
        let checks = ["6.18", "7.2"].contains(&sample.series);
        for field in FIELDS {
            let there = checks || field.name != "bprm_is_check";
            assert_eq!(*(field.set)(&mut layout) != ABSENT, there, "{} of {}", field.name, sample.series);
        }
        let with_id_map = sample.series != "6.1";
        assert_eq!(layout.arg_setattr_dentry, u32::from(with_id_map), "{}", sample.series);
        let listed = ["6.1", "6.12"].contains(&sample.series);
        assert_eq!(layout.is_s_mounts_list, u32::from(listed), "{}", sample.series);
    }
}

#[test]
fn hooks_are_told_apart() {
    for sample in SAMPLES {
        let btf = Btf::parse(sample.data).unwrap();
        let missing: Vec<_> =
            PROGRAMS.iter().filter(|program| !programs::present(&btf, program)).map(|p| p.name).collect();
        assert_eq!(missing, sample.lacks, "{}", sample.series);
        // A hook may be missing only where another one sees the same.
        let can_do_without =
            |name: &&str| PROGRAMS.iter().any(|program| program.name == *name && program.instead.is_some());
        assert!(missing.iter().all(can_do_without), "{}", sample.series);
    }
}

#[test]
fn a_missing_member_is_named() {
    let error = resolve(&Btf::parse(&super::super::btf::tests_empty()).unwrap()).unwrap_err();
    assert_eq!(error, Error::Missing { of: "task_struct", path: "flags" });
    for sample in SAMPLES {
        let error = resolved(&rename(sample.data, "f_mode")).unwrap_err();
        assert_eq!(error, Error::Missing { of: "file", path: "f_mode" }, "{}", sample.series);
        assert!(error.to_string().contains("file.f_mode"), "{error}");
    }
}

/// Every member that the table names, one after the other.
#[test]
fn every_renamed_member_is_reported() {
    let last = |path: &str| path.rsplit('.').next().unwrap().to_owned();
    for sample in SAMPLES {
        let btf = Btf::parse(sample.data).unwrap();
        for field in FIELDS.iter().filter(|field| !matches!(field.expect, Bit)) {
            let there = field.paths.iter().filter(|path| btf.member(field.of, path).is_some());
            let data = there.fold(sample.data.to_vec(), |data, path| rename(&data, &last(path)));
            // Another field can have a member of the same name and an earlier place in the table, and a
            // structure can have it too.
            let error = resolved(&data).unwrap_err();
            let fits = |name: &str| field.paths.iter().any(|path| last(path).get(1..) == name.get(1..));
            let named = match &error {
                Error::Missing { path, .. } => fits(&last(path)),
                Error::Type { found: Shape::Pointer(of) | Shape::Struct(of), .. } => fits(of),
                Error::Type { .. } => false,
            };
            assert!(named, "{} of {}: {error}", field.name, sample.series);
        }
    }
}

#[test]
fn another_structure_is_reported() {
    for sample in SAMPLES {
        let error = resolved(&rename(sample.data, "vfsmount")).unwrap_err();
        let expected = r#"Pointer("vfsmount")"#.to_owned();
        let found = Shape::Pointer("Xfsmount".to_owned());
        assert_eq!(error, Error::Type { of: "path", path: "mnt", found, expected }, "{}", sample.series);
    }
}

#[test]
fn another_type_is_reported() {
    // Structure, member, another member with its new type, and what that is.
    let changes = [
        ("inode", "i_ino", "i_mode", Shape::Int(2)),
        ("inode", "i_mode", "i_ino", Shape::Int(8)),
        ("inode", "i_rdev", "i_sb", Shape::Pointer("super_block".to_owned())),
        ("task_struct", "mm", "real_parent", Shape::Pointer("task_struct".to_owned())),
        ("task_struct", "real_parent", "mm", Shape::Pointer("mm_struct".to_owned())),
        ("mount", "mnt_parent", "mnt", Shape::Struct("vfsmount".to_owned())),
        ("linux_binprm", "filename", "argc", Shape::Int(4)),
    ];
    for sample in SAMPLES {
        for (of, member, like, shape) in &changes {
            let error = resolved(&retype(sample.data, of, member, like)).unwrap_err();
            let Error::Type { of: in_error, path, found, .. } = &error else {
                panic!("{}: {of}.{member}: {error}", sample.series);
            };
            assert_eq!((in_error, path, found), (of, member, shape), "{}", sample.series);
            assert!(error.to_string().contains(&format!("{of}.{member}")), "{error}");
        }
    }
}

#[test]
fn a_bitfield_is_no_member() {
    for sample in SAMPLES {
        let mut data = sample.data.to_vec();
        // The upper byte of an offset is a bitfield's width, in structures that have some.
        let at = member_at(&data, "task_struct", "tgid") + 8;
        data[at + 3] = 3;
        let error = resolved(&data).unwrap_err();
        assert_eq!(error, Error::Missing { of: "task_struct", path: "tgid" }, "{}", sample.series);
    }
}

#[test]
fn cut_samples_are_errors() {
    for sample in SAMPLES {
        for end in (0..sample.data.len()).step_by(509) {
            assert!(Btf::parse(&sample.data[..end]).is_err(), "{} cut at {end}", sample.series);
        }
    }
}
