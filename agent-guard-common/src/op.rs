//! Operations: what a session can try to do.

/// An operation, as rules name it. On the wire a byte.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Op(pub u8);

impl Op {
    /// Open a file for reading.
    pub const READ: Self = Self(0);
    /// Execute a file.
    pub const EXECUTE: Self = Self(1);
    /// Open for writing, truncate.
    pub const WRITE: Self = Self(2);
    /// Make a file, directory, link, node or socket; the target of a rename.
    pub const CREATE: Self = Self(3);
    /// Unlink, remove a directory, be replaced by a rename.
    pub const DELETE: Self = Self(4);
    /// Be moved away.
    pub const RENAME: Self = Self(5);
    /// Mode, owner, times, attributes, ACL, flags.
    pub const METADATA: Self = Self(6);
    /// Connect a socket, or send without connecting.
    pub const CONNECT: Self = Self(7);

    /// Number of operations, and of slots in [`crate::rules::OpRules`].
    pub const COUNT: usize = 8;

    /// Operations on files, in the order of their numbers.
    pub const FILE: [Self; 7] =
        [Self::READ, Self::EXECUTE, Self::WRITE, Self::CREATE, Self::DELETE, Self::RENAME, Self::METADATA];

    /// The name that policy, command line and events use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::READ => "read",
            Self::EXECUTE => "execute",
            Self::WRITE => "write",
            Self::CREATE => "create",
            Self::DELETE => "delete",
            Self::RENAME => "rename",
            Self::METADATA => "metadata",
            Self::CONNECT => "connect",
            _ => "unknown",
        }
    }

    /// Its bit in a set of operations on files and networks.
    #[inline(always)]
    #[must_use]
    pub const fn bit(self) -> u32 {
        1 << (self.0 & 7)
    }

    /// The operation with that name, if there is one.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::FILE.into_iter().chain([Self::CONNECT]).find(|op| op.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for op in Op::FILE.into_iter().chain([Op::CONNECT]) {
            assert_eq!(Op::from_name(op.name()), Some(op));
            assert!((op.0 as usize) < Op::COUNT);
        }
        assert_eq!(Op::from_name("unknown"), None);
    }
}
