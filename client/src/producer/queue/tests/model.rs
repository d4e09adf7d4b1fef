//! The queue against a model of a broker: whatever breaks, what is told to be stored is stored once, in order, and what is
//! told not to be stored is not.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// The application adds a batch.
    Push { records: i32 },
    /// The queue sends all that it wants to.
    Send,
    /// The broker takes the oldest batch on the stream.
    Process(Fault),
    /// The oldest answer arrives.
    Answer,
    /// The stream breaks; what the broker has not taken yet may still reach it.
    Disconnect,
    /// A batch of a broken stream reaches the broker late.
    Straggle,
    /// The broker forgets the producer, but not the records.
    Forget,
    /// Time passes.
    Wait { millis: u64 },
}

/// How the broker treats a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    None,
    /// Refused, not stored, and may come again.
    Passing,
    /// Refused for good.
    Invalid,
    /// Stored as it should be, and told to be unknown.
    StoredUnknown,
    /// Not stored, and told to be unknown.
    LostUnknown,
}

struct Request {
    correlation: u32,
    number: i64,
    records: i32,
    producer: BatchProducer,
}

/// A log and its producers, as a broker's.
#[derive(Default)]
struct Broker {
    log: Vec<i64>,
    producers: HashMap<i64, (i16, i32)>,
    newest_epoch: i16,
}

impl Broker {
    /// Appends, finds a repeat, or refuses.
    fn append(&mut self, request: &Request) -> Result<(), Error> {
        let BatchProducer { id, epoch, first_sequence } = request.producer;
        let next = add_to_sequence(first_sequence, request.records);
        match self.producers.get(&id).copied() {
            None if first_sequence != 0 => return Err(not_applied(Reason::UnknownProducer, false)),
            Some((known, _)) if epoch < known => return Err(not_applied(Reason::ProducerFenced, false)),
            Some((known, expected)) if epoch == known => {
                if first_sequence < expected {
                    assert!(next <= expected, "a repeat is repeated whole");
                    return Ok(());
                }
                if first_sequence > expected {
                    return Err(not_applied(Reason::OutOfSequence, false));
                }
            }
            Some(_) if first_sequence != 0 => return Err(not_applied(Reason::OutOfSequence, false)),
            _ => {}
        }
        self.producers.insert(id, (epoch, next));
        self.log.push(request.number);
        Ok(())
    }
}

struct World {
    queue: Queue,
    now: Instant,
    broker: Broker,
    /// On the stream, not taken yet.
    requests: VecDeque<Request>,
    /// The stream is stopped after a refusal.
    stopped: bool,
    answers: VecDeque<(u32, Result<(), Error>)>,
    /// Of broken streams.
    stragglers: VecDeque<Request>,
    pushed: i64,
    /// By the number that its order in `states` gives.
    states: Vec<Arc<BatchState>>,
    ended: Vec<Ended>,
}

