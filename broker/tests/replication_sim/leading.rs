//! A leader at work, around the real machine.

use taffrail_broker::replication::follower::{Answer, Outcome};
use taffrail_broker::replication::leader::Leader;
use taffrail_broker::storage::Extent;
use taffrail_crds::slice::Replica;

use super::clients::Batched;
use super::counts::Seen;
use super::log::{Batch, Operation, ReplicaLog};
use super::planted::Planted;
use super::replica::{Fetch, Fetched, Leading, Role, Stream};
use super::world::{Message, Refusal, World};

/// Most batches in one answer, once all is well.
const BATCHES: usize = 1_000;
/// When a leader that takes silence for refusal loses patience, in microseconds.
const PATIENCE: u64 = 2_000_000;

/// How a follower's history compares with what is written here (KIP-101, KIP-279), as a partition answers a read for it.
fn compare(log: &ReplicaLog, next: i64, last_epoch: Option<i32>, matched: bool) -> Outcome {
    let (start, end) = (log.all.start, log.written_end);
    if let Some(last_epoch) = last_epoch {
        let Some(found) = log.all.epochs.end_of(last_epoch, end) else {
            let first = log.all.epochs.entries().first().map_or(start, |(_, start)| *start);
            return match next {
                _ if next > first => Outcome::Diverges(None, first),
                _ if next < start || !matched => Outcome::Deleted,
                _ => Outcome::Matches,
            };
        };
        if found.epoch < last_epoch || found.end < next {
            return Outcome::Diverges(Some(found.epoch), found.end.clamp(start, end).min(next).max(start));
        }
    }
    match next {
        _ if next < start => Outcome::Deleted,
        _ if next > end => Outcome::Diverges(None, end),
        _ => Outcome::Matches,
    }
}

impl World {
    pub(crate) fn leading(&mut self, broker: i32, partition: usize) -> Option<&mut Leading> {
        match &mut self.slot(broker, partition)?.role {
            Role::Leading(leading) => Some(leading),
            _ => None,
        }
    }

    /// A batch of a producer: appended once, if it may be.
    pub(crate) fn append(&mut self, broker: i32, batch: Batched) {
        let partition = batch.partition;
        let Some(leading) = self.leading(broker, partition) else {
            return self.refuse(broker, batch, Refusal::NotLeader);
        };
        let (short, epoch) = (leading.leader.is_short(), leading.epoch);
        let log = self.log(broker, partition);
        let start = log.all.start;
        // What producers have sent outlives the records in a log; here, the checks' memory is asked.
        if let Some((base, next)) = self.histories[partition].place_of((batch.id, batch.sequence))
            && base < start
        {
            if let Some(leading) = self.leading(broker, partition) {
                leading.waiting.push((next, base, batch));
                self.led(broker, partition);
            }
            return;
        }
        let log = self.log(broker, partition);
        let last = log.all.batches.iter().rev().find(|stored| stored.value.0 == batch.id);
        let expected = last.map_or(0, |stored| stored.value.1 + (stored.next - stored.base) as i32);
        if batch.sequence < expected {
            let value = (batch.id, batch.sequence);
            let found = log.all.batches.iter().find(|stored| stored.value == value);
            let found = found.map(|stored| (stored.base, stored.next));
            self.counts.saw(Seen::Deduplicated);
            // P2: acknowledged only when the first one is.
            if let (Some((base, next)), Some(leading)) = (found, self.leading(broker, partition)) {
                leading.waiting.push((next, base, batch));
                self.led(broker, partition);
            }
            return;
        }
        if short {
            self.counts.saw(Seen::NotEnoughReplicas);
            return self.refuse(broker, batch, Refusal::NotEnoughReplicas);
        }
        if batch.sequence > expected {
            self.counts.saw(Seen::OutOfSequence);
            return self.refuse(broker, batch, Refusal::OutOfSequence);
        }
        let base = log.all.end;
        let (bytes, header) = batch.placed(base, epoch);
        let stored = Batch::of(bytes, &header);
        let next = stored.next;
        self.counts.saw(Seen::Appended);
        self.submit(broker, partition, Operation::Append(stored));
        if let Some(leading) = self.leading(broker, partition) {
            leading.waiting.push((next, base, batch));
        }
    }

