//! Watches: what the API server has, kept here, and which Clusters and Topics have to be looked at when it changes.
//!
//! Each kind is watched once. What a malformed object breaks is that object alone. What the stores keep is stripped of
//! `managedFields`, which are larger than the rest; of kinds whose content nobody reads, not even the metadata is kept.

mod route;
mod stores;

use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::StreamExt as _;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::core::{DeserializeGuard, PartialObjectMeta as Meta};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::reflector::ObjectRef;
use kube::runtime::reflector::store::Writer;
use kube::runtime::watcher::{Config, Event, watcher};
use kube::{Api, Resource};
use serde::de::DeserializeOwned;
use tokio::task::JoinSet;

use crate::cluster::labels;
pub use route::{Queues, Router, Touch};
pub use stores::{ClusterObject, Stores, TopicObject};

/// An object whose content may be malformed.
pub type Guarded<K> = DeserializeGuard<K>;

/// Starts all watches as tasks; what they find goes to the stores and, as what has to be looked at, to the queues.
pub fn start(client: &kube::Client, queues: Queues) -> (Arc<Stores>, JoinSet<()>) {
    let mut tasks = JoinSet::new();
    let (stores, writers) = stores::new();
    let router = Arc::new(Router::new(stores.clone(), queues));
    let all = Config::default;
    let ours = || Config::default().labels(labels::CLUSTER);

    watch(&mut tasks, client, all(), Some(writers.clusters), &router, Router::cluster);
    watch(&mut tasks, client, all(), Some(writers.topics), &router, Router::topic);
    watch(&mut tasks, client, all(), Some(writers.slices), &router, Router::slice);
    watch(&mut tasks, client, all(), Some(writers.states), &router, Router::state);
    watch(&mut tasks, client, all(), Some(writers.brokers), &router, Router::broker);
    watch(&mut tasks, client, ours(), Some(writers.budgets), &router, Router::budget);
    watch(&mut tasks, client, ours(), Some(writers.pods), &router, Router::pod);
    watch(&mut tasks, client, all(), Some(writers.nodes), &router, Router::node);
    watch::<Meta<PersistentVolumeClaim>>(&mut tasks, client, ours(), None, &router, Router::child);
    watch::<Meta<StatefulSet>>(&mut tasks, client, ours(), None, &router, Router::child);
    watch::<Meta<ConfigMap>>(&mut tasks, client, ours(), None, &router, Router::child);
    watch::<Meta<Service>>(&mut tasks, client, ours(), None, &router, Router::child);
    watch::<Meta<NetworkPolicy>>(&mut tasks, client, ours(), None, &router, Router::child);
    watch::<Meta<ServiceAccount>>(&mut tasks, client, ours(), None, &router, Router::child);
    watch::<Meta<Role>>(&mut tasks, client, ours(), None, &router, Router::child);
    watch::<Meta<RoleBinding>>(&mut tasks, client, ours(), None, &router, Router::child);
    (stores, tasks)
}

/// Follows a watch for ever. `touched` is asked about each object that changed, with whether it is gone, after the store
/// knows of it; while a list comes in, at its end.
fn watch<K>(
    tasks: &mut JoinSet<()>,
    client: &kube::Client,
    config: Config,
    mut writer: Option<Writer<K>>,
    router: &Arc<Router>,
    touched: fn(&Router, &K, bool) -> Vec<Touch>,
) where
    K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
    K::DynamicType: Eq + Hash + Clone + Default + Send + Sync,
{
    let (api, router) = (Api::<K>::all(client.clone()), Arc::clone(router));
    tasks.spawn(async move {
        let strip = |object: &mut K| object.meta_mut().managed_fields = None;
        let mut events = Box::pin(watcher(api, config).default_backoff().modify(strip));
        let mut listed = Vec::new();
        while let Some(event) = events.next().await {
            let event = match event {
                Ok(event) => event,
                Err(error) => {
                    let kind = K::kind(&K::DynamicType::default()).into_owned();
                    tracing::warn!(kind, error = %error, "watching failed: it is tried again");
                    continue;
                }
            };
            if let Some(writer) = &mut writer {
                writer.apply_watcher_event(&event);
            }
            match event {
                Event::Init => listed.clear(),
                Event::InitApply(object) => listed.push(object),
                Event::InitDone => {
                    let found: Vec<_> = listed.drain(..).flat_map(|object| touched(&router, &object, false)).collect();
                    router.send(found);
                    router.send(vec![Touch::Relisted]);
                }
                Event::Apply(object) => router.send(touched(&router, &object, false)),
                Event::Delete(object) => router.send(touched(&router, &object, true)),
            }
        }
    });
}

/// The reference of an object in a store.
pub fn reference<K>(name: &str, namespace: &str) -> ObjectRef<K>
where
    K: Resource,
    K::DynamicType: Default,
{
    ObjectRef::new(name).within(namespace)
}
