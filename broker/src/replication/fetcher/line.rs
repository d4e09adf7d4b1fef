//! The line to one leader: a stream that carries the positions of all partitions that are followed there, and what comes for
//! them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::internal::v1::{FetchPosition, FetchRequest, FetchResponse, FetchedPart};
use taffrail_proto::v1::LogError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

use crate::cluster::Session;
use crate::metrics::ReplicationMetrics;
use crate::peers::{Peer, wire};
use crate::replication::follower::{Answer, Outcome, Position};
use crate::storage::PartitionId;

/// Positions in one message.
const POSITIONS_AT_ONCE: usize = 1_000;
/// Messages that wait to be sent.
const MESSAGES_AHEAD: usize = 2;
/// Words of partitions that are taken at once.
const WORDS_AT_ONCE: usize = 1_000;
/// How long a stream may take to begin.
const BEGIN: Duration = Duration::from_secs(10);
/// Before a broken stream is made anew: at first, and at most.
const PAUSE: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));

/// A partition that is followed, once: when it is followed anew it has another number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Followed {
    pub(super) partition: PartitionId,
    pub(super) leader_epoch: i32,
    pub(super) number: u64,
}

/// What partitions say to their line.
pub(super) enum ToLine {
    /// What comes for it goes there.
    Follow(Followed, mpsc::UnboundedSender<Event>),
    /// Where it stands. A demand is not taken back by a later report.
    Tell(Followed, Position),
    End(Followed),
}

/// What a partition hears.
#[derive(Debug)]
pub(super) enum Event {
    /// The stream is a new one, on which nothing was asked yet.
    Connected,
    /// The stream broke, and is made anew.
    Lost,
    /// What the leader sent, and the room that it takes until it is written.
    Answer(Answer, Option<Arc<OwnedSemaphorePermit>>),
}

struct Sink {
    followed: Followed,
    events: mpsc::UnboundedSender<Event>,
}

/// See the module.
struct Line {
    me: Session,
    sinks: BTreeMap<PartitionId, Sink>,
    /// What is to be told, the newest of each partition.
    due: BTreeMap<PartitionId, FetchPosition>,
    /// Those that are followed no more, to be told first.
    ended: Vec<FetchPosition>,
    room: Arc<Semaphore>,
    most: usize,
    metrics: ReplicationMetrics,
}

/// Begins the line to a leader. It ends when nobody can use it any more.
pub(super) fn start(
    peer: Arc<Peer>,
    me: Session,
    (room, most): (Arc<Semaphore>, usize),
    metrics: ReplicationMetrics,
) -> mpsc::UnboundedSender<ToLine> {
    let (words, queue) = mpsc::unbounded_channel();
    let line = Line { me, sinks: BTreeMap::new(), due: BTreeMap::new(), ended: Vec::new(), room, most, metrics };
    tokio::spawn(line.run(peer, queue));
    words
}

impl Line {
    async fn run(mut self, peer: Arc<Peer>, mut queue: mpsc::UnboundedReceiver<ToLine>) {
        let mut pause = PAUSE.0;
        loop {
            // No stream is kept for nothing.
            while self.sinks.is_empty() {
                let Some(word) = queue.recv().await else { return };
                self.hear(word);
            }
            let moved = peer.moved();
            let goes_on = tokio::select! {
                biased;
                goes_on = self.follow_and_pause(&peer, &mut queue, &mut pause) => goes_on,
                () = moved => {
                    self.tell_all(|| Event::Lost);
                    pause = PAUSE.0;
                    true
                }
            };
            if !goes_on {
                return;
            }
        }
    }

    /// One stream, and the pause behind one that broke. False: the broker stops. Cancel safe: what was heard is kept.
    async fn follow_and_pause(
        &mut self,
        peer: &Peer,
        queue: &mut mpsc::UnboundedReceiver<ToLine>,
        pause: &mut Duration,
    ) -> bool {
        let begun = tokio::time::Instant::now();
        match self.follow(peer, queue).await {
            Ok(goes_on) => goes_on,
            Err(error) => {
                tracing::debug!(error = error.message, "the stream of a leader ended");
                self.tell_all(|| Event::Lost);
                *pause = if begun.elapsed() > PAUSE.1 { PAUSE.0 } else { (*pause * 2).min(PAUSE.1) };
                tokio::time::sleep(*pause).await;
                true
            }
        }
    }

