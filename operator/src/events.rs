//! Events: what a human should notice, on the object that it is about.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// Longest text of an Event that an API server takes, in bytes.
const MAX_NOTE: usize = 1000;

/// Where Events go.
#[derive(Clone)]
pub struct Events(Recorder);

impl Events {
    /// In the name of this operator.
    pub fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter { controller: "taffrail-operator".to_owned(), instance: Some(identity.to_owned()) };
        Self(Recorder::new(client, reporter))
    }

    /// Something went as it should.
    pub async fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.publish(object.object_ref(&()), EventType::Normal, reason, note).await;
    }

    /// Somebody should look at it.
    pub async fn warning<K: Resource<DynamicType = ()>>(&self, object: &K, reason: &str, note: &str) {
        self.publish(object.object_ref(&()), EventType::Warning, reason, note).await;
    }

    /// An Event that cannot be written is no reason to stop: conditions say the same.
    async fn publish(&self, about: ObjectReference, type_: EventType, reason: &str, note: &str) {
        let event = Event {
            type_,
            reason: reason.to_owned(),
            note: Some(shorten(note)),
            action: "Reconcile".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.0.publish(&event, &about).await {
            tracing::debug!(%error, reason, "an Event was not written");
        }
    }
}

fn shorten(note: &str) -> String {
    let end = note.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= MAX_NOTE).last();
    note[..end.unwrap_or(0)].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_cut_at_a_character() {
        assert_eq!(shorten("short"), "short");
        assert_eq!(shorten(&"ä".repeat(600)).len(), MAX_NOTE);
        assert_eq!(shorten(&("x".to_owned() + &"ä".repeat(600))).len(), MAX_NOTE - 1);
    }
}
