//! Partitions of another broker that somebody here waits at: it tells once for each when there is more.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use taffrail_proto::internal::v1::{ObserveRequest, ObserveResponse, PartitionRef, PartitionState};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::UnboundedReceiverStream;

use super::connection::{Connector, Purpose};

/// After the stream broke, before those who wait look for themselves.
const PAUSE: Duration = Duration::from_millis(100);

/// A question that is answered when there is more.
pub(crate) struct Watch {
    pub(crate) partition: PartitionRef,
    pub(crate) beyond: i64,
    pub(crate) committed: bool,
    /// Dropped without an answer when the broker cannot be asked.
    pub(crate) answer: oneshot::Sender<Option<PartitionState>>,
}

/// The way to ask. There is one question at a time for each partition and isolation, so that what is in line is bounded.
pub(crate) struct Watches(mpsc::UnboundedSender<Watch>);

impl Watches {
    pub(crate) fn ask(&self, watch: Watch) {
        // If nobody takes it the answer is dropped, which says so.
        let _ = self.0.send(watch);
    }
}

pub(super) fn start(connector: Arc<Connector>) -> Watches {
    let (watches, queue) = mpsc::unbounded_channel();
    tokio::spawn(run(connector, queue));
    Watches(watches)
}

async fn run(connector: Arc<Connector>, mut queue: mpsc::UnboundedReceiver<Watch>) {
    while let Some(first) = queue.recv().await {
        let mut asked = HashMap::from([(0, first)]);
        let moved = connector.moved();
        tokio::select! {
            biased;
            () = follow(&connector, &mut queue, &mut asked) => {}
            () = moved => {}
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// Until the stream breaks, or nobody asks any more.
async fn follow(connector: &Connector, queue: &mut mpsc::UnboundedReceiver<Watch>, asked: &mut HashMap<u64, Watch>) {
    let Ok(mut client) = connector.client(Purpose::Control) else { return };
    let (requests, outbound) = mpsc::unbounded_channel();
    for (token, watch) in &*asked {
        let _ = requests.send(request(*token, watch));
    }
    let mut inbound = match client.observe(UnboundedReceiverStream::new(outbound)).await {
        Ok(answers) => answers.into_inner(),
        Err(status) => {
            connector.failed(&status);
            return;
        }
    };
    connector.reached();
    let mut last_token = 0;
    loop {
        tokio::select! {
            answer = inbound.message() => match answer {
                Ok(Some(ObserveResponse { token, state })) => {
                    if let Some(watch) = asked.remove(&token) {
                        let _ = watch.answer.send(state);
                    }
                }
                Ok(None) | Err(_) => return,
            },
            watch = queue.recv() => {
                let Some(watch) = watch else { return };
                last_token += 1;
                let _ = requests.send(request(last_token, &watch));
                asked.insert(last_token, watch);
            }
        }
    }
}

fn request(token: u64, watch: &Watch) -> ObserveRequest {
    ObserveRequest { token, partition: Some(watch.partition), beyond: watch.beyond, committed: watch.committed }
}