    /// One stream. True: nothing is followed there any more; false: the broker stops.
    async fn follow(&mut self, peer: &Peer, queue: &mut mpsc::UnboundedReceiver<ToLine>) -> Result<bool, LogError> {
        let mut client = peer.replicas().map_err(|refused| *refused.0)?;
        let (messages, outbound) = mpsc::channel(MESSAGES_AHEAD);
        let stream = tokio::time::timeout(BEGIN, client.fetch(ReceiverStream::new(outbound))).await;
        let stream = stream.map_err(|_| peer.broken())?;
        let mut stream: Streaming<FetchResponse> = stream.map_err(|status| peer.failed(&status))?.into_inner();
        peer.reached();
        self.due.clear();
        self.ended.clear();
        self.tell_all(|| Event::Connected);
        let (mut words, mut waiting) = (Vec::new(), None);
        while !self.sinks.is_empty() {
            let has_words = !self.due.is_empty() || !self.ended.is_empty();
            tokio::select! {
                biased;
                count = queue.recv_many(&mut words, WORDS_AT_ONCE) => {
                    if count == 0 {
                        return Ok(false);
                    }
                    words.drain(..).for_each(|word| self.hear(word));
                }
                place = messages.reserve(), if has_words => match place {
                    Ok(place) => place.send(self.message()),
                    Err(_) => return Err(peer.broken()),
                },
                permit = room_for(&self.room, self.most, waiting.as_ref()), if waiting.is_some() => {
                    self.dispatch(waiting.take(), permit);
                }
                answer = stream.message(), if waiting.is_none() => match answer {
                    Ok(Some(answer)) => waiting = Some(answer),
                    Ok(None) => return Err(peer.broken()),
                    Err(status) => return Err(peer.failed(&status)),
                },
            }
        }
        Ok(true)
    }

    fn tell_all(&self, event: impl Fn() -> Event) {
        for sink in self.sinks.values() {
            // One that has ended says so in the queue.
            let _ = sink.events.send(event());
        }
    }

    fn hear(&mut self, word: ToLine) {
        match word {
            ToLine::Follow(followed, events) => {
                // What it tells first is behind this in the queue.
                self.due.remove(&followed.partition);
                self.sinks.insert(followed.partition, Sink { followed, events });
            }
            ToLine::Tell(followed, position) if self.is_current(followed) => {
                let partition = wire::partition(followed.partition, followed.leader_epoch);
                let due = self
                    .due
                    .entry(followed.partition)
                    .or_insert_with(|| FetchPosition { partition: Some(partition), ..FetchPosition::default() });
                (due.next, due.last_epoch, due.written) = (position.next, position.last_epoch, position.written);
                due.max_bytes = due.max_bytes.max(position.max_bytes);
            }
            ToLine::End(followed) if self.is_current(followed) => {
                self.sinks.remove(&followed.partition);
                self.due.remove(&followed.partition);
                let partition = Some(wire::partition(followed.partition, followed.leader_epoch));
                self.ended.push(FetchPosition { partition, ends: true, ..FetchPosition::default() });
            }
            ToLine::Tell(..) | ToLine::End(_) => {}
        }
    }

    fn is_current(&self, followed: Followed) -> bool {
        self.sinks.get(&followed.partition).is_some_and(|sink| sink.followed == followed)
    }

    /// The next message: some of what is to be told.
    fn message(&mut self) -> FetchRequest {
        let ended = self.ended.len().min(POSITIONS_AT_ONCE);
        let mut positions: Vec<_> = self.ended.drain(..ended).collect();
        while positions.len() < POSITIONS_AT_ONCE {
            let Some((_, position)) = self.due.pop_first() else { break };
            positions.push(position);
        }
        FetchRequest { broker: self.me.broker, incarnation: self.me.incarnation, positions }
    }

