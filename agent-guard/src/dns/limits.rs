//! Limits on what names may carry, and on how much a session may ask.
//!
//! Whoever owns a domain reads what is asked of its servers, so a rule such as `*.example.com` is also a way out for whatever a
//! name can spell. Names that a rule has in full can't spell anything and aren't limited. For the others [`NameLimits`] says
//! how a name may look, and [`Rates`] how many different ones a session may ask for in a time: what the first lets pass is slow.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

/// How a name may look that only a rule like `*.example.com` allows.
///
/// The defaults let content delivery networks, buckets, UUIDs and hashes in hexadecimal digits pass, and few labels of 40 and
/// more characters in base32 or base64.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct NameLimits {
    /// Characters of the whole name, without the final dot.
    pub length: usize,
    /// Labels in front of the rule's base: `a.b.example.com` has two in front of that of `*.example.com`.
    pub labels: usize,
    /// Characters of one label. The protocol has room for 63 (RFC 1035, section 2.3.4).
    pub label: usize,
    /// From how many characters on a label is a long one, whose entropy counts. A short one says little about its alphabet.
    pub long: usize,
    /// Shannon entropy of a long label, in bits a character. Hexadecimal digits have at most 4, 40 random characters of
    /// base32 about 4.35, and 63 of them about 4.6.
    pub entropy: f64,
}

impl Default for NameLimits {
    fn default() -> Self {
        Self { length: 128, labels: 6, label: 56, long: 36, entropy: 4.25 }
    }
}

impl NameLimits {
    /// The limit that a name exceeds, if it does. The name is lower case and has no final dot; `base` is how many labels of it
    /// are the rule's.
    pub(super) fn exceeded(&self, name: &str, base: usize) -> Option<Limit> {
        let labels: Vec<&str> = name.split('.').collect();
        let below = labels.len().saturating_sub(base);
        if name.len() > self.length {
            return Some(Limit::Length);
        }
        if below > self.labels {
            return Some(Limit::Labels);
        }
        let mut carrying = labels.iter().take(below);
        carrying.find_map(|label| {
            if label.len() > self.label {
                return Some(Limit::Label);
            }
            (label.len() >= self.long && entropy(label) > self.entropy).then_some(Limit::Entropy)
        })
    }
}

/// Shannon entropy of a text over its own bytes, in bits a byte; 0 for an empty one.
fn entropy(text: &str) -> f64 {
    let mut counts = BTreeMap::<u8, u32>::new();
    for byte in text.bytes() {
        *counts.entry(byte).or_default() += 1;
    }
    let total = f64::from(counts.values().sum::<u32>());
    counts.into_values().map(|count| f64::from(count) / total).map(|share| -share * share.log2()).sum()
}

/// How often something may happen: `count` times in `per`, and `burst` times at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rate {
    /// How many times, in the long run.
    pub count: u32,
    /// In what time.
    pub per: Duration,
    /// How many times at once, after a time without any; at least once.
    pub burst: u32,
}

impl Rate {
    /// The time that one takes.
    fn interval(self) -> Duration {
        self.per.checked_div(self.count).unwrap_or(Duration::MAX)
    }
}

/// How much a session may ask.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Rates {
    /// All queries.
    pub queries: Rate,
    /// Different names that only a `*.` rule allows.
    pub names: Rate,
    /// Queries under way at the same time.
    pub under_way: usize,
    /// TCP connections that are open at the same time.
    pub connections: usize,
}

impl Default for Rates {
    fn default() -> Self {
        Self {
            queries: Rate { count: 100, per: Duration::from_secs(1), burst: 400 },
            names: Rate { count: 60, per: Duration::from_secs(60), burst: 120 },
            under_way: 64,
            connections: 16,
        }
    }
}

/// What a query was too much for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Another character than letters, digits, `-` and `_`.
    Characters,
    /// [`NameLimits::length`].
    Length,
    /// [`NameLimits::labels`].
    Labels,
    /// [`NameLimits::label`].
    Label,
    /// [`NameLimits::entropy`].
    Entropy,
    /// [`Rates::names`].
    Names,
    /// [`Rates::queries`].
    Queries,
    /// [`Rates::under_way`].
    UnderWay,
    /// [`Rates::connections`], or those of all sessions.
    Connections,
}

impl Limit {
    /// Whether the same query may well be answered later.
    pub(super) fn passes(self) -> bool {
        matches!(self, Self::Names | Self::Queries | Self::UnderWay | Self::Connections)
    }

