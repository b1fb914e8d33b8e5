//! Random profiles against the definition: whenever the answer is yes, nothing that the inner session is asked about may be
//! milder than for the outer one. And enough of them must be accepted, and enough refused.

use super::*;
use crate::policy::{
    case::{self, Case, Line, Random},
    exec::{CommandPattern, Glob, Word},
    oracle::Oracle,
};

/// A second profile: the first one with some lines changed. Most changes make it stricter.
fn changed(outer: &Case, random: &mut Random) -> Case {
    let known: Vec<String> = outer
        .0
        .iter()
        .filter_map(|line| match line {
            Line::Mkdir(path) => Some(path.display().to_string()),
            Line::Rule(_, _, path) | Line::Scope(path) => Some(path.clone()),
            _ => None,
        })
        .collect();
    let any = |random: &mut Random| known[usize::try_from(random.below(known.len() as u64)).unwrap()].clone();
    let verdict = |random: &mut Random, old: Verdict| match random.below(12) {
        0 => random.pick(&Verdict::ALL, old),
        1..4 => old.max(random.pick(&Verdict::ALL, old)),
        _ => old,
    };
    let mut lines = Vec::new();
    for line in &outer.0 {
        match line {
            Line::Rule(old, ops, path) if random.below(20) > 0 => {
                lines.push(Line::Rule(verdict(random, *old), ops.clone(), path.clone()));
            }
            Line::Outside(op, old) => lines.push(Line::Outside(*op, verdict(random, *old))),
            Line::Scope(path) => match random.below(8) {
                0 => lines.push(Line::Scope(any(random))),
                1..4 => {}
                _ => lines.push(Line::Scope(path.clone())),
            },
            Line::Report if random.below(3) > 0 => lines.push(Line::Report),
            Line::Session(cwd, home, tmp) => {
                let cwd = if random.below(4) == 0 { any(random).into() } else { cwd.clone() };
                let cwd = if cwd.is_absolute() { cwd } else { tmp.clone() };
                lines.push(Line::Session(cwd, home.clone(), tmp.clone()));
            }
            _ => {}
        }
    }
    if random.below(3) == 0 {
        let strict = random.pick(&[Verdict::DENY, Verdict::KILL, Verdict::HOLD], Verdict::KILL);
        lines.push(Line::Rule(strict, Op::FILE.to_vec(), any(random)));
    }
    lines.retain(|line| !matches!(line, Line::Scope(path) if path.starts_with("**")));
    Case(lines)
}

/// Both profiles, the second one as `q`.
fn both(outer: &Case, inner: &Case) -> Option<Policy> {
    let texts = [outer.policy(), inner.policy().replace("profile.p", "profile.q")];
    let source = |(at, text): (usize, &String)| Source { name: format!("{at}.toml"), text: text.clone() };
    load(texts.iter().enumerate().map(source).collect()).ok()
}

/// What may still happen while the answer stays true: with a scope of the inner session's own nothing that it has may be moved.
fn may_happen(line: &Line, inner: &Case) -> bool {
    match line {
        Line::Mkdir(_) | Line::File(_) => true,
        Line::Rename(..)
        | Line::Link(..)
        | Line::Remove(_)
        | Line::Bind(..)
        | Line::Mount(..)
        | Line::Unmount(_) => !inner.0.iter().any(|line| matches!(line, Line::Scope(_))),
        _ => false,
    }
}

/// Questions about everything that a case names, and something below.
fn questions(case: &Case) -> Vec<std::path::PathBuf> {
    let named = case.0.iter().flat_map(|line| match line {
        Line::Mkdir(path)
        | Line::File(path)
        | Line::Ask(_, path)
        | Line::Bind(_, path)
        | Line::Mount(_, path) => vec![path.clone()],
        Line::Rename(_, path) | Line::Link(_, path) | Line::Symlink(_, path) => {
            vec![path.clone(), path.join("b")]
        }
        _ => vec![],
    });
    named.flat_map(|path| [path.join("new"), path]).collect()
}

