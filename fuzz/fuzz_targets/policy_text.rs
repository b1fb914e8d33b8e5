//! Policy text: mistakes are diagnostics with a place, never a panic; what is a policy becomes tables.

#![no_main]

use std::{
    collections::BTreeMap,
    ffi::OsString,
    hash::{DefaultHasher, Hash, Hasher},
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    path::{Path, PathBuf},
};

use agent_guard::policy::{
    self, Diagnostic, Filesystem, Mount, Object, PolicySummary, Service, SessionPaths, Source,
    explain_connect, explain_listen, explain_names, explain_path, oracle,
};
use agent_guard_common::{ObjectKey, Op, Protocol};
use libfuzzer_sys::fuzz_target;

/// One file system on which every path exists but those with an `x`.
struct Everything;

impl Filesystem for Everything {
    fn lookup_all(&self, paths: &[(PathBuf, bool)]) -> Vec<io::Result<Object>> {
        let one = |(path, _): &(PathBuf, bool)| {
            if path.to_string_lossy().contains('x') {
                return Err(io::ErrorKind::NotFound.into());
            }
            let mut hasher = DefaultHasher::new();
            path.hash(&mut hasher);
            let key = ObjectKey::new(1, hasher.finish(), 0);
            let root = ObjectKey::new(1, 0, 0);
            Ok(Object { path: path.clone(), key, root, mount: 1, directory: true, device: None })
        };
        paths.iter().map(one).collect()
    }

    fn mounts(&self) -> io::Result<Vec<Mount>> {
        let (root, point) = (PathBuf::from("/"), PathBuf::from("/"));
        Ok(vec![Mount { id: 1, parent: 0, dev: 1, root, point, kind: "ext4".into() }])
    }

    fn names(&self, _directory: &Path) -> io::Result<Vec<OsString>> {
        Ok(vec!["a".into(), "x".into()])
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
    let key = [1, 2];
    let mut compiled = match policy::build(&policy, &Everything, &BTreeMap::new(), key, &[]) {
        Ok(compiled) => compiled,
        Err(diagnostics) => return check(&diagnostics),
    };
    for (profile, binding) in policy.profiles.iter().zip(1..) {
        let (cwd, home, tmp) = ("/srv/a".into(), Some("/home/x".into()), "/tmp".into());
        let session = SessionPaths { profile: profile.name.clone(), binding, cwd, home, tmp };
        if let Err(diagnostics) = compiled.bind_session(&policy, &Everything, &session) {
            check(&diagnostics);
        }
        let Some(index) = compiled.profile_index(&profile.name) else { continue };
        let view = compiled.view();
        for op in Op::FILE {
            let _said = explain_path(&view, &Everything, (index, binding), op, Path::new("/srv/a/b"));
        }
        let service = Service { port: 443, protocol: Protocol::UDP };
        for addr in [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::UNSPECIFIED),
        ] {
            let said = explain_connect(&view, index, addr, service).expect("the profile is there");
            let defined = oracle::connect(&policy, &profile.name, &[], addr, service.port, service.protocol);
            assert_eq!(Some(said.verdict.as_str()), defined.map(|answer| answer.verdict.name()));
            let said = explain_listen(&view, index, addr, service).expect("the profile is there");
            let defined = oracle::listen(&policy, &profile.name, addr, service.port, service.protocol);
            assert_eq!(Some(said.verdict.as_str()), defined.map(|answer| answer.verdict.name()));
            for name in ["a.example", "b.a.example"] {
                // What was loaded fits.
                let said = explain_names(&view, index, &[name], Some(addr), service).expect("one name");
                let defined =
                    oracle::connect(&policy, &profile.name, &[name], addr, service.port, service.protocol);
                assert_eq!(Some(said.verdict.as_str()), defined.map(|answer| answer.verdict.name()));
            }
        }
        for name in ["", ".", "a.example", "b.a.example", "localhost"] {
            let _said = compiled.hosts.name(index, name);
        }
    }
});
