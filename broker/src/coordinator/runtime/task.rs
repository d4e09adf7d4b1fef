//! The task around a core: reads the log, appends to it, keeps time. It decides nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use futures::future::{BoxFuture, OptionFuture};
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::handle::{Ask, Phase, Reply, Shared, count};
use super::load::Loaded;
use super::read::{NotLoaded, read_log};
use super::shard::Shard;
use super::step::{Input, Output, Step};
use crate::context::Context;
use crate::coordinator::{Env, StateMachine};
use crate::crash::{self, CrashPoint};
use crate::partition::{Acks, AppendError, AppendRequest, Order, Partition, PendingAppend};

/// Requests taken at once.
const REQUESTS_AT_ONCE: usize = 1_024;
/// After a failure the log is read again no sooner than this.
const PAUSE: Duration = Duration::from_millis(200);
/// How long what is in flight may take at a stop: the log writes in milliseconds, or not at all.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// What a coordinator needs beside its log.
pub struct Setup<M: StateMachine> {
    /// For logs: which shard this is.
    pub name: Arc<str>,
    /// Gives an empty machine.
    pub make: fn() -> M,
    /// Clock.
    pub context: Context,
    /// The world outside, as it changes.
    pub world: watch::Receiver<M::World>,
    /// Is told the shard's events. Must not block.
    pub events: Arc<dyn Fn(M::Event) + Send + Sync>,
    /// When checkpoints are due.
    pub limits: Limits,
}

pub(super) struct Task<M: StateMachine> {
    partition: Partition,
    setup: Setup<M>,
    shared: Arc<Shared>,
    queue: mpsc::Receiver<Ask<M>>,
    stop: CancellationToken,
}

/// Why a shard is not served any more.
enum Ended {
    /// The broker stops.
    Stopped,
    /// The log could not be written.
    Failed(AppendError),
}

/// What is under way.
struct Flight {
    appends: VecDeque<PendingAppend>,
    trim: Option<BoxFuture<'static, ()>>,
    order: Order,
    leader_epoch: i32,
}

impl<M: StateMachine> Task<M> {
    pub(super) fn new(
        partition: Partition,
        setup: Setup<M>,
        shared: Arc<Shared>,
        queue: mpsc::Receiver<Ask<M>>,
        stop: CancellationToken,
    ) -> Self {
        Self { partition, setup, shared, queue, stop }
    }

    pub(super) async fn run(mut self) {
        let stop = self.stop.clone();
        let name = self.setup.name.clone();
        while !self.partition.snapshot().closed && !stop.is_cancelled() {
            let leader_epoch = self.partition.snapshot().leader_epoch;
            let loaded = match stop.run_until_cancelled(self.load()).await {
                Some(Ok(loaded)) => loaded,
                Some(Err(error)) if error.is_lasting() => {
                    tracing::error!(shard = &*name, %error, "the coordinator's log cannot be read; it is left as it is");
                    self.shared.enter(Phase::Unreadable(error.to_string().into()));
                    stop.cancelled().await;
                    break;
                }
                Some(Err(error)) => {
                    tracing::warn!(shard = &*name, %error, "the coordinator's log cannot be read now: trying again");
                    stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
                    continue;
                }
                None => break,
            };
            let ended = self.serve(loaded, leader_epoch).await;
            if let Ended::Failed(error) = ended {
                tracing::warn!(shard = &*name, %error, "the coordinator's log was not written: it is read again");
                self.shared.enter(Phase::Loading);
                stop.run_until_cancelled(tokio::time::sleep(PAUSE)).await;
            }
        }
        self.shared.enter(Phase::Closed);
    }

    async fn load(&self) -> Result<Loaded<M>, NotLoaded> {
        let began = self.setup.context.clock().since_boot();
        let (loaded, records) = read_log(&self.partition, self.setup.make).await?;
        let took = self.setup.context.clock().since_boot().saturating_sub(began);
        self.shared.status.load_millis.store(took.as_millis() as u64, Relaxed);
        self.shared.status.loaded_records.store(records, Relaxed);
        tracing::debug!(shard = &*self.setup.name, records, ?took, "the coordinator is loaded");
        Ok(loaded)
    }

    /// Serves until the log fails or the broker stops.
    async fn serve(&mut self, loaded: Loaded<M>, leader_epoch: i32) -> Ended {
        let mut flight = Flight { appends: VecDeque::new(), trim: None, order: Order::default(), leader_epoch };
        let world = self.setup.world.borrow_and_update().clone();
        let env = self.env(&world);
        let (mut shard, outputs) = Shard::new(loaded, self.setup.limits, &env);
        self.carry_out(outputs, &mut flight);
        self.shared.enter(Phase::Serving);
        let ended = self.serve_loaded(&mut shard, &mut flight, world).await;
        if let Ended::Failed(_) = ended {
            // Refused before it is told, so that nobody who asks again at once is told the same of nothing.
            self.shared.enter(Phase::Loading);
        } else {
            self.shared.enter(Phase::Closed);
        }
        self.carry_out(shard.fail(), &mut flight);
        while self.queue.try_recv().is_ok() {}
        ended
    }