    pub(crate) fn leader_wrote(&mut self, broker: i32, partition: usize) {
        let clock = self.clock(broker);
        let written = self.log(broker, partition).written_end;
        if let Some(leading) = self.leading(broker, partition) {
            leading.leader.written(written, clock);
        }
        self.led(broker, partition);
    }

    /// A follower's position arrives.
    pub(crate) fn fetch(&mut self, broker: i32, fetch: Fetch) {
        let Fetch { from, partition, leader_epoch, stream, position } = fetch.clone();
        let epoch = self.leading(broker, partition).map(|leading| leading.epoch);
        if epoch != Some(leader_epoch) {
            if position.max_bytes > 0 {
                self.answer(broker, &fetch, Outcome::Refused);
            }
            return;
        }
        let (id, place, demands) = ((stream.0, stream.1), stream.2, position.max_bytes > 0);
        let Some(leading) = self.leading(broker, partition) else { return };
        let known = leading.streams.entry(from.broker).or_default();
        if known.id < id {
            *known = Stream { id, ..Stream::default() };
        }
        // An earlier stream is still heard as long as it lives; only a stream's own order is kept.
        if known.id == id && place <= known.heard {
            return;
        }
        let matched = known.id == id && known.matched;
        if known.id == id {
            known.heard = place;
        }
        if matched {
            self.counts(broker, &fetch);
        } else if demands {
            let outcome = compare(self.log(broker, partition), position.next, position.last_epoch, false);
            if outcome != Outcome::Matches {
                return self.answer(broker, &fetch, outcome);
            }
            self.counts(broker, &fetch);
        }
        let Some(leading) = self.leading(broker, partition) else { return };
        if demands {
            if let Some(known) = leading.streams.get_mut(&from.broker).filter(|known| known.id == id) {
                known.matched = true;
            }
            leading.demands.insert(from.broker, fetch);
        }
        self.led(broker, partition);
    }

    /// What a follower has written counts.
    fn counts(&mut self, broker: i32, fetch: &Fetch) {
        let (clock, from, position) = (self.clock(broker), fetch.from, fetch.position);
        let written = position.written.clamp(0, position.next.max(0));
        let Some(leading) = self.leading(broker, fetch.partition) else { return };
        leading.leader.fetched(from, written, clock);
        let known = leading.positions.entry(from.broker).or_default();
        *known = (*known).max((from.incarnation, written));
    }

    fn answer(&mut self, broker: i32, fetch: &Fetch, outcome: Outcome) {
        let (partition, next) = (fetch.partition, fetch.position.next);
        let high_watermark = self.leading(broker, partition).map_or(0, |leading| leading.high_watermark);
        let most = if self.faulty { self.options.answer_batches } else { BATCHES };
        let log = self.log(broker, partition);
        let mut answer = Answer {
            leader_epoch: fetch.leader_epoch,
            batches: Vec::new(),
            high_watermark,
            log_start: log.all.start,
            log_end: log.written_end,
            answers: Some(next),
            outcome,
        };
        if answer.outcome == Outcome::Matches {
            let first = log.all.batches.partition_point(|batch| batch.next <= next);
            let written = log.all.batches[first..].iter().take_while(|batch| batch.next <= log.written_end);
            answer.batches = written.take(most).map(|batch| batch.bytes.clone()).collect();
        }
        self.say(broker, fetch, answer);
    }

    /// Sends something to a follower, on the stream on which it asked.
    fn say(&mut self, broker: i32, to: &Fetch, answer: Answer) {
        let (life, number, _) = to.stream;
        let Fetch { from, partition, .. } = *to;
        let place = self.leading(broker, partition).and_then(|leading| {
            let stream = leading.streams.get_mut(&from.broker).filter(|stream| stream.id == (life, number))?;
            stream.said += 1;
            Some(stream.said)
        });
        let stream = (life, number, place.unwrap_or(1));
        self.send(broker, from.broker, Message::Fetched(Box::new(Fetched { partition, stream, answer })));
    }

