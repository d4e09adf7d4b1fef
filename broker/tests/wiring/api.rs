//! One broker's way to the cluster's objects, which do not lie on the simulated network: it can be cut.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use taffrail_broker::election::{EmbeddedLease, LeaseApi, Seen, Unread, Wanted, WriteError};
use taffrail_broker::metadata::{Event, Kind, MetadataError, MetadataStore, Object};
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// How long a call waits for an answer that does not come.
const PATIENCE: Duration = Duration::from_secs(1);

/// What gets through.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Everything.
    Open,
    /// Nothing.
    Cut,
    /// Calls; their answers and what watches tell are not heard.
    Deaf,
}

/// The way as it is now, which tests change.
pub(crate) type Ways = Arc<watch::Sender<Way>>;

/// Makes a call as the way is now; `None`: no answer came, be it that the call was not made.
async fn ask<T>(ways: &Ways, patience: Duration, call: impl Future<Output = T>) -> Option<T> {
    let (way, end) = (*ways.borrow(), Instant::now() + patience);
    let answer = match way {
        Way::Open => return Some(call.await),
        Way::Cut => None,
        Way::Deaf => Some(call.await),
    };
    drop(answer);
    sleep_until(end).await;
    None
}

/// The objects.
pub(crate) struct Store {
    pub(crate) inner: Arc<dyn MetadataStore>,
    pub(crate) ways: Ways,
    /// When calls have to be over.
    pub(crate) end: Option<Instant>,
}

impl Store {
    async fn read<T>(&self, call: BoxFuture<'_, Result<T, MetadataError>>) -> Result<T, MetadataError> {
        let lost = || Err(MetadataError::Unavailable("the API is cut off".to_owned()));
        ask(&self.ways, self.patience(), call).await.unwrap_or_else(lost)
    }

    async fn change<T>(&self, call: BoxFuture<'_, Result<T, MetadataError>>) -> Result<T, MetadataError> {
        let lost = || Err(MetadataError::Unknown("the API is cut off".to_owned()));
        ask(&self.ways, self.patience(), call).await.unwrap_or_else(lost)
    }

    fn patience(&self) -> Duration {
        self.end.map_or(PATIENCE, |end| PATIENCE.min(end.saturating_duration_since(Instant::now())))
    }
}

impl MetadataStore for Store {
    fn get<'a>(&'a self, kind: Kind, name: &'a str) -> BoxFuture<'a, Result<Option<Object>, MetadataError>> {
        self.read(self.inner.get(kind, name)).boxed()
    }

    fn list(&self, kind: Kind) -> BoxFuture<'_, Result<Vec<Object>, MetadataError>> {
        self.read(self.inner.list(kind)).boxed()
    }

    fn watch(&self, kind: Kind) -> BoxStream<'static, Event> {
        let ways = self.ways.clone();
        // What happens meanwhile is told in its order once the way is open again.
        let told = self.inner.watch(kind).then(move |event| {
            let mut way = ways.subscribe();
            async move {
                // It does not end as long as it is asked.
                let _ = way.wait_for(|way| *way == Way::Open).await;
                event
            }
        });
        told.boxed()
    }

    fn create<'a>(
        &'a self,
        kind: Kind,
        name: &'a str,
        document: Value,
    ) -> BoxFuture<'a, Result<Object, MetadataError>> {
        self.change(self.inner.create(kind, name, document)).boxed()
    }

    fn replace<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<Object, MetadataError>> {
        self.change(self.inner.replace(object)).boxed()
    }

    fn delete<'a>(&'a self, object: &'a Object) -> BoxFuture<'a, Result<(), MetadataError>> {
        self.change(self.inner.delete(object)).boxed()
    }

    fn in_namespace(&self, namespace: &str) -> Arc<dyn MetadataStore> {
        Arc::new(Self { inner: self.inner.in_namespace(namespace), ways: self.ways.clone(), end: self.end })
    }

    fn until(&self, end: Instant) -> Arc<dyn MetadataStore> {
        Arc::new(Self { inner: self.inner.until(end), ways: self.ways.clone(), end: Some(end) })
    }
}

/// The controller's Lease.
pub(crate) struct Lease {
    pub(crate) inner: EmbeddedLease,
    pub(crate) ways: Ways,
}

impl LeaseApi for Lease {
    fn read(&self) -> BoxFuture<'_, Result<Option<Seen>, Unread>> {
        async move { ask(&self.ways, PATIENCE, self.inner.read()).await.unwrap_or(Err(Unread)) }.boxed()
    }

    fn write(&self, wanted: Wanted) -> BoxFuture<'_, Result<Seen, WriteError>> {
        async move { ask(&self.ways, PATIENCE, self.inner.write(wanted)).await.unwrap_or(Err(WriteError::Unknown)) }
            .boxed()
    }
}
