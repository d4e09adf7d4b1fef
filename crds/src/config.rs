//! A topic's configuration by key, as the API and the command line set and show it.
//!
//! A key is a field as manifests write it (`retention`, value `7d`) or Kafka's (`retention.ms`, value `604800000`). What
//! is set by either name is the same. What is shown goes by Kafka's name and value where Kafka has one.

use crate::TopicConfig;
use crate::duration::Retention;
use crate::kafka::{Field, KEYS, Key, Meaning};
use crate::size::Size;
use crate::topic::{Durability, TimestampType};

/// One key of a topic's configuration, as shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigEntry {
    /// Kafka's name, or the field's where Kafka has none.
    pub key: String,
    /// The value in force.
    pub value: String,
    /// Nothing is set: the value is the default.
    pub is_default: bool,
    /// What it does, its unit and bounds.
    pub documentation: &'static str,
}

/// Why a key or its value is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigFault {
    /// No such key.
    #[error("unknown configuration key {key:?}{}", nearest(key))]
    Unknown {
        /// The key.
        key: String,
    },
    /// Not a value of the key.
    #[error("{key}={value:?} is not possible: give {expected}")]
    Value {
        /// The key.
        key: String,
        /// What was given, shortened.
        value: String,
        /// What it may be.
        expected: String,
    },
    /// A value that Kafka knows and that would promise here what does not happen.
    #[error("{key}={value:?} is not possible here: {reason}")]
    NotHere {
        /// The key.
        key: String,
        /// What was given, shortened.
        value: String,
        /// Why, and what to do.
        reason: &'static str,
    },
    /// A key that has a field of its own, among those that are only kept.
    #[error("{key} has a field of its own: write {field} in place of it")]
    HasField {
        /// The key.
        key: String,
        /// Name of the field.
        field: &'static str,
    },
}

impl ConfigFault {
    fn value(key: &str, value: &str, expected: &impl ToString) -> Self {
        Self::Value { key: shorten(key), value: shorten(value), expected: expected.to_string() }
    }
}

/// Checks one entry of the map of kept keys.
pub fn check_kept(name: &str, value: &str) -> Result<(), ConfigFault> {
    let key = Key::find(name).ok_or_else(|| ConfigFault::Unknown { key: shorten(name) })?;
    if let Meaning::Field(field) = key.meaning {
        return Err(ConfigFault::HasField { key: name.to_owned(), field: field.name() });
    }
    check_value(key, value)
}

fn check_value(key: &Key, value: &str) -> Result<(), ConfigFault> {
    if !key.kind.accepts(value) {
        return Err(ConfigFault::value(key.name, value, &key.kind));
    }
    match key.meaning {
        Meaning::Only(reason) if !key.is_default_value(value) => {
            Err(ConfigFault::NotHere { key: key.name.to_owned(), value: shorten(value), reason })
        }
        _ => Ok(()),
    }
}

impl TopicConfig {
    /// Sets one key, Kafka's or a field's. Nothing changes when it is refused.
    pub fn set(&mut self, key: &str, value: &str) -> Result<(), ConfigFault> {
        if let Some(field) = Field::ALL.into_iter().find(|field| field.name() == key) {
            return self.set_field(field, value);
        }
        let key = Key::find(key).ok_or_else(|| ConfigFault::Unknown { key: shorten(key) })?;
        check_value(key, value)?;
        match key.meaning {
            Meaning::Field(field) => self.set_kafka_field(field, value),
            Meaning::Kept | Meaning::Only(_) => {
                self.kafka.insert(key.name.to_owned(), value.to_owned());
            }
        }
        Ok(())
    }

    /// Puts one key, Kafka's or a field's, back to its default.
    pub fn unset(&mut self, key: &str) -> Result<(), ConfigFault> {
        if let Some(field) = Field::ALL.into_iter().find(|field| field.name() == key) {
            self.unset_field(field);
            return Ok(());
        }
        let key = Key::find(key).ok_or_else(|| ConfigFault::Unknown { key: shorten(key) })?;
        match key.meaning {
            Meaning::Field(field) => self.unset_field(field),
            Meaning::Kept | Meaning::Only(_) => {
                self.kafka.remove(key.name);
            }
        }
        Ok(())
    }

    /// All keys with the values in force for a topic with so many replicas, by name.
    pub fn entries(&self, replication_factor: i32) -> Vec<ConfigEntry> {
        let fields = Field::ALL.into_iter().filter_map(|field| {
            let documentation = field.documentation()?;
            let (value, is_default) = self.field_entry(field, replication_factor);
            Some(ConfigEntry { key: field.name().to_owned(), value, is_default, documentation })
        });
        let mut entries: Vec<_> =
            KEYS.iter().map(|key| self.kafka_entry(key, replication_factor)).chain(fields).collect();
        entries.sort_by(|a, b| a.key.cmp(&b.key));
        entries
    }

    fn kafka_entry(&self, key: &Key, replication_factor: i32) -> ConfigEntry {
        let (value, is_default) = match key.meaning {
            Meaning::Field(field) => self.field_entry(field, replication_factor),
            Meaning::Kept | Meaning::Only(_) => match self.kafka.get(key.name) {
                Some(value) => (value.clone(), false),
                None => (key.default.to_owned(), true),
            },
        };
        ConfigEntry { key: key.name.to_owned(), value, is_default, documentation: key.documentation }
    }

