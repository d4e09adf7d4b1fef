//! Names of topics, which are Kafka's, and of the objects that stand for them, which are Kubernetes'.

/// Longest name of a topic, in bytes: Kafka's bound, set by the file names it makes of them.
pub const MAX_TOPIC_NAME: usize = 249;

/// Longest name of an object, in bytes (RFC 1123 subdomain).
pub const MAX_OBJECT_NAME: usize = 253;

/// Longest slug before its hash.
const MAX_SLUG: usize = 200;

/// Why a text is no name of a topic.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TopicNameFault {
    /// No characters at all.
    #[error("the topic name is empty: give it 1 to 249 characters")]
    Empty,
    /// Longer than [`MAX_TOPIC_NAME`].
    #[error("the topic name has {0} bytes: at most 249 are allowed")]
    TooLong(usize),
    /// A character that is not allowed.
    #[error("the topic name has the character {0:?}: only letters a-z, A-Z, digits, '.', '_' and '-' are allowed")]
    Character(char),
    /// `.` or `..`.
    #[error("the topic name cannot be '.' or '..'")]
    Dots,
    /// Begins with two underscores.
    #[error("topic names that begin with '__' are for internal topics: choose another name")]
    Reserved,
}

/// Checks a topic name as users may give it: `[a-zA-Z0-9._-]{1,249}`, not `.` nor `..`, not beginning with `__`.
pub fn check_topic_name(name: &str) -> Result<(), TopicNameFault> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if name.is_empty() {
        Err(TopicNameFault::Empty)
    } else if name.len() > MAX_TOPIC_NAME {
        Err(TopicNameFault::TooLong(name.len()))
    } else if let Some(c) = name.chars().find(|c| !allowed(*c)) {
        Err(TopicNameFault::Character(c))
    } else if name == "." || name == ".." {
        Err(TopicNameFault::Dots)
    } else if name.starts_with("__") {
        Err(TopicNameFault::Reserved)
    } else {
        Ok(())
    }
}

/// Whether a text can be the name of an object (RFC 1123 subdomain).
pub fn is_object_name(name: &str) -> bool {
    let label = |label: &str| {
        !label.is_empty()
            && label.bytes().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'))
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    name.len() <= MAX_OBJECT_NAME && name.split('.').all(label)
}

/// Whether a text can be the name of a namespace or a label of DNS (RFC 1123 label, at most 63 characters).
pub fn is_namespace_name(name: &str) -> bool {
    name.len() <= 63 && !name.contains('.') && is_object_name(name)
}

/// Name for the object of a topic: the topic's own where it can be one, otherwise a slug with ten digits of a hash.
///
/// The same topic name always gives the same object name.
pub fn object_name(topic_name: &str) -> String {
    if is_object_name(topic_name) {
        return topic_name.to_owned();
    }
    let slug: String = topic_name
        .chars()
        .take(MAX_SLUG)
        .map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' })
        .collect();
    let slug = slug.trim_matches('-');
    let hash = fnv1a(topic_name) & 0xff_ffff_ffff;
    if slug.is_empty() { format!("topic-{hash:010x}") } else { format!("{slug}-{hash:010x}") }
}

/// FNV-1a, 64 bits: small, and the same on every machine and in every version.
fn fnv1a(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn topic_names_are_kafkas_without_the_internal_ones() {
        let longest = "a".repeat(249);
        for name in ["orders", "Orders_v2.eu-1", "_x", "...", "-", "9", longest.as_str()] {
            assert_eq!(check_topic_name(name), Ok(()), "{name}");
        }
        let too_long = "a".repeat(250);
        for (name, fault) in [
            ("", TopicNameFault::Empty),
            (too_long.as_str(), TopicNameFault::TooLong(250)),
            ("a/b", TopicNameFault::Character('/')),
            ("größe", TopicNameFault::Character('ö')),
            ("a\0", TopicNameFault::Character('\0')),
            (".", TopicNameFault::Dots),
            ("..", TopicNameFault::Dots),
            ("__consumer_offsets", TopicNameFault::Reserved),
        ] {
            assert_eq!(check_topic_name(name), Err(fault), "{name}");
        }
    }

    #[test]
    fn object_names_of_topics_that_are_none_differ() {
        assert_eq!(object_name("orders.eu"), "orders.eu");
        assert_eq!(object_name("Orders"), format!("orders-{:010x}", fnv1a("Orders") & 0xff_ffff_ffff));
        assert_ne!(object_name("Orders"), object_name("ORDERS"));
        assert_eq!(fnv1a("a"), 0xaf63_dc4c_8601_ec8c, "the published test vector");
    }

    proptest! {
        #[test]
        fn every_topic_name_has_an_object_name(name in "[a-zA-Z0-9._-]{1,249}") {
            let object = object_name(&name);
            prop_assert!(is_object_name(&object), "{object}");
        }
    }
}
