//! What a start does with what it finds.

use super::*;

/// A crash between any two steps of a deletion and a bringing back.
#[tokio::test]
async fn a_start_finishes_what_a_crash_left_half_done() {
    let bench = Bench::new().await;
    let made = bench.create("a", 1).await;
    let served = bench.metadata.get(Kind::Topic, "a").await.unwrap().unwrap();
    bench.controller.delete("a", None).await.unwrap();
    let mut tombstone = bench.metadata.list(Kind::DeletedTopic).await.unwrap().remove(0);

    // Deleting: both objects are there.
    bench.metadata.create(Kind::Topic, "a", served.document.clone()).await.unwrap();
    let bench = bench.restart().await;
    assert!(bench.names().is_empty());
    assert!(bench.metadata.get(Kind::Topic, "a").await.unwrap().is_none());

    // Bringing back, before the topic is there: it is still in the trash.
    tombstone.document["restoring"] = json!(true);
    let tombstone = bench.metadata.replace(&tombstone).await.unwrap();
    let bench = bench.restart().await;
    assert!(bench.names().is_empty());
    assert!(bench.controller.list(true).await.unwrap()[0].trash.is_some());

    // Bringing back, and the topic is there.
    bench.metadata.create(Kind::Topic, "a", served.document).await.unwrap();
    let bench = bench.restart().await;
    assert_eq!(bench.controller.list(true).await.unwrap(), [made]);
    let gone = bench.metadata.delete(&tombstone).await;
    assert!(matches!(gone, Err(MetadataError::NotFound { .. })), "{gone:?}");
}

#[tokio::test]
async fn m9_a_crash_before_the_logs_were_made_is_gone_on_with() {
    let bench = Bench::new().await;
    bench.create("a", 2).await;
    let mut object = bench.metadata.get(Kind::Topic, "a").await.unwrap().unwrap();
    object.document["spec"]["partitions"] = json!(4);
    bench.metadata.replace(&object).await.unwrap();
    let bench = bench.restart().await;
    assert_eq!(bench.topics.image().topic("a").unwrap().partitions.len(), 4);
    assert_eq!(bench.storage.logs().len(), 4);
}

#[tokio::test]
async fn m9_a_log_that_is_missing_is_never_replaced_by_an_empty_one() {
    let bench = Bench::new().await;
    bench.create("a", 2).await;
    bench.create("b", 1).await;
    let log = bench.topics.image().partition("a", 1).unwrap().log().unwrap().id();
    bench.storage.delete(log).unwrap();
    let bench = bench.restart().await;
    assert_eq!(bench.names(), ["b"], "the others are served");
    assert_eq!(bench.storage.logs().len(), 2);
}

#[tokio::test]
async fn m9_logs_without_a_topic_are_kept_reported_and_can_be_adopted() {
    let bench = Bench::new().await;
    let made = bench.create("a", 2).await;
    bench.append("a", b"kept").await;
    let object = bench.metadata.get(Kind::Topic, "a").await.unwrap().unwrap();
    bench.metadata.delete(&object).await.unwrap();
    let bench = bench.restart().await;
    assert!(bench.names().is_empty());
    let orphans: Vec<_> = (0..2).map(|index| PartitionId { topic: made.id, index }).collect();
    assert_eq!(bench.controller.orphans().await, orphans);
    bench.clock.advance(DAY * 100);
    assert_eq!(bench.controller.purge().await, 0);
    let yaml = |partitions: i32| {
        format!(
            "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata:\n  name: b\n  annotations:\n    \
             taffrail.dev/adopt: {}\nspec:\n  partitions: {partitions}\n",
            made.id
        )
    };
    let refused = bench.controller.apply(topics(&yaml(1))).await.unwrap();
    assert!(refused.failed[0].1.contains("has 2"), "{refused:?}");
    let applied = bench.controller.apply(topics(&yaml(2))).await.unwrap();
    assert_eq!(applied.created, ["b"], "{applied:?}");
    let adopted = bench.controller.describe("b").await.unwrap();
    assert_eq!((adopted.id, adopted.partitions), (made.id, 2));
    assert_eq!(bench.batches("b").await.len(), 1);
    let again = bench.controller.apply(topics(&yaml(2))).await.unwrap();
    assert_eq!(again.unchanged, ["b"]);
}

#[tokio::test]
async fn d7_a_start_that_may_have_lost_records_raises_all_leader_epochs_also_of_what_is_in_the_trash() {
    let bench = Bench::new().await;
    bench.create("a", 2).await;
    bench.create("b", 1).await;
    bench.controller.delete("b", None).await.unwrap();
    let bench = bench.restart().await;
    assert_eq!(bench.epochs(), [Some(0); 3], "a complete start raises nothing");
    bench.disk.set_incomplete();
    let bench = bench.restart().await;
    assert_eq!(bench.epochs(), [Some(1); 3]);
    let bench = bench.restart().await;
    assert_eq!(bench.epochs(), [Some(1); 3], "once is enough");
}