    /// The value in force, in Kafka's form where Kafka has the key, and whether it is the default.
    fn field_entry(&self, field: Field, replication_factor: i32) -> (String, bool) {
        match field {
            Field::Retention => {
                let ms = self.retention().as_millis().map_or_else(|| "-1".to_owned(), |ms| ms.to_string());
                (ms, self.retention.is_none())
            }
            Field::RetentionBytes => {
                let bytes = self.retention_bytes().map_or_else(|| "-1".to_owned(), |bytes| bytes.to_string());
                (bytes, self.retention_bytes.is_none())
            }
            Field::MaxMessageBytes => (self.max_message_bytes().to_string(), self.max_message_bytes.is_none()),
            Field::Durability => (self.durability().as_str().to_owned(), self.durability.is_none()),
            Field::TimestampType => (self.timestamp_type().as_str().to_owned(), self.timestamp_type.is_none()),
            Field::TrashRetention => (self.trash_retention().to_string(), self.trash_retention.is_none()),
            Field::MinInSyncReplicas => {
                let value = self.min_in_sync_replicas(replication_factor);
                (value.to_string(), self.min_in_sync_replicas.is_none())
            }
        }
    }

    /// Sets a field from the text that a manifest would hold.
    fn set_field(&mut self, field: Field, value: &str) -> Result<(), ConfigFault> {
        let fault = |expected: &str| ConfigFault::value(field.name(), value, &expected);
        match field {
            Field::Retention => {
                self.retention = Some(value.parse().map_err(|_| fault("a duration such as 7d or 1h30m, or forever"))?);
            }
            Field::RetentionBytes => {
                let size = value.parse().ok().filter(|size: &Size| size.as_bytes() > 0);
                self.retention_bytes = Some(size.ok_or_else(|| fault("a size from 1, such as 10Gi or 500M"))?);
            }
            Field::MaxMessageBytes => {
                let size = value.parse().ok().filter(|size: &Size| is_max_message_bytes(*size));
                self.max_message_bytes = Some(size.ok_or_else(|| fault("a size from 1Ki to 7Mi, such as 2Mi"))?);
            }
            Field::Durability => {
                self.durability = Some(Durability::from_word(value).ok_or_else(|| fault("os or disk"))?);
            }
            Field::TimestampType => {
                let word = TimestampType::from_word(value);
                self.timestamp_type = Some(word.ok_or_else(|| fault("CreateTime or LogAppendTime"))?);
            }
            Field::TrashRetention => {
                self.trash_retention = Some(value.parse().map_err(|_| fault("a duration such as 24h or 7d"))?);
            }
            Field::MinInSyncReplicas => {
                let number =
                    value.parse().ok().filter(|number| (1..=crate::topic::MAX_REPLICATION_FACTOR).contains(number));
                self.min_in_sync_replicas = Some(number.ok_or_else(|| fault("a whole number from 1 to 7"))?);
            }
        }
        Ok(())
    }

    /// Sets a field from the value of Kafka's key, which has been checked against the key's kind.
    fn set_kafka_field(&mut self, field: Field, value: &str) {
        let number = || value.parse::<i64>().expect("checked against the key's kind");
        match field {
            // Kafka's -1 is no limit.
            Field::Retention => {
                self.retention = Some(u64::try_from(number()).map_or(Retention::Forever, Retention::from_millis));
            }
            // Below 0 is no limit, which is also the default; 0 keeps as little as can be.
            Field::RetentionBytes => {
                self.retention_bytes = u64::try_from(number()).ok().map(|bytes| Size::from_bytes(bytes.max(1)));
            }
            Field::MaxMessageBytes => self.max_message_bytes = Some(Size::from_bytes(number().unsigned_abs())),
            Field::TimestampType => self.timestamp_type = TimestampType::from_word(value),
            Field::MinInSyncReplicas => self.min_in_sync_replicas = Some(number() as i32),
            Field::Durability | Field::TrashRetention => unreachable!("Kafka has no key for them"),
        }
    }

    fn unset_field(&mut self, field: Field) {
        match field {
            Field::Retention => self.retention = None,
            Field::RetentionBytes => self.retention_bytes = None,
            Field::MaxMessageBytes => self.max_message_bytes = None,
            Field::Durability => self.durability = None,
            Field::TimestampType => self.timestamp_type = None,
            Field::TrashRetention => self.trash_retention = None,
            Field::MinInSyncReplicas => self.min_in_sync_replicas = None,
        }
    }
}

fn is_max_message_bytes(size: Size) -> bool {
    let (least, most) = (TopicConfig::LEAST_MAX_MESSAGE_BYTES, TopicConfig::MOST_MAX_MESSAGE_BYTES);
    (u64::from(least)..=u64::from(most)).contains(&size.as_bytes())
}

/// The beginning of a text that may be long, for a message.
pub(crate) fn shorten(text: &str) -> String {
    const MOST: usize = 64;
    match text.char_indices().nth(MOST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// `, did you mean …?`, where a key is close, as it is without dots, dashes and capitals.
fn nearest(key: &str) -> String {
    let plain = |text: &str| text.replace(['.', '-', '_'], "").to_ascii_lowercase();
    let names = KEYS.iter().map(|key| key.name).chain(Field::ALL.iter().map(|field| field.name()));
    let wanted = plain(key);
    let mut near = names.filter(|name| {
        let name = plain(name);
        !wanted.is_empty() && (name.starts_with(&wanted) || wanted.starts_with(&name))
    });
    near.next().map_or_else(String::new, |name| format!(": did you mean {name}?"))
}

#[cfg(test)]
mod tests;
