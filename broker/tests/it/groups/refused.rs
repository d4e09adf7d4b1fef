//! A coordinator that cannot answer now: what a client is told, over the wire.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Instant;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use taffrail_broker::coordinator::group::Request;
use taffrail_proto::v1::{self, Outcome, Reason};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::{commit, committed};
use crate::harness::{PATIENCE, TestBroker, log_error};

async fn commit_outside(broker: &TestBroker, offset: i64) -> Result<(), Status> {
    let offsets = vec![commit("t", 0, offset)];
    let request = v1::CommitOffsetsRequest { group: "g".to_owned(), offsets, ..Default::default() };
    broker.groups().commit_offsets(request).await.map(|answer| assert_eq!(answer.into_inner().errors, []))
}

/// Asks until it is refused for this reason.
async fn refused(broker: &TestBroker, reason: Reason) -> Status {
    let began = Instant::now();
    loop {
        // Many at once: one that finds room waits behind all that is in line.
        let mut answers: FuturesUnordered<_> = (0..64).map(|_| commit_outside(broker, 2)).collect();
        while let Some(answer) = answers.next().await {
            if let Err(status) = answer
                && log_error(&status).reason() == reason
            {
                return status;
            }
        }
        assert!(began.elapsed() < PATIENCE, "never refused for {reason:?}");
    }
}

/// Code, and the least wait in milliseconds.
fn check(status: &Status, code: Code, wait: u32) {
    let error = log_error(status);
    assert_eq!((status.code(), error.outcome()), (code, Outcome::NotApplied), "{error:?}");
    assert!(error.retriable && error.retry_after_ms == wait, "{error:?}");
    let retry = status.get_details_retry_info().unwrap();
    assert_eq!(retry.retry_delay.unwrap().as_millis(), u128::from(wait), "standard tools read the same");
}

#[tokio::test]
async fn c2_while_a_coordinator_reads_its_log_clients_are_told_to_ask_again() {
    let broker = TestBroker::start().await;
    broker.topic("t", 1).await;
    commit_outside(&broker, 1).await.unwrap();
    // Whenever its log is not written the coordinator reads it again before it answers.
    broker.disk.set_full(true);
    check(&refused(&broker, Reason::CoordinatorLoading).await, Code::Unavailable, 50);
    broker.disk.set_full(false);
    let began = Instant::now();
    while commit_outside(&broker, 3).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "the coordinator does not come back");
    }
    assert_eq!(committed(&broker, "g").await, [(0, Some(3))]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_coordinator_with_too_much_in_line_says_when_to_come_again() {
    let broker = TestBroker::start().await;
    broker.topic("t", 100).await;
    let offsets = (0..100).map(|partition| commit("t", partition, 1)).collect();
    let request = v1::CommitOffsetsRequest { group: "g".to_owned(), offsets, ..Default::default() };
    broker.groups().commit_offsets(request).await.unwrap();
    let enough = Arc::new(AtomicBool::new(false));
    // Quick to ask, slow to answer, and more who ask than processors that answer: the line is always full.
    let flood = || {
        let (groups, done) = (broker.broker.groups.clone(), enough.clone());
        std::thread::spawn(move || {
            while !done.load(Relaxed) {
                drop(groups.ask("g", Request::FetchOffsets { group: "g".to_owned(), partitions: None }));
            }
        })
    };
    let floods: Vec<_> = (0..4).map(|_| flood()).collect();
    let status = refused(&broker, Reason::QuotaExceeded).await;
    enough.store(true, Relaxed);
    for flood in floods {
        flood.join().unwrap();
    }
    check(&status, Code::ResourceExhausted, 100);
    let began = Instant::now();
    while commit_outside(&broker, 3).await.is_err() {
        assert!(began.elapsed() < PATIENCE, "the line does not get shorter");
    }
    assert_eq!(committed(&broker, "g").await[0], (0, Some(3)));
}
