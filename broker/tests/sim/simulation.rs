//! One schedule: clients, a network and a broker in virtual time, with faults, until all is well again.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use taffrail_broker::coordinator::group::{Answer, GroupShard, Request, TopicPartition};
use taffrail_broker::coordinator::runtime::{Failure, Input, Output, Step};

use super::broker::{Broker, Core, Make, Out, told};
use super::client::{Client, Reply, State, What};
use super::counts::{Counts, Seen};
use super::rng::Rng;
use super::topics::Topics;

/// What is going to happen.
pub(crate) enum Happening {
    /// A request gets to the broker.
    Request(Box<Request>, Reply),
    /// An answer gets to the client.
    Answer(Reply, Result<Answer, Failure>),
    /// The broker asks for a member whose assignment changed, and sends it down its stream.
    Push(String, String),
    /// The client does something.
    Act(usize),
    /// The client does what it was told, between its heartbeats.
    React(usize, u32),
    /// The oldest append of this life of the broker is over.
    Append(u32),
    /// A trim of this life of the broker is over.
    Trim(u32, i64),
    /// A timer of the core is due.
    Timer,
    /// The broker comes back.
    Start,
    /// Something goes wrong.
    Fault,
}

pub(crate) struct Simulation {
    pub(crate) rng: Rng,
    pub(crate) now: Duration,
    pub(crate) broker: Broker,
    pub(crate) clients: Vec<Client>,
    pub(crate) topics: Topics,
    pub(crate) counts: Counts,
    pub(crate) faulty: bool,
    /// Once in so many appends the broker crashes.
    crash_rate: u64,
    happenings: BinaryHeap<Reverse<(Duration, u64)>>,
    by_number: HashMap<u64, Happening>,
    scheduled: u64,
    last_append: Duration,
    timer_due: Option<Duration>,
    pub(crate) next_commit: i64,
    pub(crate) processes: u32,
    pub(crate) steps: u32,
    /// When the first commit of a partition was acknowledged.
    pub(crate) acknowledged: HashMap<(String, TopicPartition), Duration>,
    last_owner: BTreeMap<(String, TopicPartition), usize>,
}

impl Simulation {
    pub(crate) fn new(seed: u64, make: Make) -> Self {
        let mut rng = Rng::new(seed);
        let topics = Topics::new(&mut rng);
        let mut broker = Broker::new(make);
        broker.world = Arc::new(topics.view());
        let crash_rate = [60, 150, 1_000_000][rng.index(3)];
        let mut this = Self {
            rng,
            now: Duration::from_secs(10),
            broker,
            clients: vec![],
            topics,
            counts: Counts::default(),
            faulty: true,
            crash_rate,
            happenings: BinaryHeap::new(),
            by_number: HashMap::new(),
            scheduled: 0,
            last_append: Duration::ZERO,
            timer_due: None,
            next_commit: 1,
            processes: 0,
            steps: 0,
            acknowledged: HashMap::new(),
            last_owner: BTreeMap::new(),
        };
        this.people();
        this.schedule(Duration::ZERO, Happening::Start);
        this.schedule(Duration::from_secs(1), Happening::Fault);
        this
    }

