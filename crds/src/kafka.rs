//! Kafka's topic configuration, key by key, and what each is here.
//!
//! One table, [`KEYS`], holds every key of Kafka 4's topic configuration with its type, default, bounds and meaning:
//! a field of [`TopicConfig`](crate::TopicConfig) (the same, as people write it), nothing (it is checked, kept and shown), or a
//! promise that only one value keeps (any other is refused with the reason). So a topic's configuration can be moved from
//! Kafka and shown to a Kafka client, and nobody is told that something happens which does not.

/// Most bytes of a value that is only kept.
pub const MAX_VALUE_BYTES: usize = 4096;

/// A key of Kafka's topic configuration.
#[derive(Debug, PartialEq)]
pub struct Key {
    /// Kafka's name.
    pub name: &'static str,
    /// What values it takes.
    pub kind: Kind,
    /// Kafka's default, which is also the value in force here when nothing is set.
    pub default: &'static str,
    /// What it is here.
    pub meaning: Meaning,
    /// What it does, in Kafka or here.
    pub documentation: &'static str,
}

/// What values a key takes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// A whole number from the first to the second, both allowed.
    Integer(i64, i64),
    /// A number from the first to the second, both allowed.
    Double(f64, f64),
    /// `true` or `false`.
    Boolean,
    /// One of these words.
    Word(&'static [&'static str]),
    /// Any text up to [`MAX_VALUE_BYTES`].
    Text,
}

/// What a key is here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// The field of that name.
    Field(Field),
    /// Nothing: it is kept and shown.
    Kept,
    /// Only the default is true here; any other value is refused, for this reason.
    Only(&'static str),
}

/// A field of the configuration that people write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Field {
    /// `retention`
    Retention,
    /// `retentionBytes`
    RetentionBytes,
    /// `maxMessageBytes`
    MaxMessageBytes,
    /// `durability`
    Durability,
    /// `timestampType`
    TimestampType,
    /// `trashRetention`
    TrashRetention,
    /// `minInSyncReplicas`
    MinInSyncReplicas,
}

impl Field {
    /// All fields.
    pub const ALL: [Self; 7] = [
        Self::Retention,
        Self::RetentionBytes,
        Self::MaxMessageBytes,
        Self::Durability,
        Self::TimestampType,
        Self::TrashRetention,
        Self::MinInSyncReplicas,
    ];

    /// Name of the field in a manifest.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Retention => "retention",
            Self::RetentionBytes => "retentionBytes",
            Self::MaxMessageBytes => "maxMessageBytes",
            Self::Durability => "durability",
            Self::TimestampType => "timestampType",
            Self::TrashRetention => "trashRetention",
            Self::MinInSyncReplicas => "minInSyncReplicas",
        }
    }

    /// What Kafka has no word for is shown under its own name, with this documentation.
    pub const fn documentation(self) -> Option<&'static str> {
        match self {
            Self::Durability => Some(
                "What an acknowledged record has been written to: os (survives a crash of the broker) or disk (survives a \
                 power loss).",
            ),
            Self::TrashRetention => {
                Some("How long a deleted topic can be brought back with its records and offsets, such as 24h or 7d.")
            }
            _ => None,
        }
    }
}

impl Kind {
    /// Whether a text is such a value.
    pub fn accepts(self, value: &str) -> bool {
        match self {
            Self::Integer(least, most) => value.parse().is_ok_and(|number: i64| (least..=most).contains(&number)),
            Self::Double(least, most) => value.parse().is_ok_and(|number: f64| (least..=most).contains(&number)),
            Self::Boolean => value == "true" || value == "false",
            Self::Word(words) => words.contains(&value),
            Self::Text => value.len() <= MAX_VALUE_BYTES,
        }
    }

    /// Whether two values that are accepted mean the same.
    fn same(self, a: &str, b: &str) -> bool {
        match self {
            Self::Integer(..) => a.parse::<i64>() == b.parse::<i64>(),
            _ => a == b,
        }
    }
}

impl std::fmt::Display for Kind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(i64::MIN, i64::MAX) => f.write_str("a whole number"),
            Self::Integer(least, i64::MAX) => write!(f, "a whole number from {least}"),
            Self::Integer(least, most) => write!(f, "a whole number from {least} to {most}"),
            Self::Double(least, most) => write!(f, "a number from {least} to {most}"),
            Self::Boolean => f.write_str("true or false"),
            Self::Word(words) => write!(f, "one of {}", words.join(", ")),
            Self::Text => write!(f, "a text of at most {MAX_VALUE_BYTES} bytes"),
        }
    }
}

impl Key {
    /// The key of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        KEYS.iter().find(|key| key.name == name)
    }

    /// Whether the value says what is so anyway.
    pub fn is_default_value(&self, value: &str) -> bool {
        self.kind.same(value, self.default)
    }
}

