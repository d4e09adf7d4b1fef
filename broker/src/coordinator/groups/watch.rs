//! Who is told that something changed for a member.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::coordinator::group::Event;

type Senders = BTreeMap<String, BTreeMap<String, watch::Sender<()>>>;

/// Streams by group and member. A member has more than one while an old stream's end has not been noticed.
#[derive(Debug, Default)]
pub(super) struct Watchers(Mutex<Senders>);

impl Watchers {
    pub(super) fn watch(self: &Arc<Self>, group: &str, member: &str) -> Watch {
        let mut senders = self.0.lock();
        let members = senders.entry(group.to_owned()).or_default();
        let sender = members.entry(member.to_owned()).or_insert_with(|| watch::Sender::new(()));
        let told = sender.subscribe();
        Watch { watchers: self.clone(), group: group.to_owned(), member: member.to_owned(), told }
    }

    pub(super) fn tell(&self, event: &Event) {
        let senders = self.0.lock();
        let Some(members) = senders.get(&event.group) else { return };
        for sender in event.members.iter().filter_map(|member| members.get(member)) {
            sender.send_replace(());
        }
    }

    fn forget(&self, group: &str, member: &str) {
        let mut senders = self.0.lock();
        let Some(members) = senders.get_mut(group) else { return };
        // The one that is being dropped still counts.
        if members.get(member).is_some_and(|sender| sender.receiver_count() <= 1) {
            members.remove(member);
        }
        if members.is_empty() {
            senders.remove(group);
        }
    }
}

/// Hears of a member until it is dropped.
#[derive(Debug)]
pub struct Watch {
    watchers: Arc<Watchers>,
    group: String,
    member: String,
    told: watch::Receiver<()>,
}

impl Watch {
    /// Waits until something changed since the last time. Cancel safe.
    pub async fn changed(&mut self) {
        if self.told.changed().await.is_err() {
            // The sender is there as long as this is.
            std::future::pending::<()>().await;
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.watchers.forget(&self.group, &self.member);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn a_member_hears_of_its_own_events_and_is_forgotten_when_it_listens_no_more() {
        let watchers = Arc::new(Watchers::default());
        let (mut a, mut again, mut b) = (watchers.watch("g", "a"), watchers.watch("g", "a"), watchers.watch("g", "b"));
        watchers.tell(&Event { group: "g".to_owned(), members: vec!["a".to_owned(), "nobody".to_owned()] });
        assert!(a.changed().now_or_never().is_some() && again.changed().now_or_never().is_some());
        assert!(a.changed().now_or_never().is_none() && b.changed().now_or_never().is_none());
        drop((a, b));
        watchers.tell(&Event { group: "g".to_owned(), members: vec!["a".to_owned()] });
        assert!(again.changed().now_or_never().is_some());
        drop(again);
        assert!(watchers.0.lock().is_empty());
    }
}