    pub(crate) fn millis(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.rng.below(to - from))
    }

    pub(crate) fn schedule(&mut self, after: Duration, happening: Happening) {
        self.scheduled += 1;
        self.happenings.push(Reverse((self.now + after, self.scheduled)));
        self.by_number.insert(self.scheduled, happening);
    }

    /// Until then, or until nothing happens any more.
    pub(crate) fn run(&mut self, until: Duration) {
        while let Some(Reverse((at, _))) = self.happenings.peek()
            && *at <= until
        {
            self.step();
        }
        self.now = self.now.max(until);
    }

    pub(crate) fn step(&mut self) {
        let Some(Reverse((at, number))) = self.happenings.pop() else { return };
        let happening = self.by_number.remove(&number).expect("each number is scheduled once");
        self.now = at;
        self.steps += 1;
        match happening {
            Happening::Request(request, reply) => {
                if self.broker.model.is_late_release(&request) {
                    let resumes = matches!(*request, Request::Join(_));
                    self.counts.saw(if resumes { Seen::LateResume } else { Seen::LateLetGo });
                }
                let outputs = self.broker.ask(*request, reply, self.now);
                self.carry_out(outputs);
            }
            Happening::Answer(reply, answer) => self.answered(reply, answer),
            Happening::Push(group, member) => self.push(&group, &member),
            Happening::Act(client) => self.act(client),
            Happening::React(client, session) => self.react(client, session),
            Happening::Append(life) if life == self.broker.life => self.append_is_over(),
            Happening::Trim(life, to) if life == self.broker.life => self.trim_is_over(to),
            Happening::Append(_) | Happening::Trim(..) => self.steps -= 1,
            Happening::Timer => self.timer(),
            Happening::Start => {
                let outputs = self.broker.start(self.now, &mut self.counts);
                self.carry_out(outputs);
            }
            Happening::Fault => self.fault(),
        }
        self.check_released();
        self.set_timer();
    }

    fn timer(&mut self) {
        self.timer_due = None;
        if self.broker.core.as_ref().and_then(Core::next_tick).is_none_or(|due| due > self.now) {
            self.steps -= 1;
            return;
        }
        self.apply(Input::Tick);
    }

    fn set_timer(&mut self) {
        let next = self.broker.core.as_ref().and_then(Core::next_tick);
        if let Some(due) = next
            && self.timer_due.is_none_or(|set| due < set || set < self.now)
        {
            self.timer_due = Some(due);
            self.schedule(due.saturating_sub(self.now), Happening::Timer);
        }
    }

    pub(crate) fn apply(&mut self, input: Input<GroupShard, Reply>) {
        let outputs = self.broker.apply(input, self.now);
        self.carry_out(outputs);
    }

    /// Carries the steps out in order; the broker may die before each of them.
    fn carry_out(&mut self, outputs: Vec<Out>) {
        for output in outputs {
            let step = output.step();
            if self.dies(step) {
                self.counts.crash_before(step);
                self.crash();
                return;
            }
            match output {
                Output::Append { step, batch, .. } => {
                    self.broker.append(step, batch);
                    self.last_append = self.last_append.max(self.now + self.millis_of_append());
                    let after = self.last_append.saturating_sub(self.now);
                    self.schedule(after, Happening::Append(self.broker.life));
                }
                Output::Trim(to) => {
                    let after = self.millis(1, 100);
                    self.schedule(after, Happening::Trim(self.broker.life, to));
                }
                Output::Answer(reply, answer) => {
                    self.check_answer(reply, &answer);
                    self.send_answer(reply, answer);
                }
                Output::Event(event) => {
                    for (group, member) in told(&event) {
                        let after = self.millis(1, 5);
                        self.schedule(after, Happening::Push(group.to_owned(), member.to_owned()));
                    }
                }
            }
        }
    }

    fn millis_of_append(&mut self) -> Duration {
        if self.rng.once_in(30) { self.millis(100, 800) } else { self.millis(1, 15) }
    }

    fn dies(&mut self, step: Step) -> bool {
        let rate = match step {
            Step::Changes => self.crash_rate,
            Step::Answer => 2 * self.crash_rate,
            Step::CheckpointBegin | Step::CheckpointParts | Step::CheckpointEnd | Step::Trim => self.crash_rate / 6,
        };
        self.faulty && self.rng.once_in(rate)
    }

    fn crash(&mut self) {
        let kept = self.rng.index(self.broker.appends_under_way() + 1);
        self.broker.crash(kept, &mut self.counts);
        self.restart();
    }

    fn restart(&mut self) {
        self.last_append = self.now;
        let after = self.millis(50, 600);
        self.schedule(after, Happening::Start);
    }

    fn append_is_over(&mut self) {
        let step = self.broker.under_way().expect("an append is under way");
        if self.faulty && self.rng.once_in(4 * self.crash_rate) {
            self.append_failed();
            return;
        }
        let offset = self.broker.persist(&mut self.counts).expect("an append is under way");
        if self.dies(step) {
            self.counts.crash_after(step);
            self.crash();
            return;
        }
        self.apply(Input::Appended(offset));
    }

    fn append_failed(&mut self) {
        if self.rng.once_in(2) {
            self.counts.saw(Seen::AppendFailed);
        } else {
            self.counts.saw(Seen::AppendUnknown);
            self.broker.persist(&mut self.counts);
        }
        for output in self.broker.fail() {
            if let Output::Answer(reply, answer) = output {
                self.send_answer(reply, answer);
            }
        }
        self.restart();
    }

    fn trim_is_over(&mut self, to: i64) {
        self.broker.trim(to);
        self.counts.saw(Seen::Trimmed);
        if self.dies(Step::Trim) {
            self.counts.crash_after(Step::Trim);
            self.crash();
            return;
        }
        self.apply(Input::Trimmed);
    }

    /// Over the network to the broker.
    pub(crate) fn send(&mut self, client: usize, what: What, request: Request) {
        let (session, sent) = (self.clients[client].session, self.now);
        let reply = Reply { client, session, what, sent };
        if self.loses(Seen::RequestLost) {
            return;
        }
        if self.faulty && self.rng.once_in(15) {
            self.counts.saw(Seen::RequestDoubled);
            let after = self.delay(Seen::RequestLate);
            self.schedule(after, Happening::Request(Box::new(request.clone()), reply));
        }
        let after = self.delay(Seen::RequestLate);
        self.schedule(after, Happening::Request(Box::new(request), reply));
    }

    /// Over the network to the broker, overtaken by what is sent for a while.
    pub(crate) fn send_late(&mut self, client: usize, what: What, request: Request) {
        let (session, sent) = (self.clients[client].session, self.now);
        let reply = Reply { client, session, what, sent };
        self.counts.saw(Seen::RequestLate);
        let after = self.millis(200, 5_000);
        self.schedule(after, Happening::Request(Box::new(request), reply));
    }

    /// Over the network to the client.
    fn send_answer(&mut self, reply: Reply, answer: Result<Answer, Failure>) {
        if self.loses(Seen::AnswerLost) {
            return;
        }
        if self.faulty && self.rng.once_in(15) {
            self.counts.saw(Seen::AnswerDoubled);
            let after = self.delay(Seen::AnswerLate);
            self.schedule(after, Happening::Answer(reply, answer.clone()));
        }
        let after = self.delay(Seen::AnswerLate);
        self.schedule(after, Happening::Answer(reply, answer));
    }

    fn loses(&mut self, seen: Seen) -> bool {
        let lost = self.faulty && self.rng.once_in(12);
        if lost {
            self.counts.saw(seen);
        }
        lost
    }

    fn delay(&mut self, seen: Seen) -> Duration {
        if self.faulty && self.rng.once_in(25) {
            self.counts.saw(seen);
            return self.millis(1_000, 5_000);
        }
        self.millis(1, 50)
    }

    fn push(&mut self, group: &str, member: &str) {
        let mut clients = self.clients.iter().enumerate();
        let found = clients.find(|(_, client)| client.group == group && client.member == member);
        if let Some((at, client)) = found
            && client.state == State::In
        {
            let request = Request::Refresh { group: group.to_owned(), member: member.to_owned(), epoch: client.epoch };
            let (session, sent) = (client.session, self.now);
            let reply = Reply { client: at, session, what: What::Membership, sent };
            let outputs = self.broker.ask(request, reply, self.now);
            self.carry_out(outputs);
        }
    }

    /// C6, by what members believe: whoever else believes to own it has been fenced, unless this one has: its answer was late.
    pub(crate) fn take(&mut self, client: usize, partition: TopicPartition) {
        let (group, taker) = (self.clients[client].group.clone(), &self.clients[client]);
        if !self.broker.model.is_current(&group, &taker.member, taker.epoch) {
            return;
        }
        for (at, other) in self.clients.iter().enumerate() {
            if at != client && other.group == group && other.owned.contains(&partition) {
                let current = self.broker.model.is_current(&group, &other.member, other.epoch);
                let (member, other) = (&self.clients[client].member, &other.member);
                assert!(!current, "C6: {member} takes {partition:?}, which {other} owns");
            }
        }
        if self.last_owner.insert((group, partition), client).is_some_and(|before| before != client) {
            self.counts.saw(Seen::HandedOver);
        }
    }
}