/// The CEL rule that a map of kept keys holds keys of [`KEYS`] only, without those that have a field.
pub fn known_keys_rule() -> String {
    let names: Vec<String> = KEYS
        .iter()
        .filter(|key| !matches!(key.meaning, Meaning::Field(_)))
        .map(|key| format!("'{}'", key.name))
        .collect();
    format!("self.all(key, key in [{}])", names.join(", "))
}

fn only_defaults() -> impl Iterator<Item = &'static Key> {
    KEYS.iter().filter(|key| matches!(key.meaning, Meaning::Only(_)))
}

/// The CEL rule that a map of kept keys promises nothing that does not happen.
pub fn only_defaults_rule() -> String {
    let terms = only_defaults()
        .map(|Key { name, default, .. }| format!("(!('{name}' in self) || self['{name}'] == '{default}')"));
    terms.collect::<Vec<_>>().join(" && ")
}

/// What [`only_defaults_rule`] says to a person.
pub fn only_defaults_message() -> String {
    let values = only_defaults().map(|Key { name, default, .. }| format!("{name} {default}"));
    format!("these keys have one possible value here: {}", values.collect::<Vec<_>>().join(", "))
}

const INT: i64 = i32::MAX as i64;
const LONG: i64 = i64::MAX;
const LONG_MAX: &str = "9223372036854775807";
const NO_COMPACTION: &str = "compaction by key is not available";
const NO_TIERS: &str = "there is no remote storage";
const USE_DURABILITY: &str = "set durability to disk: then each acknowledged record is on the disk";

const fn field(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    field: Field,
    documentation: &'static str,
) -> Key {
    Key { name, kind, default, meaning: Meaning::Field(field), documentation }
}

const fn kept(name: &'static str, kind: Kind, default: &'static str, documentation: &'static str) -> Key {
    Key { name, kind, default, meaning: Meaning::Kept, documentation }
}

const fn only(
    name: &'static str,
    kind: Kind,
    default: &'static str,
    reason: &'static str,
    documentation: &'static str,
) -> Key {
    Key { name, kind, default, meaning: Meaning::Only(reason), documentation }
}

