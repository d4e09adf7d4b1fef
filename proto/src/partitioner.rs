//! Which partition a key belongs to: the same answer as Kafka's Java client gives, in every client and in the broker.
//!
//! Records without a key have no answer here: whoever writes them chooses ("sticky": a random partition, kept for a while).

/// `org.apache.kafka.common.utils.Utils.murmur2`: MurmurHash2, 32 bits, little endian, seed 0x9747b28c.
#[must_use]
pub fn murmur2(data: &[u8]) -> i32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> 24;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (i, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * i);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^= hash >> 15;
    hash as i32
}

/// The partition of a key in a topic of `partitions` partitions: `toPositive(murmur2(key)) % partitions`, where
/// `toPositive` clears the sign bit.
///
/// # Panics
/// When `partitions` is not positive: a topic has at least one.
#[must_use]
pub fn partition_for_key(key: &[u8], partitions: i32) -> i32 {
    assert!(partitions > 0, "a topic has at least one partition, not {partitions}");
    (murmur2(key) & i32::MAX) % partitions
}

#[cfg(test)]
mod tests {
    use super::*;

    /// From `UtilsTest.testMurmur2`.
    #[test]
    fn murmur2_gives_the_values_of_kafkas_own_test() {
        let vectors: [(&str, i32); 6] = [
            ("21", -973_932_308),
            ("foobar", -790_332_482),
            ("a-little-bit-long-string", -985_981_536),
            ("a-little-bit-longer-string", -1_486_304_829),
            ("lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58_897_971),
            ("abc", 479_470_107),
        ];
        for (key, hash) in vectors {
            assert_eq!(murmur2(key.as_bytes()), hash, "{key}");
        }
    }

    #[test]
    fn a_partition_is_never_negative_nor_out_of_range() {
        for n in [1, 2, 3, 7, 64, 10_000, i32::MAX] {
            for i in 0..1_000_u32 {
                let partition = partition_for_key(&i.to_be_bytes(), n);
                assert!((0..n).contains(&partition));
            }
        }
        assert_eq!(partition_for_key(b"abc", 10), 479_470_107 % 10);
        assert_eq!(partition_for_key(b"21", 10), 1_173_551_340 % 10);
    }
}
