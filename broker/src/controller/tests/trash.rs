//! Deleting, bringing back, emptying the trash.

use super::*;

#[tokio::test]
async fn a_deleted_topic_is_not_served_and_comes_back_with_its_records() {
    let bench = Bench::new().await;
    let made = bench.create("a", 2).await;
    bench.append("a", b"one").await;
    let before = bench.batches("a").await;
    let held = bench.topics.image().partition("a", 0).unwrap().clone();
    let deleted = bench.controller.delete("a", Some(made.id)).await.unwrap();
    assert_eq!(deleted.trash, Some(Trash { deleted_at: NOW, purge_at: NOW + 86_400_000 }));
    assert!(bench.names().is_empty() && held.snapshot().closed);
    let bench = bench.restart().await;
    assert!(bench.names().is_empty());
    assert_eq!(bench.controller.list(true).await.unwrap(), [deleted]);
    let back = bench.controller.undelete(Deleted::Name("a".into()), None).await.unwrap();
    assert_eq!(back, made);
    assert_eq!(bench.batches("a").await, before);
    assert_eq!(bench.append("a", b"two").await, 1);
    let bench = bench.restart().await;
    assert_eq!(bench.controller.list(true).await.unwrap(), [made]);
    assert_eq!(bench.batches("a").await.len(), 2);
}

#[tokio::test]
async fn m10_a_topic_made_again_under_its_name_is_another_and_the_old_one_can_come_back_beside_it() {
    let bench = Bench::new().await;
    let old = bench.create("a", 1).await;
    bench.append("a", b"old").await;
    bench.controller.delete("a", None).await.unwrap();
    let new = bench.create("a", 1).await;
    assert_ne!(new.id, old.id);
    assert!(bench.batches("a").await.is_empty());
    let taken = bench.controller.undelete(Deleted::Id(old.id), None).await;
    assert!(matches!(taken, Err(TopicError::Exists(_))), "{taken:?}");
    let back = bench.controller.undelete(Deleted::Id(old.id), Some("a.Old")).await.unwrap();
    assert_eq!((back.name.as_str(), back.id), ("a.Old", old.id));
    assert_eq!(bench.batches("a.Old").await.len(), 1);
    assert_eq!(bench.restart().await.names(), ["a", "a.Old"]);
}

#[tokio::test]
async fn of_topics_deleted_under_one_name_the_last_comes_back() {
    let bench = Bench::new().await;
    bench.create("a", 1).await;
    bench.controller.delete("a", None).await.unwrap();
    bench.clock.advance(Duration::from_secs(1));
    let second = bench.create("a", 1).await;
    bench.controller.delete("a", None).await.unwrap();
    assert_eq!(bench.controller.undelete(Deleted::Name("a".into()), None).await.unwrap().id, second.id);
}

#[tokio::test]
async fn deleting_with_another_topics_id_is_refused() {
    let bench = Bench::new().await;
    bench.create("a", 1).await;
    let error = bench.controller.delete("a", Some(Uuid::from_u128(5))).await.unwrap_err();
    assert!(matches!(error, TopicError::OtherId { .. }), "{error}");
    assert_eq!(bench.names(), ["a"]);
}

#[tokio::test]
async fn q2_the_trash_is_emptied_after_its_window_of_log_time() {
    let bench = Bench::new().await;
    let made = bench.create("a", 2).await;
    bench.create("b", 1).await;
    bench.controller.delete("a", None).await.unwrap();
    bench.clock.step_wall(30 * 86_400_000);
    bench.clock.advance(Duration::from_secs(86_399));
    assert_eq!(bench.controller.purge().await, 0, "a wall clock that jumps empties no trash");
    bench.clock.advance(Duration::from_secs(1));
    assert_eq!(bench.controller.purge().await, 1);
    assert_eq!(bench.storage.logs().len(), 1, "only the other topic's log is left");
    let gone = bench.controller.undelete(Deleted::Id(made.id), None).await;
    assert!(matches!(gone, Err(TopicError::NotInTrash(_))), "{gone:?}");
    assert_eq!(bench.restart().await.controller.list(true).await.unwrap().len(), 1);
}