/// Every key of the topic configuration of Kafka 4, by name. Types, defaults and bounds are those of its
/// `LogConfig`, except that max.message.bytes and min.insync.replicas have the bounds that hold here.
#[rustfmt::skip]
pub const KEYS: &[Key] = &[
    only("cleanup.policy", Kind::Word(&["delete", "compact", "compact,delete", "delete,compact"]), "delete", NO_COMPACTION,
        "What becomes of old records: delete removes them when their time or size is over."),
    kept("compression.gzip.level", Kind::Integer(-1, 9), "-1",
        "No meaning here: batches are stored as producers compress them."),
    kept("compression.lz4.level", Kind::Integer(1, 17), "9",
        "No meaning here: batches are stored as producers compress them."),
    only("compression.type", Kind::Word(&["producer", "uncompressed", "gzip", "snappy", "lz4", "zstd"]), "producer",
        "batches are stored as producers compress them: set the compression in the producer",
        "Compression of stored batches: producer keeps what the producer chose."),
    kept("compression.zstd.level", Kind::Integer(-131_072, 22), "3",
        "No meaning here: batches are stored as producers compress them."),
    kept("delete.retention.ms", Kind::Integer(0, LONG), "86400000",
        "No meaning here: how long deletion marks stay in compacted topics, in milliseconds."),
    kept("file.delete.delay.ms", Kind::Integer(0, LONG), "60000",
        "No meaning here: how long a file waits before it is deleted, in milliseconds."),
    only("flush.messages", Kind::Integer(1, LONG), LONG_MAX, USE_DURABILITY,
        "Number of records after which the log is forced to the disk. Here the field durability says this."),
    only("flush.ms", Kind::Integer(0, LONG), LONG_MAX, USE_DURABILITY,
        "Milliseconds after which the log is forced to the disk. Here the field durability says this."),
    kept("follower.replication.throttled.replicas", Kind::Text, "",
        "No meaning here: replicas whose replication is throttled on the follower's side."),
    kept("index.interval.bytes", Kind::Integer(0, INT), "4096",
        "No meaning here: bytes between two entries of a segment's index."),
    kept("leader.replication.throttled.replicas", Kind::Text, "",
        "No meaning here: replicas whose replication is throttled on the leader's side."),
    kept("local.retention.bytes", Kind::Integer(-2, LONG), "-2",
        "No meaning here: bytes to keep before remote storage takes over; -2: retention.bytes."),
    kept("local.retention.ms", Kind::Integer(-2, LONG), "-2",
        "No meaning here: milliseconds to keep before remote storage takes over; -2: retention.ms."),
    kept("max.compaction.lag.ms", Kind::Integer(1, LONG), LONG_MAX,
        "No meaning here: longest time before a record is compacted, in milliseconds."),
    field("max.message.bytes", Kind::Integer(1024, 7_340_032), "1048588", Field::MaxMessageBytes,
        "Largest record batch that is accepted, after compression, in bytes, from 1024 to 7340032."),
    only("message.timestamp.after.max.ms", Kind::Integer(0, LONG), "3600000",
        "records more than an hour ahead of the broker's clock are always refused",
        "How far a record's timestamp may lie after the broker's clock, in milliseconds."),
    only("message.timestamp.before.max.ms", Kind::Integer(0, LONG), LONG_MAX,
        "records of any age are accepted",
        "How far a record's timestamp may lie before the broker's clock, in milliseconds."),
    field("message.timestamp.type", Kind::Word(&["CreateTime", "LogAppendTime"]), "CreateTime", Field::TimestampType,
        "Which time records carry: CreateTime, the producer's, or LogAppendTime, the broker's."),
    kept("min.cleanable.dirty.ratio", Kind::Double(0.0, 1.0), "0.5",
        "No meaning here: part of a compacted log that may be uncompacted."),
    kept("min.compaction.lag.ms", Kind::Integer(0, LONG), "0",
        "No meaning here: shortest time before a record is compacted, in milliseconds."),
    field("min.insync.replicas", Kind::Integer(1, 7), "1", Field::MinInSyncReplicas,
        "How many replicas must have a record before a write with acks=all succeeds, from 1 to 7. Not set: 2 with 3 replicas or more, otherwise 1."),
    kept("preallocate", Kind::Boolean, "false",
        "No meaning here: whether a segment's file is allocated as a whole when it is made."),
    kept("remote.copy.lag.bytes", Kind::Integer(-1, LONG), "0",
        "No meaning here: bytes by which remote storage may lag."),
    kept("remote.copy.lag.ms", Kind::Integer(-1, LONG), "0",
        "No meaning here: milliseconds by which remote storage may lag."),
    kept("remote.log.copy.disable", Kind::Boolean, "false",
        "No meaning here: whether copying to remote storage is stopped."),
    kept("remote.log.delete.on.disable", Kind::Boolean, "false",
        "No meaning here: whether remote data goes when remote storage is switched off."),
    only("remote.storage.enable", Kind::Boolean, "false", NO_TIERS,
        "Whether old records move to remote storage."),
    field("retention.bytes", Kind::Integer(i64::MIN, LONG), "-1", Field::RetentionBytes,
        "How many bytes each partition keeps; the oldest records go first. Below 0: no limit."),
    field("retention.ms", Kind::Integer(-1, LONG), "604800000", Field::Retention,
        "How long records are kept at least, in milliseconds, by the time the broker appended them. -1: for ever."),
    kept("segment.bytes", Kind::Integer(1 << 20, INT), "1073741824",
        "No meaning here: bytes of a segment's file."),
    kept("segment.index.bytes", Kind::Integer(4, INT), "10485760",
        "No meaning here: bytes of a segment's index."),
    kept("segment.jitter.ms", Kind::Integer(0, LONG), "0",
        "No meaning here: random part of segment.ms, in milliseconds."),
    kept("segment.ms", Kind::Integer(1, LONG), "604800000",
        "No meaning here: milliseconds after which a segment is closed."),
    only("unclean.leader.election.enable", Kind::Boolean, "false",
        "a replica that may lack acknowledged records never becomes leader by itself",
        "Whether a replica outside the in-sync set may become leader when none of the set is there."),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_sorted_and_their_defaults_are_values_of_their_kind() {
        assert!(KEYS.is_sorted_by(|a, b| a.name < b.name), "sorted, each once");
        for key in KEYS {
            assert!(key.kind.accepts(key.default), "{}", key.name);
            assert!(!key.documentation.is_empty());
            assert_eq!(
                key.documentation.starts_with("No meaning here"),
                key.meaning == Meaning::Kept,
                "{}: the documentation says so exactly when nothing happens",
                key.name
            );
        }
    }

    #[test]
    fn every_field_is_kafkas_or_documents_itself() {
        for field in Field::ALL {
            let kafka = KEYS.iter().filter(|key| key.meaning == Meaning::Field(field)).count();
            assert_eq!(kafka + usize::from(field.documentation().is_some()), 1, "{}", field.name());
        }
    }

    #[test]
    fn kinds_accept_their_values_only() {
        for (kind, good, bad) in [
            (
                Kind::Integer(-1, 9),
                vec!["-1", "0", "9", "007"],
                vec!["-2", "10", "", "1.0", "x", "99999999999999999999"],
            ),
            (Kind::Double(0.0, 1.0), vec!["0", "0.5", "1"], vec!["1.01", "-0.1", "NaN", "inf", ""]),
            (Kind::Boolean, vec!["true", "false"], vec!["yes", "1", "True", ""]),
            (Kind::Word(&["a", "b"]), vec!["a", "b"], vec!["c", "A", ""]),
        ] {
            for value in good {
                assert!(kind.accepts(value), "{kind}: {value}");
            }
            for value in bad {
                assert!(!kind.accepts(value), "{kind}: {value}");
            }
        }
        assert!(!Kind::Text.accepts(&"x".repeat(MAX_VALUE_BYTES + 1)));
    }
}