impl World {
    fn new() -> Self {
        Self {
            queue: Queue::new(promise()),
            now: Instant::now(),
            broker: Broker::default(),
            requests: VecDeque::new(),
            stopped: false,
            answers: VecDeque::new(),
            stragglers: VecDeque::new(),
            pushed: 0,
            states: Vec::new(),
            ended: Vec::new(),
        }
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Push { records } => {
                let batch = batch(self.pushed, records, self.now);
                self.states.push(batch.state.clone());
                self.queue.push(batch);
                self.pushed += 1;
            }
            Step::Send => self.send(),
            Step::Process(fault) => self.process(fault),
            Step::Answer => self.answer(),
            Step::Disconnect => {
                self.stragglers.extend(self.requests.drain(..));
                self.answers.clear();
                self.stopped = false;
                let lost = Error::transient(ErrorKind::Unavailable, RequestOutcome::Unknown, "reset");
                self.queue.disconnected(&lost, &mut self.ended);
            }
            Step::Straggle => {
                if let Some(request) = self.stragglers.pop_front() {
                    let _ = self.broker.append(&request);
                }
            }
            Step::Forget => {
                // As after a day: nothing is under way that was not answered by then.
                if self.queue.is_empty() && self.stragglers.is_empty() {
                    self.broker.producers.clear();
                }
            }
            Step::Wait { millis } => {
                self.now += Duration::from_millis(millis);
                self.queue.expire(self.now, None, &mut self.ended);
            }
        }
    }

    fn send(&mut self) {
        loop {
            match self.queue.wants(self.now) {
                Wants::Identity(_) => {
                    let identity = Identity { id: 7, epoch: self.broker.newest_epoch };
                    self.broker.newest_epoch += 1;
                    self.queue.adopt(identity, &mut self.ended);
                }
                Wants::Send => {
                    let Sending { correlation, bytes, resume, .. } = self.queue.send().unwrap();
                    if resume {
                        // The stream keeps its order: what came before has been answered when this is sent.
                        assert!(self.requests.is_empty() && self.answers.is_empty());
                        self.stopped = false;
                    }
                    let header = BatchHeader::parse(&bytes).unwrap();
                    let producer = header.producer().unwrap();
                    let (number, records) = (header.base_timestamp, header.record_count);
                    self.requests.push_back(Request { correlation, number, records, producer });
                }
                Wants::Nothing | Wants::Wait(_) => return,
            }
        }
    }

    fn process(&mut self, fault: Fault) {
        let Some(request) = self.requests.pop_front() else { return };
        let answer = match fault {
            _ if self.stopped => Err(preceding()),
            Fault::None => self.broker.append(&request),
            Fault::Passing => Err(not_applied(Reason::NotLeader, true)),
            Fault::Invalid => Err(not_applied(Reason::InvalidRecord, false)),
            Fault::StoredUnknown => {
                self.broker.append(&request).and_then(|()| Err(refusal(Reason::RequestTimeout, Outcome::Unknown, true)))
            }
            Fault::LostUnknown => Err(refusal(Reason::RequestTimeout, Outcome::Unknown, true)),
        };
        self.stopped |= answer.is_err();
        self.answers.push_back((request.correlation, answer));
    }

    fn answer(&mut self) {
        match self.answers.pop_front() {
            Some((correlation, Ok(()))) => self.queue.stored(correlation, Some(appended(0)), &mut self.ended),
            Some((correlation, Err(error))) => {
                self.queue.refused(correlation, &error, self.now, 0.5, &mut self.ended);
            }
            None => {}
        }
    }

    /// Everything works again until nothing is left to be done.
    fn heal(&mut self) {
        for _ in 0..200 {
            self.step(Step::Wait { millis: 1_100 });
            self.send();
            while !self.requests.is_empty() || !self.answers.is_empty() {
                self.process(Fault::None);
                self.answer();
            }
            if self.queue.is_empty() {
                break;
            }
        }
        while !self.stragglers.is_empty() {
            self.step(Step::Straggle);
        }
    }

    fn check(&self) {
        assert!(self.queue.is_empty(), "everything ends");
        assert_eq!(self.ended.len(), self.states.len(), "every batch ends once");
        let log = &self.broker.log;
        assert!(log.is_sorted_by(|a, b| a < b), "in order, none twice: {log:?}");
        for ended in &self.ended {
            let number = self.states.iter().position(|s| Arc::ptr_eq(s, &ended.state)).unwrap() as i64;
            let stored = log.contains(&number);
            match &ended.result {
                Ok(_) => assert!(stored, "batch {number} is told to be stored"),
                Err(e) if e.outcome() == RequestOutcome::NotApplied => {
                    assert!(!stored, "batch {number} is told not to be");
                }
                Err(_) => {}
            }
        }
    }
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        8 => Just(Fault::None),
        1 => Just(Fault::Passing),
        1 => Just(Fault::Invalid),
        1 => Just(Fault::StoredUnknown),
        1 => Just(Fault::LostUnknown),
    ]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1..4).prop_map(|records| Step::Push { records }),
        4 => Just(Step::Send),
        6 => fault().prop_map(Step::Process),
        6 => Just(Step::Answer),
        1 => Just(Step::Disconnect),
        1 => Just(Step::Straggle),
        1 => Just(Step::Forget),
        2 => (0_u64..4_000).prop_map(|millis| Step::Wait { millis }),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1_000))]

    #[test]
    fn p3_p9_each_batch_is_stored_once_and_in_order_whatever_breaks(steps in prop::collection::vec(step(), 0..120)) {
        let mut world = World::new();
        for step in steps {
            world.step(step);
        }
        world.heal();
        world.check();
    }

    #[test]
    fn without_deadlines_and_lasting_faults_everything_is_stored(
        steps in prop::collection::vec(step(), 0..120),
    ) {
        let mut world = World::new();
        for step in steps {
            match step {
                Step::Wait { .. } | Step::Process(Fault::Invalid) | Step::Forget => {}
                step => world.step(step),
            }
        }
        world.heal();
        world.check();
        prop_assert!(world.ended.iter().all(|e| e.result.is_ok()));
        prop_assert_eq!(world.broker.log.len() as i64, world.pushed);
    }
}
