//! Tells another broker of partitions that somebody there waits at.

use std::collections::HashMap;
use std::sync::Arc;

use taffrail_proto::internal::v1::{ObserveRequest, ObserveResponse};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::served;
use crate::partition::{Partition, Waiter};
use crate::peers::wire;
use crate::service::Broker;
use crate::service::call::Call;

/// Answers that wait to be sent.
const ANSWERS_AHEAD: usize = 64;

type Answers = ReceiverStream<Result<ObserveResponse, Status>>;

pub(super) fn begin(broker: Arc<Broker>, call: Call, inbound: Streaming<ObserveRequest>) -> Answers {
    let (answers, outbound) = mpsc::channel(ANSWERS_AHEAD);
    tokio::spawn(async move {
        // Whoever waits here asks again, and finds out.
        let ended = call.connection.drain.announced.run_until_cancelled(run(&broker, inbound, &answers)).await;
        if let Some(Err(status)) = ended {
            let _ = answers.send(Err(status)).await;
        }
    });
    ReceiverStream::new(outbound)
}

async fn run(
    broker: &Broker,
    mut inbound: Streaming<ObserveRequest>,
    answers: &mpsc::Sender<Result<ObserveResponse, Status>>,
) -> Result<(), Status> {
    let waiter = Waiter::new();
    let mut waiting: HashMap<u64, Partition> = HashMap::new();
    loop {
        let mut due = Vec::new();
        tokio::select! {
            biased;
            () = answers.closed() => return Ok(()),
            tokens = waiter.ready() => {
                due.extend(tokens.into_iter().filter_map(|token| Some((token, Some(waiting.remove(&token)?)))));
            }
            request = inbound.message() => {
                let Some(request) = request? else { return Ok(()) };
                let (token, isolation) = (request.token, wire::isolation(request.committed));
                match served(&broker.topics, request.partition) {
                    Ok(partition) if partition.arm(request.beyond, isolation, &waiter, token) => {
                        waiting.insert(token, partition);
                    }
                    Ok(partition) => due.push((token, Some(partition))),
                    Err(_) => due.push((token, None)),
                }
            }
        }
        for (token, partition) in due {
            let snapshot = partition.map(|partition| partition.snapshot()).filter(|snapshot| !snapshot.closed);
            let answer = ObserveResponse { token, state: snapshot.as_ref().map(wire::state) };
            if answers.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
        }
    }
}