    /// What it limits.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Characters => "characters of a name",
            Self::Length => "length of a name",
            Self::Labels => "labels of a name",
            Self::Label => "length of a label",
            Self::Entropy => "entropy of a label",
            Self::Names => "different names in a time",
            Self::Queries => "queries in a time",
            Self::UnderWay => "queries at the same time",
            Self::Connections => "connections at the same time",
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A token bucket, kept as the time at which it will be full again.
#[derive(Clone, Copy, Default, Debug)]
pub(super) struct Bucket {
    full: Option<Instant>,
}

impl Bucket {
    /// Takes one token out, if there is one.
    pub(super) fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let interval = rate.interval();
        let empty = interval.saturating_mul(rate.burst.max(1));
        let full = self.full.map_or(now, |full| full.max(now));
        // A rate of none at all leaves no time to count to.
        let Some(after) = full.checked_add(interval) else { return false };
        if after.saturating_duration_since(now) > empty {
            return false;
        }
        self.full = Some(after);
        true
    }

    /// Whether it is as good as new.
    pub(super) fn is_full(&self, now: Instant) -> bool {
        self.full.is_none_or(|full| full <= now)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use sha2::{Digest as _, Sha256};

    use super::*;

    fn judged(name: &str, base: &str) -> Option<Limit> {
        assert!(name.ends_with(&format!(".{base}")), "{name} isn't below {base}");
        NameLimits::default().exceeded(name, base.split('.').count())
    }

    /// Characters that look random and are the same every time.
    fn noise(seed: usize, alphabet: &[u8], length: usize) -> String {
        let mut bytes = (0_u8..).flat_map(|block| Sha256::digest(format!("{seed}/{block}")));
        (0..length)
            .map(|_| char::from(alphabet[usize::from(bytes.next().unwrap()) % alphabet.len()]))
            .collect()
    }

    const BASE32: &[u8] = b"abcdefghijklmnopqrstuvwxyz234567";
    const BASE64: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789-_";
    const HEX: &[u8] = b"0123456789abcdef";

    #[test]
    fn what_networks_really_use_passes() {
        for (name, base) in [
            ("d111111abcdef8.cloudfront.net", "cloudfront.net"),
            ("objects-origin.s3.dualstack.eu-central-1.amazonaws.com", "amazonaws.com"),
            ("d41d8cd98f00b204e9800998ecf8427e.r2.cloudflarestorage.com", "cloudflarestorage.com"),
            ("da39a3ee5e6b4b0d3255bfef95601890afd80709.blobs.example.com", "example.com"),
            ("123456789012.dkr.ecr.eu-central-1.amazonaws.com", "amazonaws.com"),
            ("550e8400-e29b-41d4-a716-446655440000.api.example.com", "example.com"),
            ("r3---sn-4g5e6nze.googlevideo.com", "googlevideo.com"),
            ("prod-registry-k8s-io-eu-central-1.s3.dualstack.eu-central-1.amazonaws.com", "amazonaws.com"),
            ("my-project-git-feature-branch-name-with-words-acme-corp.vercel.app", "vercel.app"),
            ("01arz3ndektsv4rrffq69g5fav.example.com", "example.com"),
            ("account.privatelink.blob.core.windows.net", "windows.net"),
        ] {
            assert_eq!(judged(name, base), None, "{name}");
        }
        // Digests and numbers, whatever they are.
        for (seed, length) in (0..500).flat_map(|seed| [16, 32, 40, 56].map(|length| (seed, length))) {
            assert_eq!(judged(&format!("{}.example.com", noise(seed, HEX, length)), "example.com"), None);
        }
    }

    #[test]
    fn what_carries_data_does_not() {
        for seed in 0..500 {
            for (alphabet, length) in [(BASE32, 40), (BASE32, 63), (BASE64, 40), (BASE64, 63)] {
                let labels: Vec<_> = (0..3).map(|label| noise(seed * 3 + label, alphabet, length)).collect();
                assert!(judged(&format!("{}.t.example.com", labels.join(".")), "example.com").is_some());
            }
        }
        let refused = |alphabet, length| {
            let name = |seed| format!("{}.example.com", noise(seed, alphabet, length));
            (0..1000).filter(|seed| judged(&name(*seed), "example.com").is_some()).count()
        };
        for (alphabet, length, least) in
            [(BASE32, 40, 700), (BASE64, 40, 900), (BASE32, 50, 950), (BASE64, 50, 980), (BASE32, 56, 980)]
        {
            let refused = refused(alphabet, length);
            assert!(refused >= least, "{refused} of 1000 with {length} characters");
        }
        assert_eq!(refused(BASE32, 57), 1000);
    }

    #[test]
    fn each_limit() {
        let limits = NameLimits { length: 30, labels: 2, label: 10, long: 8, entropy: 2.5 };
        for (name, limit) in [
            ("a.b.example.com", None),
            ("a.b.c.example.com", Some(Limit::Labels)),
            ("aaaaaaaaaa.example.com", None),
            ("aaaaaaaaaaa.example.com", Some(Limit::Label)),
            ("aaaaaaaaaa.aaaaaa.example.com", None),
            ("aaaaaaaaaa.aaaaaaaa.example.com", Some(Limit::Length)),
            ("abcdefg.example.com", None),
            ("abcdefgh.example.com", Some(Limit::Entropy)),
            ("x.abcdefgh.example.com", Some(Limit::Entropy)),
            ("aaaabbbb.example.com", None),
        ] {
            assert_eq!(limits.exceeded(name, 2), limit, "{name}");
        }
        // What the rule itself says carries nothing.
        assert_eq!(limits.exceeded("a.abcdefgh.abcdefghijkl", 2), None);
    }

    fn rate(count: u32, seconds: u64, burst: u32) -> Rate {
        Rate { count, per: Duration::from_secs(seconds), burst }
    }

    #[test]
    fn a_bucket_empties_and_fills() {
        let (start, rate) = (Instant::now(), rate(60, 60, 3));
        let mut bucket = Bucket::default();
        assert!(bucket.is_full(start));
        assert!((0..3).all(|_| bucket.take(rate, start)));
        assert!(!bucket.take(rate, start));
        assert!(!bucket.take(rate, start + Duration::from_millis(999)));
        assert!(bucket.take(rate, start + Duration::from_secs(1)));
        assert!(!bucket.take(rate, start + Duration::from_secs(1)));
        assert!(!bucket.is_full(start + Duration::from_millis(3999)));
        assert!(bucket.is_full(start + Duration::from_secs(4)));
    }

    #[test]
    fn a_rate_of_none_lets_nothing_pass() {
        let now = Instant::now();
        assert!(!Bucket::default().take(rate(0, 1, 5), now));
        // A burst of none is one: else nothing would ever pass.
        assert!(Bucket::default().take(rate(1, 1, 0), now));
    }

    proptest! {
        #[test]
        fn never_more_than_burst_and_rate(
            count in 1_u32..50,
            burst in 1_u32..20,
            steps in proptest::collection::vec(0_u64..400, 1..200),
        ) {
            let (start, rate) = (Instant::now(), rate(count, 1, burst));
            let (mut bucket, mut now, mut taken) = (Bucket::default(), start, 0_u32);
            for step in steps {
                now += Duration::from_millis(step);
                taken += u32::from(bucket.take(rate, now));
                let most = f64::from(burst) + (now - start).as_secs_f64() * f64::from(count) + 1e-3;
                prop_assert!(f64::from(taken) <= most, "{taken} of {most}");
            }
        }

        #[test]
        fn who_keeps_to_the_rate_is_never_refused(count in 1_u32..50, steps in 1_usize..200) {
            let rate = rate(count, 1, 1);
            let (mut bucket, mut now) = (Bucket::default(), Instant::now());
            for _ in 0..steps {
                prop_assert!(bucket.take(rate, now));
                now += rate.interval();
            }
        }

        #[test]
        fn entropy_is_at_most_that_of_the_alphabet(text in "[0-9a-f]{1,63}") {
            let entropy = entropy(&text);
            prop_assert!((0.0..=4.0 + 1e-9).contains(&entropy), "{entropy}");
            let mut turned: Vec<char> = text.chars().collect();
            turned.reverse();
            let turned: String = turned.into_iter().collect();
            prop_assert!((super::entropy(&turned) - entropy).abs() < 1e-9);
        }

        #[test]
        fn a_longer_name_is_never_judged_more_mildly(name in "[a-z0-9-]{1,63}(\\.[a-z0-9-]{1,63}){0,6}") {
            let limits = NameLimits::default();
            if limits.exceeded(&name, 0).is_some() {
                let longer = format!("x.{name}");
                prop_assert!(limits.exceeded(&longer, 0).is_some());
            }
        }
    }
}
