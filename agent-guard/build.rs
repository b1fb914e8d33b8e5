//! Builds the kernel side for the BPF target; the daemon has the object built in.

use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    let ebpf = concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-guard-ebpf");
    // Changes to the shared crate change the object too.
    println!("cargo:rerun-if-changed={}", concat!(env!("CARGO_MANIFEST_DIR"), "/../agent-guard-common/src"));
    let package = Package { name: "agent-guard-ebpf", root_dir: ebpf, ..Package::default() };
    aya_build::build_ebpf([package], Toolchain::Nightly)
}
