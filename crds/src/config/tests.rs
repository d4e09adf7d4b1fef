use super::*;
use crate::duration::Duration;
use proptest::prelude::*;

fn shown(config: &TopicConfig, key: &str) -> (String, bool) {
    shown_with(config, key, 3)
}

fn shown_with(config: &TopicConfig, key: &str, replicas: i32) -> (String, bool) {
    let entry = config.entries(replicas).into_iter().find(|entry| entry.key == key).unwrap();
    (entry.value, entry.is_default)
}

#[test]
fn a_new_topic_shows_kafkas_defaults() {
    let entries = TopicConfig::default().entries(1);
    assert!(entries.is_sorted_by(|a, b| a.key < b.key));
    assert!(entries.iter().all(|entry| entry.is_default && !entry.documentation.is_empty()));
    for key in KEYS {
        assert_eq!(shown_with(&TopicConfig::default(), key.name, 1), (key.default.to_owned(), true), "{}", key.name);
    }
    assert_eq!(shown(&TopicConfig::default(), "min.insync.replicas"), ("2".to_owned(), true), "of three replicas");
    assert_eq!(shown(&TopicConfig::default(), "durability").0, "os");
    assert_eq!(shown(&TopicConfig::default(), "trashRetention").0, "1d");
}

#[test]
fn kafkas_key_and_the_field_set_the_same() {
    for (kafka, kafka_value, field, value, value_shown) in [
        ("retention.ms", "3600000", "retention", "1h", "3600000"),
        ("retention.ms", "-1", "retention", "forever", "-1"),
        ("retention.ms", "9223372036854775807", "retention", "forever", "-1"),
        ("retention.bytes", "10737418240", "retentionBytes", "10Gi", "10737418240"),
        ("max.message.bytes", "2097152", "maxMessageBytes", "2Mi", "2097152"),
        ("message.timestamp.type", "LogAppendTime", "timestampType", "LogAppendTime", "LogAppendTime"),
        ("min.insync.replicas", "2", "minInSyncReplicas", "2", "2"),
    ] {
        let (mut by_kafka, mut by_field) = (TopicConfig::default(), TopicConfig::default());
        by_kafka.set(kafka, kafka_value).unwrap();
        by_field.set(field, value).unwrap();
        assert_eq!(by_kafka, by_field, "{kafka}");
        assert_eq!(shown(&by_kafka, kafka), (value_shown.to_owned(), false), "{kafka}");
        by_kafka.unset(field).unwrap();
        by_field.unset(kafka).unwrap();
        assert_eq!(by_kafka, TopicConfig::default());
        assert_eq!(by_field, TopicConfig::default());
    }
}

#[test]
fn keys_without_meaning_are_checked_kept_and_shown() {
    let mut config = TopicConfig::default();
    config.set("segment.bytes", "1048576").unwrap();
    config.set("preallocate", "true").unwrap();
    assert_eq!(shown(&config, "segment.bytes"), ("1048576".to_owned(), false));
    assert!(matches!(config.set("segment.bytes", "12"), Err(ConfigFault::Value { .. })));
    assert_eq!(shown(&config, "segment.bytes").0, "1048576", "a refused value changes nothing");
    config.unset("segment.bytes").unwrap();
    assert_eq!(shown(&config, "segment.bytes"), ("1073741824".to_owned(), true));
}

#[test]
fn a_value_that_would_promise_what_does_not_happen_is_refused_with_the_reason() {
    let mut config = TopicConfig::default();
    for (key, value, reason) in [
        ("cleanup.policy", "compact", "compaction by key is not available"),
        ("compression.type", "zstd", "set the compression in the producer"),
        ("flush.messages", "1", "set durability to disk"),
        ("remote.storage.enable", "true", "no remote storage"),
        ("unclean.leader.election.enable", "true", "never becomes leader"),
        ("message.timestamp.after.max.ms", "1", "an hour ahead"),
    ] {
        let fault = config.set(key, value).unwrap_err();
        assert!(matches!(fault, ConfigFault::NotHere { .. }), "{fault}");
        assert!(fault.to_string().contains(reason), "{fault}");
    }
    assert_eq!(config, TopicConfig::default());
    config.set("cleanup.policy", "delete").unwrap();
    assert_eq!(shown(&config, "cleanup.policy"), ("delete".to_owned(), false));
}

#[test]
fn values_out_of_bounds_are_refused_by_either_name() {
    let mut config = TopicConfig::default();
    for (key, value) in [
        ("retention", "7"),
        ("retention.ms", "-2"),
        ("retention.ms", "7d"),
        ("retentionBytes", "0"),
        ("maxMessageBytes", "1023"),
        ("maxMessageBytes", "33Mi"),
        ("max.message.bytes", "7340033"),
        ("max.message.bytes", "1Mi"),
        ("durability", "DISK"),
        ("timestampType", "createTime"),
        ("trashRetention", "forever"),
        ("minInSyncReplicas", "0"),
        ("min.insync.replicas", "8"),
    ] {
        let fault = config.set(key, value).unwrap_err();
        assert!(matches!(fault, ConfigFault::Value { .. }), "{key}={value}: {fault}");
    }
    assert_eq!(config, TopicConfig::default());
}

#[test]
fn an_unknown_key_names_the_one_that_was_meant() {
    let mut config = TopicConfig::default();
    assert!(config.set("Retention_MS", "1").unwrap_err().to_string().contains("did you mean retention.ms?"));
    assert!(config.unset("segment_bytes").unwrap_err().to_string().contains("did you mean segment.bytes?"));
    let long = "x".repeat(1 << 20);
    assert!(config.set(&long, "1").unwrap_err().to_string().len() < 200, "messages stay short");
    assert!(config.set("segment.bytes", &long).unwrap_err().to_string().len() < 400, "messages stay short");
}

#[test]
fn kept_keys_do_not_stand_in_for_fields() {
    let fault = check_kept("retention.ms", "1").unwrap_err();
    assert_eq!(fault, ConfigFault::HasField { key: "retention.ms".to_owned(), field: "retention" });
    assert!(matches!(check_kept("retention", "1d"), Err(ConfigFault::Unknown { .. })));
    assert_eq!(check_kept("segment.ms", "1"), Ok(()));
}

proptest! {
    #[test]
    fn what_is_shown_can_be_set_and_shows_the_same(
        retention in prop::option::of(0..u64::MAX), bytes in prop::option::of(1..u64::MAX),
        most in prop::option::of(1024..=7_340_032u64), trash in prop::option::of(0..u64::MAX),
    ) {
        let config = TopicConfig {
            retention: retention.map(Retention::from_millis),
            retention_bytes: bytes.map(Size::from_bytes),
            max_message_bytes: most.map(Size::from_bytes),
            trash_retention: trash.map(Duration::from_millis),
            ..TopicConfig::default()
        };
        let mut copy = TopicConfig::default();
        for entry in config.entries(3).into_iter().filter(|entry| !entry.is_default) {
            copy.set(&entry.key, &entry.value).unwrap();
        }
        prop_assert_eq!(copy, config);
    }

    #[test]
    fn any_key_and_value_is_set_or_refused_and_never_a_panic(
        key in prop::sample::select(KEYS.iter().map(|key| key.name).chain(Field::ALL.map(Field::name)).collect::<Vec<_>>()),
        value in "-?[0-9]{0,20}[dhmsGMKi]{0,2}|\\PC{0,8}|true|delete|compact",
    ) {
        let mut config = TopicConfig::default();
        if config.set(key, &value).is_err() {
            prop_assert_eq!(config, TopicConfig::default());
        }
    }
}
