//! A keyed digest of what a hold was asked for, so that an answer covers that and nothing else.
//!
//! `SipHash` 2-4 over 64-bit words (Aumasson and Bernstein, 2012). The key is secret: a session that
//! could find two requests with one digest could have the one answered and do the other.

/// The running state.
#[derive(Clone, Copy, Debug)]
pub struct Digest {
    v: [u64; 4],
    words: u64,
}

impl Digest {
    /// Starts with a key.
    #[inline(always)]
    #[must_use]
    pub const fn new(key: [u64; 2]) -> Self {
        Self {
            v: [
                key[0] ^ 0x736f_6d65_7073_6575,
                key[1] ^ 0x646f_7261_6e64_6f6d,
                key[0] ^ 0x6c79_6765_6e65_7261,
                key[1] ^ 0x7465_6462_7974_6573,
            ],
            words: 0,
        }
    }

    /// Takes one word in.
    #[inline(always)]
    #[must_use]
    pub const fn word(mut self, word: u64) -> Self {
        self.v[3] ^= word;
        self = self.round().round();
        self.v[0] ^= word;
        self.words = self.words.wrapping_add(1);
        self
    }

    /// The digest. Never 0, which stands for none.
    #[inline(always)]
    #[must_use]
    pub const fn finish(self) -> u64 {
        let length = (self.words.wrapping_mul(8)) << 56;
        let mut end = self.word(length);
        end.v[2] ^= 0xff;
        let v = end.round().round().round().round().v;
        let digest = v[0] ^ v[1] ^ v[2] ^ v[3];
        if digest == 0 { 1 } else { digest }
    }

    #[inline(always)]
    const fn round(self) -> Self {
        let [mut a, mut b, mut c, mut d] = self.v;
        a = a.wrapping_add(b);
        c = c.wrapping_add(d);
        b = b.rotate_left(13) ^ a;
        d = d.rotate_left(16) ^ c;
        a = a.rotate_left(32);
        c = c.wrapping_add(b);
        a = a.wrapping_add(d);
        b = b.rotate_left(17) ^ c;
        d = d.rotate_left(21) ^ a;
        c = c.rotate_left(32);
        Self { v: [a, b, c, d], words: self.words }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The vectors that the authors of `SipHash` published for key 00..0f and messages 00, 01, ... of
    /// 0, 8 and 16 bytes.
    #[test]
    fn published_vectors() {
        let key = [0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908];
        assert_eq!(Digest::new(key).finish(), 0x726f_db47_dd0e_0e31);
        let one = Digest::new(key).word(0x0706_0504_0302_0100);
        assert_eq!(one.finish(), 0x93f5_f579_9a93_2462);
        let two = one.word(0x0f0e_0d0c_0b0a_0908);
        assert_eq!(two.finish(), 0x3f2a_cc7f_57c2_9bdb);
    }

    #[test]
    fn order_and_key_matter() {
        let a = Digest::new([1, 2]).word(3).word(4).finish();
        assert_ne!(a, Digest::new([1, 2]).word(4).word(3).finish());
        assert_ne!(a, Digest::new([1, 3]).word(3).word(4).finish());
        assert_ne!(a, Digest::new([1, 2]).word(3).finish());
    }
}
