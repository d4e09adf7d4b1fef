//! Keeps what coordinators see of the topics in step with the topics.

use std::sync::Arc;

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::sync::watch;

use super::Directory;
use crate::coordinator::group::TopicsView;
use crate::topics::Topics;

/// The topics as groups see them, and the newest that shards were told.
pub(super) struct Follower {
    topics: Arc<Topics>,
    directory: ArcSwap<Directory>,
    seen: watch::Sender<Arc<TopicsView>>,
    /// Held through a change, so that no older one comes after it.
    changing: Mutex<()>,
}

impl Follower {
    pub(super) fn new(topics: &Arc<Topics>) -> Arc<Self> {
        let directory = Directory::of(topics.full_image());
        let seen = watch::Sender::new(directory.view());
        let (topics, directory) = (topics.clone(), ArcSwap::from_pointee(directory));
        Arc::new(Self { topics, directory, seen, changing: Mutex::new(()) })
    }

    /// What a shard sees.
    pub(super) fn world(&self) -> watch::Receiver<Arc<TopicsView>> {
        self.seen.subscribe()
    }

    /// The topics as they are now. Who has made a topic finds it here at once, and a shard that is asked after this was called
    /// has been told of it before.
    pub(super) fn directory(&self) -> Arc<Directory> {
        let known = self.directory.load_full();
        if known.revision() == self.topics.image().revision { known } else { self.follow() }
    }

    /// The directory is published first, so that what a shard names is found there.
    fn follow(&self) -> Arc<Directory> {
        let _one_at_a_time = self.changing.lock();
        let directory = Arc::new(Directory::of(self.topics.full_image()));
        self.directory.store(directory.clone());
        let view = directory.view();
        self.seen.send_if_modified(|before| {
            let different = *before != view;
            *before = view;
            different
        });
        directory
    }
}
