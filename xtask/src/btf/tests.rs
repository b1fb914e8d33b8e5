//! What a sample keeps of a kernel's types.

use super::*;

/// Every wanted structure, without members but for `file { const struct path p; struct other *o; }`;
/// `struct other { int a; }` and two functions.
fn kernel() -> Btf {
    let mut strings = vec![0];
    let mut at = |text: &str| {
        strings.extend(text.as_bytes());
        strings.push(0);
        u32::try_from(strings.len() - text.len() - 1).unwrap()
    };
    let mut list = vec![
        (at("int"), kind::INT << 24, 4, vec![32]),                     // 1
        (at("other"), kind::STRUCT << 24 | 1, 4, vec![at("a"), 1, 0]), // 2
        (0, kind::PTR << 24, 2, vec![]),                               // 3
        (0, 10 << 24, 6, vec![]),                                      // 4: const
        (at("file"), kind::STRUCT << 24 | 2, 16, vec![at("p"), 4, 0, at("o"), 3, 64]), // 5
        (at("path"), kind::STRUCT << 24, 8, vec![]),                   // 6
        (0, kind::FUNC_PROTO << 24 | 1, 1, vec![at("x"), 3]),          // 7
        (at("bpf_lsm_a"), kind::FUNC << 24, 7, vec![]),                // 8
        (at("vfs_a"), kind::FUNC << 24, 7, vec![]),                    // 9
    ];
    let rest = STRUCTS.iter().filter(|name| !["file", "path"].contains(name));
    list.extend(rest.map(|name| (at(name), kind::STRUCT << 24, 0, vec![])));
    let types = (1..)
        .zip(list)
        .map(|(id, (name, info, size_or_type, rest))| (id, Type { name, info, size_or_type, rest }));
    Btf { types: types.collect(), strings }
}

#[test]
fn what_is_pointed_to_is_only_declared() {
    let sample = kernel().reduced().unwrap().bytes().unwrap();
    let sample = Btf::parse(&sample).unwrap();
    let named = |name: &str| sample.types.values().find(|of| sample.text(of.name) == name.as_bytes());
    assert_eq!(named("other").unwrap().kind(), kind::FWD);
    assert!(named("vfs_a").is_none() && named("int").is_none());
    let prototype = &sample.types[&named("bpf_lsm_a").unwrap().size_or_type];
    assert_eq!((prototype.kind(), prototype.rest.len()), (kind::FUNC_PROTO, 0));
    let file = named("file").unwrap().types();
    let [path, other] = [&sample.types[&file[0]], &sample.types[&file[1]]];
    assert_eq!((path.kind(), other.kind()), (10, kind::PTR));
    assert_eq!(sample.types[&path.size_or_type].kind(), kind::STRUCT);
    assert_eq!(&sample.types[&other.size_or_type], named("other").unwrap());
}

#[test]
fn bad_btf_is_an_error() {
    let good = kernel().bytes().unwrap();
    assert!((0..good.len()).all(|end| Btf::parse(&good[..end]).is_err()));
    let mut lacking = kernel();
    lacking.types.remove(&5);
    assert!(lacking.reduced().is_err_and(|error| error.to_string().contains("file")));
}
