//! Follows the cluster's objects: one watch for each kind and namespace, merged into one [`Image`].

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use tokio::sync::watch;
use tokio_stream::StreamMap;
use tokio_util::sync::CancellationToken;

use super::image::{Identity, Image};
use crate::metadata::{Event, Kind, MetadataStore};

/// Kinds that live beside the Cluster.
const KINDS: [Kind; 5] = [Kind::Cluster, Kind::ClusterState, Kind::Broker, Kind::PartitionSlice, Kind::Topic];

/// Which watch: the kind, and the namespace where it is not the Cluster's own.
type Source = (Kind, Option<String>);

/// Publishes images until `stop`. None is published before all objects have been listed once: half of them could pass for
/// all.
pub async fn follow(
    identity: Identity,
    store: Arc<dyn MetadataStore>,
    images: watch::Sender<Arc<Image>>,
    stop: CancellationToken,
) {
    let mut follower = Follower { identity, store, image: Image::default(), unlisted: BTreeSet::new() };
    tokio::select! {
        () = follower.run(&images) => {}
        () = stop.cancelled() => {}
    }
}

struct Follower {
    identity: Identity,
    store: Arc<dyn MetadataStore>,
    image: Image,
    /// Watches whose objects have not all been told yet.
    unlisted: BTreeSet<Source>,
}

impl Follower {
    async fn run(&mut self, images: &watch::Sender<Arc<Image>>) {
        let mut watches: StreamMap<Source, BoxStream<'static, Event>> = StreamMap::new();
        loop {
            for source in self.sources() {
                if !watches.contains_key(&source) {
                    watches.insert(source.clone(), self.watch(&source));
                    self.unlisted.insert(source);
                }
            }
            let Some((source, event)) = watches.next().await else {
                // All have ended, as an embedded store's do when it closes.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            };
            self.take(&source, event);
            // What is there already comes along, so that thousands of objects are one image.
            while let Some(Some((source, event))) = watches.next().now_or_never() {
                self.take(&source, event);
            }
            self.forget_namespaces(&mut watches);
            if self.unlisted.is_empty() {
                self.image.complete = true;
                images.send_if_modified(|last| {
                    let changed = **last != self.image;
                    if changed {
                        *last = Arc::new(self.image.clone());
                    }
                    changed
                });
            }
        }
    }

    fn take(&mut self, source: &Source, event: Event) {
        if event == Event::Listed {
            self.unlisted.remove(source);
        }
        self.image.apply(&self.identity, event);
    }

    /// All watches that there should be.
    fn sources(&self) -> Vec<Source> {
        let own = KINDS.into_iter().map(|kind| (kind, None));
        own.chain(self.topic_namespaces().map(|namespace| (Kind::Topic, Some(namespace)))).collect()
    }

    /// Other namespaces with Topics of this Cluster.
    fn topic_namespaces(&self) -> impl Iterator<Item = String> {
        let status = self.image.cluster.as_ref().and_then(|cluster| cluster.spec.status.as_ref());
        let namespaces = status.map(|status| status.topic_namespaces.as_slice()).unwrap_or_default();
        namespaces.iter().filter(|namespace| **namespace != self.identity.namespace).cloned()
    }

    fn watch(&self, (kind, namespace): &Source) -> BoxStream<'static, Event> {
        match namespace {
            None => self.store.watch(*kind),
            Some(namespace) => self.store.in_namespace(namespace).watch(*kind),
        }
    }

    /// Namespaces that are not the Cluster's any more take their Topics along.
    fn forget_namespaces(&mut self, watches: &mut StreamMap<Source, BoxStream<'static, Event>>) {
        let wanted: BTreeSet<_> = self.sources().into_iter().collect();
        let gone: Vec<_> = watches.keys().filter(|source| !wanted.contains(source)).cloned().collect();
        for source in gone {
            watches.remove(&source);
            self.unlisted.remove(&source);
            self.image.topics.retain(|(namespace, _), _| Some(namespace) != source.1.as_ref());
        }
    }
}
