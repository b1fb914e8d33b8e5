//! Control groups.

use super::load;

/// `struct cgroup *`.
#[derive(Clone, Copy)]
pub struct Cgroup(pub *const u8);

impl Cgroup {
    /// Whether it is of the unified hierarchy (cgroup v2), whose number is 0.
    #[inline(always)]
    pub fn is_unified(self) -> bool {
        let root = load!(self.0, cgroup_root, *const u8);
        load!(root, cgroup_root_hierarchy_id, u32) == 0
    }

    /// Its number, which is the inode number of its directory and never comes twice (`kernfs_node.id`).
    #[inline(always)]
    pub fn id(self) -> u64 {
        let node = load!(self.0, cgroup_kn, *const u8);
        load!(node, kernfs_node_id, u64)
    }
}