    /// Gives the parts of an answer to those that they are for.
    fn dispatch(&self, answer: Option<FetchResponse>, mut room: OwnedSemaphorePermit) {
        for part in answer.into_iter().flat_map(|answer| answer.parts) {
            let Some(sent) = &part.partition else { continue };
            let Some(sink) = self.sinks.get(&wire::partition_id(sent)) else { continue };
            let bytes = bytes_of(&part);
            self.metrics.received_bytes.inc_by(bytes as u64);
            let taken = if bytes == 0 { None } else { room.split(bytes.min(room.num_permits())) };
            // One that has ended says so in the queue.
            let _ = sink.events.send(Event::Answer(decode(sent.leader_epoch, part), taken.map(Arc::new)));
        }
    }
}

fn bytes_of(part: &FetchedPart) -> usize {
    part.batches.iter().map(bytes::Bytes::len).sum()
}

/// Waits until there is room for a message, as far as there can be. Cancel safe.
async fn room_for(room: &Arc<Semaphore>, most: usize, message: Option<&FetchResponse>) -> OwnedSemaphorePermit {
    let bytes: usize = message.iter().flat_map(|message| &message.parts).map(bytes_of).sum();
    let permits = u32::try_from(bytes.min(most)).unwrap_or(u32::MAX);
    room.clone().acquire_many_owned(permits).await.expect("the semaphore is never closed")
}

fn decode(leader_epoch: i32, part: FetchedPart) -> Answer {
    let FetchedPart { batches, high_watermark, log_start, log_end, answers, diverging, restart, error, .. } = part;
    let outcome = match (error, diverging) {
        (Some(_), _) => Outcome::Refused,
        (None, Some(parted)) => Outcome::Diverges(parted.epoch, parted.end),
        (None, None) if restart => Outcome::Deleted,
        (None, None) => Outcome::Matches,
    };
    Answer { leader_epoch, batches, high_watermark, log_start, log_end, answers, outcome }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;
    use uuid::Uuid;

    use super::*;
    use crate::brokers::{Brokers, INTERNAL, Image, Registered};
    use crate::peers::Peers;

    fn registered(incarnation: i64, at: &TcpListener) -> Image {
        let endpoints = [(INTERNAL.to_owned(), at.local_addr().unwrap().to_string())].into();
        let version = "test".to_owned();
        let leader = Registered { id: 1, incarnation, fenced: false, draining: false, zone: None, endpoints, version };
        Image { brokers: [(1, leader)].into() }
    }

    #[tokio::test]
    async fn a_leader_that_was_restarted_elsewhere_is_followed_there_at_once() {
        let listen = || TcpListener::bind("127.0.0.1:0");
        let (before, now) = (listen().await.unwrap(), listen().await.unwrap());
        let brokers = Brokers::new(0, "cluster".to_owned());
        brokers.publish(registered(1, &before));
        let peers = Peers::new(brokers.clone(), 1 << 20);
        let (me, room) = (Session { broker: 0, incarnation: 1 }, Arc::new(Semaphore::new(1)));
        let line = start(peers.peer(1), me, (room, 1), ReplicationMetrics::default());
        let partition = PartitionId { topic: Uuid::from_u128(7), index: 0 };
        let (events, mut heard) = mpsc::unbounded_channel();
        line.send(ToLine::Follow(Followed { partition, leader_epoch: 1, number: 0 }, events)).unwrap();
        // Nobody answers there, and nobody says that nobody will.
        let _silent = before.accept().await.unwrap();

        brokers.publish(registered(2, &now));
        let found = tokio::time::timeout(BEGIN / 2, now.accept()).await;
        assert!(found.is_ok(), "it waits for an answer from where the leader was");
        assert!(matches!(heard.recv().await, Some(Event::Lost)));
    }
}