    async fn serve_loaded(
        &mut self,
        shard: &mut Shard<M, Reply<M>>,
        flight: &mut Flight,
        mut world: M::World,
    ) -> Ended {
        let stop = self.stop.clone();
        let mut asked = Vec::new();
        loop {
            let tick = OptionFuture::from(shard.next_tick().map(|due| tokio::time::sleep(self.until(due))));
            let appended = OptionFuture::from(flight.appends.front_mut());
            let trimmed = OptionFuture::from(flight.trim.as_mut());
            let inputs = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                Some(appended) = appended => match flight.appended(appended) {
                    Ok(offset) => vec![Input::Appended(offset)],
                    Err(error) => return Ended::Failed(error),
                },
                Some(()) = trimmed => {
                    flight.trim = None;
                    count(&self.shared.status.checkpoints);
                    vec![Input::Trimmed]
                }
                Some(()) = tick => vec![Input::Tick],
                changed = self.setup.world.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    world = self.setup.world.borrow_and_update().clone();
                    vec![Input::World]
                }
                _ = self.queue.recv_many(&mut asked, REQUESTS_AT_ONCE), if !shard.is_saturated() => {
                    asked.drain(..).map(|Ask { request, reply }| Input::Request(request, reply)).collect()
                }
            };
            let outputs = shard.apply(inputs, &self.env(&world));
            self.carry_out(outputs, flight);
        }
        self.finish(shard, flight, &world).await
    }

    /// Waits for what is in flight, so that it is answered.
    async fn finish(&self, shard: &mut Shard<M, Reply<M>>, flight: &mut Flight, world: &M::World) -> Ended {
        let last_words = async {
            while !shard.is_settled() {
                let Some(append) = flight.appends.front_mut() else { break };
                let Ok(offset) = append.await.and_then(|appended| flight.appended(Ok(appended))) else { break };
                let outputs = shard.apply([Input::Appended(offset)], &self.env(world));
                self.carry_out(outputs, flight);
            }
        };
        let _ = tokio::time::timeout(LAST_WORDS, last_words).await;
        Ended::Stopped
    }

    fn env<'a>(&self, world: &'a M::World) -> Env<'a, M::World> {
        let context = &self.setup.context;
        Env {
            now: context.clock().since_boot(),
            log_millis: context.log_millis(),
            wall_millis: context.wall_millis(),
            world,
        }
    }

    fn until(&self, due: Duration) -> Duration {
        due.saturating_sub(self.setup.context.clock().since_boot())
    }

    fn carry_out(&self, outputs: Vec<Output<M, Reply<M>>>, flight: &mut Flight) {
        for output in outputs {
            crash::hit(crash_point(output.step()));
            match output {
                Output::Append { batch, header, .. } => {
                    let request = AppendRequest {
                        batch,
                        max_timestamp: header.max_timestamp,
                        header,
                        acks: Acks::All,
                        leader_epoch: Some(flight.leader_epoch),
                        permit: None,
                        order: Some(flight.order.clone()),
                    };
                    flight.appends.push_back(self.partition.append(request));
                }
                Output::Trim(offset) => flight.trim = Some(Box::pin(trim(self.partition.clone(), offset))),
                // Whoever does not wait any more needs no answer.
                Output::Answer(reply, answer) => drop(reply.send(answer)),
                Output::Event(event) => (self.setup.events)(event),
            }
        }
    }
}

impl Flight {
    /// The oldest append has ended.
    fn appended(&mut self, result: Result<crate::partition::Appended, AppendError>) -> Result<i64, AppendError> {
        self.appends.pop_front();
        Ok(result?.base_offset.expect("an append that is acknowledged by all, and has no producer, has an offset"))
    }
}

/// A trim that fails is made up for by the next one.
async fn trim(partition: Partition, offset: i64) {
    if let Err(error) = partition.delete_records(offset).await {
        tracing::warn!(%error, offset, "a coordinator's log was not trimmed; the next checkpoint tries again");
    }
}

fn crash_point(step: Step) -> CrashPoint {
    match step {
        Step::Changes => CrashPoint::CoordinatorAppend,
        Step::CheckpointBegin => CrashPoint::CoordinatorCheckpointBegin,
        Step::CheckpointParts => CrashPoint::CoordinatorCheckpointParts,
        Step::CheckpointEnd => CrashPoint::CoordinatorCheckpointEnd,
        Step::Trim => CrashPoint::CoordinatorTrim,
        Step::Answer => CrashPoint::CoordinatorAnswer,
    }
}