/// What became of one pair of profiles.
#[derive(PartialEq)]
enum Outcome {
    Unusable,
    Refused,
    Accepted,
}

fn compare(seed: u64) -> Outcome {
    let outer_case = Case::random(seed, Path::new("/w"));
    let inner_case = changed(&outer_case, &mut Random::new(seed ^ 0x5555));
    let Some(policy) = both(&outer_case, &inner_case) else { return Outcome::Unusable };
    let mut world = World::default();
    let mut lines = outer_case.0.iter();
    for line in lines.by_ref().take_while(|line| **line != Line::Load) {
        drop(case::apply(&mut world, line));
    }
    let outer = SessionPaths { binding: 1, ..outer_case.session() };
    let inner = SessionPaths { binding: 2, profile: "q".to_owned(), ..inner_case.session() };
    let Ok(compiled) = build(&policy, &world, &BTreeMap::new(), KEY, &[outer.clone(), inner.clone()]) else {
        return Outcome::Unusable;
    };
    let load = |session| Oracle::load(&policy, &world, session).unwrap().unwrap();
    let (bound, mine) = (load(&outer), load(&inner));
    if narrower(&policy, &compiled, &world, rules_of(&outer), rules_of(&inner)).is_err() {
        return Outcome::Refused;
    }
    let questions = questions(&outer_case);
    let ask = |world: &World| {
        for path in &questions {
            for op in Op::FILE.into_iter().chain([Op::CONNECT]) {
                let (Ok(bound), Ok(mine)) = (bound.judge(world, op, path), mine.judge(world, op, path))
                else {
                    continue;
                };
                assert!(
                    mine.verdict >= bound.verdict,
                    "seed {seed}: {} {}: {mine:?}, but {bound:?}\n{outer_case}\n{inner_case}",
                    op.name(),
                    path.display()
                );
            }
        }
    };
    ask(&world);
    let later = lines.filter(|line| may_happen(line, &inner_case)).collect::<Vec<_>>();
    let mut after = world.clone();
    for line in later {
        drop(case::apply(&mut after, line));
    }
    ask(&after);
    Outcome::Accepted
}

#[test]
fn never_milder_than_the_definition_says() {
    let outcomes: Vec<_> = (0..200).map(compare).collect();
    let count = |outcome| outcomes.iter().filter(|other| **other == outcome).count();
    let (accepted, refused) = (count(Outcome::Accepted), count(Outcome::Refused));
    assert!(accepted * 10 > refused && refused * 10 > accepted, "{accepted} accepted, {refused} refused");
}

/// The inner session begins when the outer one has changed things. The definition knows no such thing, so the tables answer.
#[test]
fn never_milder_when_it_begins_later() {
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..200 {
        let outer_case = Case::random(seed, Path::new("/w"));
        let inner_case = changed(&outer_case, &mut Random::new(seed ^ 0x7777));
        let Some(policy) = both(&outer_case, &inner_case) else { continue };
        let mut world = World::default();
        let outer = SessionPaths { binding: 1, ..outer_case.session() };
        let inner = SessionPaths { binding: 2, profile: "q".to_owned(), ..inner_case.session() };
        let mut compiled = None;
        for line in &outer_case.0 {
            match line {
                Line::Load => {
                    compiled =
                        build(&policy, &world, &BTreeMap::new(), KEY, std::slice::from_ref(&outer)).ok();
                }
                line => drop(case::apply(&mut world, line)),
            }
        }
        let Some(mut compiled) = compiled else { continue };
        let Ok(mut changes) = compiled.bind_session(&policy, &world, &inner) else { continue };
        let (bound, mine) = (rules_of(&outer), rules_of(&inner));
        compiled.follow(bound, mine, &mut changes);
        if narrower(&policy, &compiled, &world, bound, mine).is_err() {
            refused += 1;
            continue;
        }
        accepted += 1;
        let who = |rules: Rules<'_>| (compiled.profile_index(rules.profile).unwrap(), rules.binding);
        for (path, op) in questions(&outer_case).iter().flat_map(|path| Op::FILE.map(|op| (path, op))) {
            let [bound, mine] =
                [bound, mine].map(|rules| explain_path(&compiled.view(), &world, who(rules), op, path));
            let (Ok(bound), Ok(mine)) = (bound, mine) else { continue };
            let verdict = |text: &str| Verdict::from_name(text).unwrap();
            assert!(
                verdict(&mine.verdict) >= verdict(&bound.verdict),
                "seed {seed}: {} {}: {mine:?}, but {bound:?}\n{outer_case}\n{inner_case}",
                op.name(),
                path.display()
            );
        }
    }
    assert!(accepted * 10 > refused && refused * 10 > accepted, "{accepted} accepted, {refused} refused");
}

