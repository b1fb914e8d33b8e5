//! Random cases, the same for the same number.

use std::path::{Path, PathBuf};

use agent_guard_common::{Op, Verdict};

use super::{Case, Line};

/// Numbers that look random (`SplitMix64`, Steele and others, 2014).
#[derive(Clone, Debug)]
pub struct Random(u64);

impl Random {
    /// The numbers of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below a bound, which isn't 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound.max(1)
    }

    fn one_in(&mut self, bound: u64) -> bool {
        self.below(bound) == 0
    }

    fn pick<T: Copy>(&mut self, from: &[T], other: T) -> T {
        let at = self.below(u64::try_from(from.len()).unwrap_or(1));
        usize::try_from(at).ok().and_then(|at| from.get(at)).copied().unwrap_or(other)
    }
}

/// Few names, so that paths meet; one is so long that the kernel keeps it elsewhere.
const NAMES: [&str; 7] = ["a", "b", "c", "a", "b", "d.tf", "long-name-that-has-more-than-32-bytes"];
const ENDINGS: [&str; 4] = [".tf", "d.tf", "tf", "more-than-32-bytes"];

struct Maker<'a> {
    random: Random,
    base: &'a Path,
}

impl Case {
    /// A random case. All files are below `base`, which is made first. What the system refuses is to be left out.
    ///
    /// Nothing is bound to a second place before the policy is loaded.
    #[must_use]
    pub fn random(seed: u64, base: &Path) -> Self {
        let mut maker = Maker { random: Random::new(seed), base };
        let mut above: Vec<_> = base.ancestors().filter(|path| path.parent().is_some()).collect();
        above.reverse();
        let mut lines: Vec<_> = above.into_iter().map(|path| Line::Mkdir(path.into())).collect();
        let mut disk = 2;
        for _ in 0..maker.random.below(25) {
            lines.push(maker.grow(&mut disk));
        }
        maker.policy(&mut lines);
        lines.push(Line::Load);
        for _ in 0..maker.random.below(12) {
            lines.push(if maker.random.one_in(3) { maker.grow(&mut disk) } else { maker.change() });
            for _ in 0..maker.random.below(3) {
                lines.push(maker.ask());
            }
        }
        for _ in 0..8 {
            lines.push(maker.ask());
        }
        Self(lines)
    }
}

impl Maker<'_> {
    fn path(&mut self) -> PathBuf {
        let mut path = self.base.to_owned();
        for _ in 0..1 + self.random.below(4) {
            path.push(self.random.pick(&NAMES, "a"));
        }
        path
    }

    /// Before and after the load: nothing that gives an object a second place.
    fn grow(&mut self, disk: &mut u32) -> Line {
        match self.random.below(14) {
            0..7 => Line::Mkdir(self.path()),
            7..10 => Line::File(self.path()),
            10 => Line::Symlink(self.path(), self.path()),
            11 => Line::Link(self.path(), self.path()),
            12 => {
                *disk += 1;
                Line::Mount(*disk - 1, self.path())
            }
            _ => Line::Rename(self.path(), self.path()),
        }
    }

    fn change(&mut self) -> Line {
        match self.random.below(10) {
            0..4 => Line::Rename(self.path(), self.path()),
            4..6 => Line::Remove(self.path()),
            6 => Line::Link(self.path(), self.path()),
            7 => Line::Bind(self.path(), self.path()),
            8 => Line::Mount(u32::try_from(2 + self.random.below(3)).unwrap_or(2), self.path()),
            _ => Line::Unmount(self.path()),
        }
    }

    fn ask(&mut self) -> Line {
        Line::Ask(self.random.pick(&Op::FILE, Op::WRITE), self.path())
    }

    fn ops(&mut self) -> Vec<Op> {
        let wanted = self.random.below(127) + 1;
        Op::FILE.into_iter().filter(|op| wanted >> op.0 & 1 != 0).collect()
    }

    /// A path of any form.
    fn pattern(&mut self, scope: bool, variables: bool) -> String {
        let form = self.random.below(10);
        let names = self.names(1);
        match form {
            0 if !scope => format!("**/{}", self.names(0).join("/")),
            1 if !scope => format!("**/*{}", self.random.pick(&ENDINGS, ".tf")),
            0..4 if variables => {
                let variable = self.random.pick(&["${cwd}", "${home}", "${tmp}"], "${cwd}");
                if self.random.one_in(2) {
                    variable.to_owned()
                } else {
                    format!("{variable}/{}", names.join("/"))
                }
            }
            4 => format!("{}/*", self.base.display()),
            _ => format!("{}/{}", self.base.display(), names.join("/")),
        }
    }

    /// Names and stars, the last of `behind` can be one.
    fn names(&mut self, behind: u64) -> Vec<&'static str> {
        let count = 1 + self.random.below(3);
        let mut names: Vec<_> = (0..count)
            .map(|_| if self.random.one_in(4) { "*" } else { self.random.pick(&NAMES, "a") })
            .collect();
        let last = names.len().saturating_sub(1);
        let stars = names.iter().rev().take_while(|name| **name == "*").count();
        if stars > usize::try_from(behind).unwrap_or(0)
            && let Some(name) = names.get_mut(last)
        {
            *name = "a";
        }
        names
    }

    fn verdict(&mut self) -> Verdict {
        self.random.pick(&Verdict::ALL, Verdict::DENY)
    }

    fn policy(&mut self, lines: &mut Vec<Line>) {
        if self.random.one_in(5) {
            lines.push(Line::Report);
        }
        lines.push(Line::Session(self.path(), self.path(), self.path()));
        for _ in 0..self.random.below(3) {
            lines.push(Line::Scope(self.pattern(true, true)));
        }
        for op in self.ops() {
            lines.push(Line::Outside(op, self.verdict()));
        }
        for _ in 0..self.random.below(9) {
            lines.push(Line::Rule(self.verdict(), self.ops(), self.pattern(false, true)));
        }
        for _ in 0..self.random.below(3) {
            let verdict = self.random.pick(&[Verdict::HOLD, Verdict::DENY, Verdict::KILL], Verdict::DENY);
            lines.push(Line::Critical(verdict, self.ops(), self.pattern(false, false)));
        }
    }
}
