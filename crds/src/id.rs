//! Identities: UUIDs of topics, clusters and volumes, as they stand in objects.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A UUID in the one way it is written in objects: lower-case hexadecimal with hyphens, 36 characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Id(pub Uuid);

impl Id {
    /// The regular expression of the texts that are ids.
    pub const PATTERN: &str = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$";
}

impl std::fmt::Display for Id {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Id {
    fn schema_name() -> Cow<'static, str> {
        "Id".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": Self::PATTERN, "minLength": 36, "maxLength": 36 })
    }
}

/// Kafka keeps two topic ids for itself: all zeros, and one.
pub(crate) const NOT_RESERVED: &str =
    "!self.startsWith('00000000-0000-0000-0000-00000000000') || !(self.endsWith('0') || self.endsWith('1'))";