fn is_like(glob: &Glob, text: &str) -> bool {
    let mut parts = glob.parts();
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let parts: Vec<_> = parts.collect();
    let Some((last, middle)) = parts.split_last() else { return rest.is_empty() };
    for part in middle {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

fn words_match(words: &[Word], arguments: &[&str]) -> bool {
    match words.split_first() {
        None => arguments.is_empty(),
        Some((Word::Any, rest)) => (0..=arguments.len()).any(|from| words_match(rest, &arguments[from..])),
        Some((Word::One(glob), rest)) => arguments
            .split_first()
            .is_some_and(|(first, more)| is_like(glob, first) && words_match(rest, more)),
    }
}

/// What a profile's rules say of a command, read naively.
fn said(profile: &Profile, command: &[&str]) -> Verdict {
    let about = |pattern: &CommandPattern| {
        is_like(&pattern.program, command[0]) && words_match(&pattern.arguments, &command[1..])
    };
    let rules = profile.exec.rules.iter().filter(|rule| about(&rule.command));
    rules.map(|rule| rule.verdict).fold(Verdict::ALLOW, Verdict::max)
}

#[test]
fn commands_as_defined() {
    let words = ["a", "b", "a*", "*", "...", "...", "*b"];
    let rule = |random: &mut Random| {
        let mut argv = vec![random.pick(&["a", "b", "*", "a*"], "a")];
        argv.extend((0..random.below(4)).map(|_| random.pick(&words, "a")));
        (argv, random.pick(&Verdict::ALL, Verdict::DENY))
    };
    let text = |name: &str, rules: &[(Vec<&str>, Verdict)]| {
        let rules = rules.iter().map(|(argv, verdict)| {
            format!("[[profile.{name}.exec.rule]]\nargv = {argv:?}\nverdict = \"{}\"\n", verdict.name())
        });
        format!("[profile.{name}]\n{}", rules.collect::<String>())
    };
    let (mut accepted, mut refused) = (0, 0);
    for seed in 0..25 {
        let mut random = Random::new(seed);
        let outer: Vec<_> = (0..1 + random.below(2)).map(|_| rule(&mut random)).collect();
        let mut inner: Vec<_> = (0..1 + random.below(2)).map(|_| rule(&mut random)).collect();
        if random.below(2) == 0 {
            inner.extend(outer.clone());
        }
        let policy = policy_of(&[&format!("version = 1\n{}{}", text("p", &outer), text("q", &inner))]);
        let compiled = build(&policy, &World::default(), &BTreeMap::new(), KEY, &[]).unwrap();
        let rules = |profile| Rules { profile, binding: NO_SESSION, paths: None };
        let [p, q] = ["p", "q"].map(|name| policy.profile(name).unwrap());
        let choice = ["a", "b", "ab", "c", ""];
        let mut milder = None;
        for _ in 0..60 {
            let mut command = vec![random.pick(&["a", "b", "ab", "c"], "a")];
            command.extend((0..random.below(4)).map(|_| random.pick(&choice, "a")));
            milder = milder.or((said(q, &command) < said(p, &command)).then_some(command));
        }
        if narrower(&policy, &compiled, &World::default(), rules("p"), rules("q")).is_ok() {
            accepted += 1;
            assert_eq!(milder, None, "{outer:?} {inner:?}");
        } else {
            refused += 1;
        }
    }
    assert!(accepted * 10 > refused && refused * 10 > accepted, "{accepted} accepted, {refused} refused");
}
