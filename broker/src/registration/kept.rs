//! What the volume remembers of its registrations.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decide::Kept;
use crate::storage::{MetaStore, StorageError, blocking};

const KEY: &[u8] = b"broker/registration";
const VERSION: u32 = 1;

#[derive(Serialize, Deserialize)]
struct Envelope {
    v: u32,
    #[serde(flatten)]
    kept: Kept,
}

pub(super) async fn read(meta: &Arc<dyn MetaStore>) -> Result<Option<Kept>, StorageError> {
    let meta = meta.clone();
    let read = move || meta.get(KEY)?.map(|bytes| decode(&bytes)).transpose();
    blocking(read).await
}

/// Durable when it returns.
pub(super) async fn write(meta: &Arc<dyn MetaStore>, kept: &Kept) -> Result<(), StorageError> {
    let bytes = serde_json::to_vec(&Envelope { v: VERSION, kept: kept.clone() }).expect("it has string keys only");
    let meta = meta.clone();
    let write = move || meta.write(vec![(KEY.to_vec(), Some(bytes))]);
    blocking(write).await
}

fn decode(bytes: &[u8]) -> Result<Kept, StorageError> {
    let damaged =
        |what: String| StorageError::Damaged { file: "metadata key broker/registration".to_owned(), at: 0, what };
    let envelope: Envelope = serde_json::from_slice(bytes).map_err(|error| damaged(error.to_string()))?;
    if envelope.v == VERSION { Ok(envelope.kept) } else { Err(damaged(format!("version {}", envelope.v))) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_in_another_form_is_not_taken_for_nothing() {
        let good =
            br#"{"v":1,"cluster":"7f6c2f0e-5f0b-4a53-9d0e-4a9c7a3f5b11","broker":2,"incarnation":7,"registered":6}"#;
        assert_eq!(decode(good).unwrap().incarnation, 7);
        for bad in [
            &b"{}"[..],
            b"",
            br#"{"v":2,"cluster":"7f6c2f0e-5f0b-4a53-9d0e-4a9c7a3f5b11","broker":2,"incarnation":7,"registered":6}"#,
        ] {
            assert!(decode(bad).is_err());
        }
    }
}
