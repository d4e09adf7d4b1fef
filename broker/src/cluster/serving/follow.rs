//! Following leaders.

use super::desired::Role;
use super::slot::is_in_sync;
use super::{Change, Outcome, Serving};
use crate::cluster::image::Image;
use crate::replication::fetcher::Following;
use crate::storage::PartitionId;

impl Serving {
    /// Follows what others lead and this broker has a replica of. Makes logs where there are none: what must not be made anew
    /// has been reported as a fault and is not asked for here. Where a log is damaged, and is to be made anew, it is given up first.
    pub(super) async fn follow_leaders(&mut self, image: &Image, changes: &[Change]) -> Outcome {
        let id = |topic, index: &usize| PartitionId { topic, index: *index as i32 };
        let of = |change: &Change| change.to_follow.iter().map(|index| id(change.topic, index)).collect::<Vec<_>>();
        let (mut ids, mut outcome) = (Vec::new(), Outcome::Done);
        for id in changes.iter().flat_map(of) {
            if self.give_up_damaged(image, id).await {
                ids.push(id);
            } else {
                outcome = Outcome::TryAgain;
            }
        }
        let wanted: Vec<_> = ids.into_iter().filter_map(|id| Some((id, self.state(id)?.clone()))).collect();
        if wanted.is_empty() {
            return outcome;
        }
        let logs = match self.logs(&wanted.iter().collect::<Vec<_>>()).await {
            Ok(logs) => logs,
            Err(error) => {
                tracing::warn!(%error, partitions = wanted.len(), "partitions are not followed yet");
                return Outcome::TryAgain;
            }
        };
        for ((id, state), log) in wanted.into_iter().zip(logs) {
            let Some(served) = self.served.get_mut(&id.topic) else { continue };
            let Some(slot) = served.slots.get_mut(id.index as usize) else { continue };
            let Role::Follow { leader } = slot.place.role else { continue };
            let following = Following {
                leader,
                leader_epoch: state.leader_epoch,
                high_watermark: slot.high_watermark,
                in_sync: is_in_sync(&state, self.me),
            };
            let follow = self.followers.follow(log.clone(), served.settings.clone(), following);
            slot.partition.followed(log, &follow);
            slot.follow = Some(follow);
        }
        outcome
    }
}
