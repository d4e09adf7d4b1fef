//! A store that goes back in time.

use taffrail_crds::last_seen;

use super::*;

impl Cluster {
    /// The topic's slice.
    async fn slice(&self) -> crate::metadata::Object {
        self.store.get(Kind::PartitionSlice, &format!("{TOPIC}-0")).await.unwrap().unwrap()
    }

    /// Puts another state of the slice in its place, whatever its rules say.
    async fn put_back(&self, document: Value) {
        let object = self.slice().await;
        self.store.delete(&object).await.unwrap();
        self.store.create(Kind::PartitionSlice, &object.name, document).await.unwrap();
    }

    /// Waits until a partition is as is expected.
    async fn wait_for(&self, place: usize, holds: impl Fn(&PartitionState) -> bool) -> PartitionState {
        let end = Instant::now() + PATIENCE;
        loop {
            let slice: PartitionSliceSpec = spec_of(&self.slice().await).unwrap();
            if holds(&slice.partitions[place]) {
                return slice.partitions[place].clone();
            }
            assert!(Instant::now() < end, "{slice:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn m5_partitions_that_went_back_are_frozen_until_what_was_seen_last_is_brought_back() {
    let cluster = Cluster::new(1, PATIENT).await;
    let zero = cluster.start(0, 1, None, Disk::new()).await;
    cluster.topic(2, 1).await;
    zero.wait("served", |zero| zero.leaders() == Some(spread(&[(Some(0), 2)]))).await;
    let old = cluster.slice().await;
    let mut new = old.clone();
    let epoch = &mut new.document["spec"]["partitions"][0]["partitionEpoch"];
    let seen = epoch.as_i64().unwrap() as i32 + 1;
    *epoch = seen.into();
    cluster.store.replace(&new).await.unwrap();
    let shows = |zero: &Running, epoch| {
        let image = zero.topics.image();
        image.topic("t").is_ok_and(|topic| topic.assignments[0].partition_epoch == epoch)
    };
    zero.wait("what is new is seen", |zero| shows(zero, seen)).await;

    cluster.put_back(old.document).await;
    let state = cluster.wait_for(0, PartitionState::is_frozen).await;
    assert_eq!((state.leader, state.seen_epoch), (None, Some(seen)));
    zero.wait("it says why", |zero| zero.fault().is_some_and(|fault| fault.contains("went back in time"))).await;
    // It has caught up in epochs, which makes it no newer.
    assert_eq!(state.partition_epoch, seen);
    zero.wait("the other is served", |zero| zero.leaders() == Some(spread(&[(None, 1), (Some(0), 1)]))).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(cluster.wait_for(0, |_| true).await, state, "nothing is done about it");
    assert_eq!(cluster.wait_for(1, |_| true).await.leader, Some(0));

    let back = last_seen::brought_back(spec_of(&new).unwrap());
    new.document["spec"] = serde_json::to_value(back).unwrap();
    cluster.put_back(new.document).await;
    zero.wait("served again", |zero| zero.leaders() == Some(spread(&[(Some(0), 2)]))).await;
    zero.leave().await;
}
