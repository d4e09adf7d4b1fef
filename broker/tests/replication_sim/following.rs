//! A follower at work, around the real machine.

use taffrail_broker::replication::follower::Effect;

use super::counts::Seen;
use super::log::{Batch, Operation};
use super::planted::Planted;
use super::replica::{Fetch, Fetched, Following, Role, held};
use super::world::{Event, Message, World};

impl World {
    fn following(&mut self, broker: i32, partition: usize) -> Option<&mut Following> {
        match &mut self.slot(broker, partition)?.role {
            Role::Following(following) => Some(following),
            _ => None,
        }
    }

    /// Tells the leader what there is to tell.
    pub(crate) fn ask(&mut self, broker: i32, partition: usize) {
        let (from, planted) = (self.replica(broker), self.options.planted);
        let Some(following) = self.following(broker, partition) else { return };
        let Some(mut position) = following.follower.ask() else { return };
        if planted == Some(Planted::CountedBeforeWritten) {
            position.written = position.next;
        }
        following.said += 1;
        let (leader, leader_epoch) = (following.leader, following.epoch);
        let (stream, said) = (following.stream, following.said);
        let fetch = Fetch { from, partition, leader_epoch, stream: (self.life(broker), stream, said), position };
        self.send(broker, leader, Message::Fetch(Box::new(fetch)));
    }

    /// What comes on the stream before is of no interest any more.
    pub(crate) fn new_stream(&mut self, broker: i32, partition: usize) {
        let Some(process) = self.process(broker) else { return };
        process.terms += 1;
        let stream = process.terms;
        if let Some(following) = self.following(broker, partition) {
            (following.stream, following.said, following.last) = (stream, 0, 0);
        }
    }

    /// An answer arrives, from whichever leader. Streams keep their order, so that what was overtaken is as good as lost;
    /// answers of other epochs come on any.
    pub(crate) fn fetched(&mut self, broker: i32, from: i32, fetched: Fetched) {
        let Fetched { partition, stream: (life, stream, place), mut answer } = fetched;
        let (now, planted, own_life) = (self.now, self.options.planted, self.life(broker));
        let Some(following) = self.following(broker, partition) else { return };
        if answer.leader_epoch == following.epoch {
            if (life, stream) != (own_life, following.stream) || place <= following.last {
                return;
            }
            following.last = place;
        }
        if following.leader == from {
            following.heard = now;
        }
        let ours = answer.leader_epoch == following.epoch;
        if !ours {
            if planted == Some(Planted::OlderEpochAccepted) {
                answer.leader_epoch = following.epoch;
            }
            self.counts.saw(Seen::OtherEpoch);
        }
        let Some(following) = self.following(broker, partition) else { return };
        let effects = following.follower.answer(answer);
        assert!(ours || effects.is_empty(), "E3: broker {broker} acts on an answer of another epoch: {effects:?}");
        self.carry_out(broker, partition, effects);
    }

    pub(crate) fn again(&mut self, broker: i32, partition: usize, term: u32) {
        if let Some(following) = self.following(broker, partition)
            && following.term == term
        {
            following.follower.again();
            self.ask(broker, partition);
        }
    }

    pub(crate) fn follower_wrote(&mut self, broker: i32, partition: usize) {
        let node = &mut self.nodes[broker as usize];
        let log = &node.disk.logs[partition];
        let Some(process) = &mut node.process else { return };
        let Role::Following(following) = &mut process.slots[partition].role else { return };
        let effects = following.follower.written(Ok(()), || held(log));
        self.carry_out(broker, partition, effects);
    }

    fn carry_out(&mut self, broker: i32, partition: usize, effects: Vec<Effect>) {
        for effect in effects {
            let operation = match effect {
                Effect::Append(bytes, header) => Operation::Append(Batch::of(bytes, &header)),
                Effect::Trim(to) => Operation::Trim(to),
                Effect::Truncate(to) => {
                    self.counts.saw(Seen::Truncated);
                    Operation::Truncate(to)
                }
                Effect::Restart(at) => {
                    self.counts.saw(Seen::Restarted);
                    Operation::Restart(at)
                }
                Effect::Pause(_) => {
                    let after = self.millis(50, 500);
                    let life = self.life(broker);
                    if let Some(term) = self.following(broker, partition).map(|following| following.term) {
                        self.schedule(after, Event::Again { broker, life, partition, term });
                    }
                    continue;
                }
                Effect::Fault(why) => panic!("T4: the replica of broker {broker} stops: {why}"),
            };
            self.submit(broker, partition, operation);
        }
        let Some(high_watermark) = self.following(broker, partition).map(|it| it.follower.high_watermark()) else {
            return;
        };
        let by = format!("follower {broker}");
        let log = &mut self.nodes[broker as usize].disk.logs[partition];
        self.histories[partition].commit(log, high_watermark, &by);
        self.ask(broker, partition);
    }
}