    /// After everything that happens to a leader: acknowledges what is committed, and answers who waits.
    pub(crate) fn led(&mut self, broker: i32, partition: usize) {
        self.plant(broker, partition);
        let high_watermark = self.high_watermark(broker, partition);
        let Some(leading) = self.leading(broker, partition) else { return };
        let before = leading.high_watermark;
        assert!(high_watermark >= before, "H1: the high watermark falls from {before} to {high_watermark}");
        leading.high_watermark = high_watermark;
        let epoch = leading.epoch;
        let (done, waiting) = std::mem::take(&mut leading.waiting)
            .into_iter()
            .partition(|(next, _, _): &(i64, i64, Batched)| *next <= high_watermark);
        leading.waiting = waiting;
        let done: Vec<_> = done;
        if high_watermark > before {
            self.committed(broker, partition, high_watermark);
        }
        for (_, base, batch) in done {
            self.send(broker, batch.client(), Message::Produced(batch, Ok(base)));
        }
        let log = self.log(broker, partition);
        let (written, log_start) = (log.written_end, log.all.start);
        let Some(leading) = self.leading(broker, partition) else { return };
        let all = std::mem::take(&mut leading.demands);
        let (ready, held): (Vec<_>, _) = all.into_iter().partition(|(_, fetch)| fetch.position.next < written);
        leading.demands = held.into_iter().collect();
        let told: Vec<Fetch> = leading.demands.values().cloned().collect();
        for (_, fetch) in ready {
            let outcome = compare(self.log(broker, partition), fetch.position.next, fetch.position.last_epoch, true);
            self.answer(broker, &fetch, outcome);
        }
        if high_watermark > before {
            for to in told {
                let (leader_epoch, log_end) = (epoch, written);
                let answer = Answer { leader_epoch, high_watermark, log_start, log_end, ..Answer::default() };
                self.say(broker, &to, answer);
            }
        }
        self.tell_news(broker);
    }

    /// The machine's, unless a fault is planted.
    fn high_watermark(&mut self, broker: i32, partition: usize) -> i64 {
        let (planted, own) = (self.options.planted, self.log(broker, partition).written_end);
        let Some(leading) = self.leading(broker, partition) else { return 0 };
        let real = leading.leader.high_watermark().max(leading.high_watermark);
        if planted != Some(Planted::CommittedIsrOnly) || leading.leader.is_short() {
            return real;
        }
        let view = leading.leader.view();
        let written = |replica: &Replica| match leading.positions.get(&replica.broker) {
            _ if replica == &view.me => own,
            Some((incarnation, written)) if *incarnation == replica.incarnation => *written,
            _ => 0,
        };
        view.isr.iter().map(written).min().unwrap_or(0).max(real)
    }

    /// Faults of a leader's own.
    fn plant(&mut self, broker: i32, partition: usize) {
        let Some(planted) = self.options.planted else { return };
        let (now, clock) = (self.now, self.clock(broker));
        let log = self.log(broker, partition);
        let extent = Extent { start: log.all.start, end: log.written_end };
        let Some(leading) = self.leading(broker, partition) else { return };
        let mut view = leading.leader.view().clone();
        let Some(proposal) = leading.leader.proposal().cloned() else {
            leading.proposed_at = None;
            return;
        };
        let since = *leading.proposed_at.get_or_insert(now);
        match planted {
            Planted::ShrinkLocally if proposal.isr.len() < view.isr.len() => view.isr = proposal.isr,
            Planted::SilenceIsRefusal if now - since > PATIENCE => {}
            _ => return,
        }
        leading.proposed_at = None;
        leading.leader = Leader::new(view, leading.high_watermark, extent, clock);
        for (broker, (incarnation, written)) in leading.positions.clone() {
            leading.leader.fetched(Replica { broker, incarnation }, written, clock);
        }
    }

    /// Gives up old records now and then.
    pub(crate) fn retain(&mut self) {
        let after = self.millis(2_000, 10_000);
        self.schedule(after, super::world::Event::Retain);
        let (broker, partition) =
            (self.rng.index(self.nodes.len()) as i32, self.rng.index(self.options.partitions as usize));
        let Some(leading) = self.leading(broker, partition) else { return };
        let high_watermark = leading.high_watermark;
        // With a log start behind the end of what is left, a replica waits for a person.
        if !self.options.careful {
            return;
        }
        let log = self.log(broker, partition);
        let batches: Vec<i64> =
            log.all.batches.iter().map(|batch| batch.next).filter(|next| *next <= high_watermark).collect();
        if batches.len() < 6 {
            return;
        }
        let to = batches[self.rng.index(batches.len())];
        self.counts.saw(Seen::Trimmed);
        self.histories[partition].trim(to);
        self.submit(broker, partition, Operation::Trim(to));
    }
}
