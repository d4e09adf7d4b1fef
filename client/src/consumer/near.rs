//! Reading from followers in the reader's zone: who stands in for which leader, as brokers and in-sync replicas come and go.

use tokio::time::Instant;

use super::Consumer;
use crate::metadata::Snapshot;

impl Consumer {
    /// Where followers in this zone serve, they stand in for leaders elsewhere.
    pub(crate) fn in_zone(self, zone: Option<String>) -> Self {
        Self { zone: zone.filter(|zone| !zone.is_empty()), ..self }
    }

    /// Who stands in for a partition's leader now.
    fn near<'a>(&self, slot: usize, snapshot: &'a Snapshot, now: Instant) -> Option<&'a str> {
        let zone = self.zone.as_deref().filter(|_| self.state.may_be_near(slot, now))?;
        let partition = self.state.partition(slot);
        let near = snapshot.replica_in(zone, &partition.topic, partition.partition)?;
        // Where brokers are not reached one by one, they all are the leader.
        (snapshot.leader(&partition.topic, partition.partition) != Some(near)).then_some(near)
    }

    /// Puts a partition on the stream of a follower; false: the leader is to be asked.
    pub(super) fn subscribe_near(&mut self, slot: usize, snapshot: &Snapshot, now: Instant) -> bool {
        let Some(near) = self.near(slot, snapshot, now) else { return false };
        let partition = self.state.partition(slot);
        let epoch = snapshot.leader_epoch(&partition.topic, partition.partition);
        if self.subscribe_one(slot, (&near.into(), epoch, true), now).is_some() {
            self.state.ask_leader(slot, now);
            return false;
        }
        true
    }

    /// Takes partitions off the streams of those who stand in for their leaders no more, or where somebody does now.
    pub(super) fn choose_again(&mut self, now: Instant) {
        if self.zone.is_none() {
            return;
        }
        let snapshot = self.shared.metadata.snapshot();
        let misplaced = self.state.on_streams().filter(|(slot, endpoint, is_near)| {
            let near = self.near(*slot, &snapshot, now);
            *is_near != near.is_some() || near.is_some_and(|near| *near != ***endpoint)
        });
        let misplaced: Vec<_> = misplaced.map(|(slot, ..)| slot).collect();
        for slot in misplaced {
            self.state.leave_stream(slot);
        }
        self.act();
    }
}

#[cfg(test)]
mod tests;
