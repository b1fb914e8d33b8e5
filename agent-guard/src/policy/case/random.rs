//! Random cases, the same for the same number.

use std::path::{Path, PathBuf};

use agent_guard_common::{Op, Verdict};

use super::{
    super::{fs::join, world::World},
    Case, Line, apply,
};

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

    /// One of several; the other one if there are none.
    pub fn pick<T: Copy>(&mut self, from: &[T], other: T) -> T {
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
    /// What has been made so far, so that most of what follows can be done.
    world: World,
    paths: Vec<PathBuf>,
    points: Vec<PathBuf>,
    lines: Vec<Line>,
}

impl Case {
    /// A random case. All files are below `base`, which is made first. What the system refuses is to be left out.
    ///
    /// Nothing is bound to a second place before the policy is loaded.
    #[must_use]
    pub fn random(seed: u64, base: &Path) -> Self {
        let random = Random::new(seed);
        let (paths, points, lines) = (vec![base.to_owned()], Vec::new(), Vec::new());
        let mut maker = Maker { random, base, world: World::default(), paths, points, lines };
        let mut above: Vec<_> = base.ancestors().filter(|path| path.parent().is_some()).collect();
        above.reverse();
        above.into_iter().for_each(|path| maker.add(Line::Mkdir(path.into())));
        for disk in 2..2 + maker.random.below(12) {
            for _ in 0..3 {
                maker.grow(u32::try_from(disk).unwrap_or(2));
            }
        }
        maker.policy();
        maker.lines.push(Line::Load);
        for _ in 0..maker.random.below(16) {
            if maker.random.one_in(3) {
                maker.grow(20);
            } else {
                maker.change();
            }
            for _ in 0..maker.random.below(3) {
                maker.ask();
            }
        }
        for _ in 0..8 {
            maker.ask();
        }
        Self(maker.lines)
    }
}

impl Maker<'_> {
    fn add(&mut self, line: Line) {
        if apply(&mut self.world, &line).is_ok() {
            match &line {
                Line::Mkdir(path) | Line::File(path) | Line::Symlink(_, path) | Line::Link(_, path) => {
                    self.paths.push(path.clone());
                }
                Line::Rename(from, to) => {
                    let moved =
                        self.paths.iter().filter_map(|path| Some(join(to, path.strip_prefix(from).ok()?)));
                    let moved: Vec<_> = moved.collect();
                    self.paths.extend(moved);
                }
                Line::Bind(_, path) | Line::Mount(_, path) => self.points.push(path.clone()),
                _ => {}
            }
        }
        self.lines.push(line);
    }

    fn path(&mut self) -> PathBuf {
        let mut path = self.base.to_owned();
        for _ in 0..1 + self.random.below(4) {
            path.push(self.random.pick(&NAMES, "a"));
        }
        path
    }

    /// One that is there, or was.
    fn known(&mut self) -> PathBuf {
        let at = self.random.below(u64::try_from(self.paths.len()).unwrap_or(1));
        let known = usize::try_from(at).ok().and_then(|at| self.paths.get(at));
        // The base itself stays.
        known.filter(|known| *known != self.base).cloned().unwrap_or_else(|| self.path())
    }

    /// A new name in one that is there.
    fn fresh(&mut self) -> PathBuf {
        let above = if self.random.one_in(3) { self.base.to_owned() } else { self.known() };
        let name = self.random.pick(&NAMES, "a");
        above.join(name)
    }

    fn point(&mut self) -> PathBuf {
        let at = self.random.below(u64::try_from(self.points.len()).unwrap_or(1));
        let point = usize::try_from(at).ok().and_then(|at| self.points.get(at)).cloned();
        point.unwrap_or_else(|| self.known())
    }

    /// Before and after the load: nothing that gives a directory a second place.
    fn grow(&mut self, disk: u32) {
        let line = match self.random.below(16) {
            0..8 => Line::Mkdir(self.fresh()),
            8..11 => Line::File(self.fresh()),
            11 => Line::Symlink(self.known(), self.fresh()),
            12 => Line::Link(self.known(), self.fresh()),
            13 => Line::Mount(disk, self.known()),
            14 => Line::Rename(self.known(), self.fresh()),
            _ => Line::Mkdir(self.path()),
        };
        // A disk is mounted once.
        let again = |other: &Line| matches!((other, &line), (Line::Mount(one, _), Line::Mount(other, _)) if one == other);
        if !self.lines.iter().any(again) {
            self.add(line);
        }
    }

    fn change(&mut self) {
        let line = match self.random.below(12) {
            0..3 => Line::Rename(self.known(), self.fresh()),
            3 => Line::Rename(self.known(), self.known()),
            4..7 => Line::Remove(self.known()),
            // Something else gets its place.
            7 => {
                let path = self.known();
                self.add(Line::Remove(path.clone()));
                if self.random.one_in(2) { Line::Mkdir(path) } else { Line::File(path) }
            }
            8 => Line::Link(self.known(), self.fresh()),
            9 => Line::Bind(self.known(), self.known()),
            10 => {
                let disk = u32::try_from(2 + self.random.below(6)).unwrap_or(2);
                Line::Mount(disk, if self.random.one_in(2) { self.point() } else { self.known() })
            }
            _ => Line::Unmount(self.point()),
        };
        self.add(line);
    }

    fn ask(&mut self) {
        let op = if self.random.one_in(6) { Op::CONNECT } else { self.random.pick(&Op::FILE, Op::WRITE) };
        let path = match self.random.below(4) {
            0 => self.path(),
            1 => self.fresh(),
            _ => self.known(),
        };
        self.lines.push(Line::Ask(op, path));
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
            5..8 => self.known().display().to_string(),
            8 => self.fresh().display().to_string(),
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

    fn policy(&mut self) {
        if self.random.one_in(5) {
            self.lines.push(Line::Report);
        }
        let session = Line::Session(self.known(), self.known(), self.path());
        self.lines.push(session);
        for _ in 0..self.random.below(3) {
            let path = self.pattern(true, true);
            self.lines.push(Line::Scope(path));
        }
        for op in self.ops() {
            let verdict = self.verdict();
            self.lines.push(Line::Outside(op, verdict));
        }
        for _ in 0..self.random.below(9) {
            let rule = Line::Rule(self.verdict(), self.ops(), self.pattern(false, true));
            self.lines.push(rule);
        }
        if self.random.one_in(2) {
            let verdict = self.verdict();
            self.lines.push(Line::Connect(verdict));
        }
        for _ in 0..self.random.below(4) {
            let lists = [Verdict::ALLOW, Verdict::REPORT, Verdict::HOLD, Verdict::DENY];
            let verdict = self.random.pick(&lists, Verdict::DENY);
            let path = self.pattern(false, true);
            self.lines.push(Line::Socket(verdict, path));
        }
        for _ in 0..self.random.below(3) {
            let verdict = self.random.pick(&[Verdict::HOLD, Verdict::DENY, Verdict::KILL], Verdict::DENY);
            let rule = Line::Critical(verdict, self.ops(), self.pattern(false, false));
            self.lines.push(rule);
        }
    }
}
