//! Policy text: mistakes are diagnostics with a place, never a panic; what is a policy becomes tables.

#![no_main]

use std::{
    collections::BTreeMap,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use agent_guard::policy::{
    self, Diagnostic, Filesystem, Mount, Object, PolicySummary, Source, explain_connect, explain_path,
};
use agent_guard_common::{ObjectKey, Op};
use libfuzzer_sys::fuzz_target;

/// One file system on which every path exists.
struct Everything;

impl Filesystem for Everything {
    fn lookup(&self, path: &Path, _follow: bool) -> io::Result<Object> {
        let mut hasher = DefaultHasher::new();
        path.hash(&mut hasher);
        let key = ObjectKey::new(1, hasher.finish());
        Ok(Object { path: path.into(), key, mount: 1, device: None })
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        let (root, point) = (PathBuf::from("/"), PathBuf::from("/"));
        Ok(vec![Mount { id: 1, parent: 0, dev: 1, root, point, kind: "ext4".into() }])
    }
}

fn check(diagnostics: &[Diagnostic]) {
    assert!(!diagnostics.is_empty());
    for diagnostic in diagnostics {
        assert!(diagnostic.line > 0 && diagnostic.column > 0, "{diagnostic}");
        assert!(!diagnostic.message.is_empty());
    }
}

fuzz_target!(|text: &str| {
    // Two sources, so that they can contradict each other.
    let parts = text.split_once('\u{1}').map_or_else(|| vec![text], |(first, second)| vec![first, second]);
    let names = ["a.toml", "b.toml"];
    let sources = names.iter().zip(parts);
    let sources = sources.map(|(name, text)| Source { name: (*name).into(), text: text.into() }).collect();
    let policy = match policy::load(sources) {
        Ok(policy) => policy,
        Err(diagnostics) => return check(&diagnostics),
    };
    let _summary = PolicySummary::new(&policy);
    let compiled = match policy::build(&policy, &Everything, &BTreeMap::new()) {
        Ok(compiled) => compiled,
        Err(diagnostics) => return check(&diagnostics),
    };
    for profile in &policy.profiles {
        for op in Op::FILE {
            let _said = explain_path(&compiled, &Everything, &profile.name, op, Path::new("/srv/a/b"));
        }
        for addr in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            let _said = explain_connect(&compiled, &profile.name, addr, 443);
        }
    }
});
