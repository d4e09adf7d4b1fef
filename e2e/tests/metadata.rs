//! The broker's metadata on a real API server: the store keeps the contract that the embedded one keeps, and of two
//! candidates one is controller, whatever becomes of the Lease.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures::StreamExt;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::client::Body;
use kube::{Client, ResourceExt};
use serde_json::json;
use taffrail_broker::context::Context as Surroundings;
use taffrail_broker::election::{Election, KubernetesLease, Leadership, Settings, Times};
use taffrail_broker::metadata::kubernetes::client::connect;
use taffrail_broker::metadata::{Event, Kind, KubernetesStore, MetadataError, MetadataStore, contract};
use taffrail_broker::metrics::MetadataMetrics;
use taffrail_broker::storage::Storage;
use taffrail_broker::storage::memory::Disk;
use taffrail_e2e::kubernetes::ApiServer;
use tokio::time::{Instant, sleep, timeout};
use tonic::codegen::http::{Method, Request};
use tower::BoxError;

const PATIENCE: Duration = Duration::from_secs(90);

/// An API server that knows our kinds.
async fn server() -> Result<(Arc<ApiServer>, Client)> {
    let server = tokio::task::spawn_blocking(ApiServer::shared).await??;
    let client = connect(Some(&server.kubeconfig())).await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in taffrail_crds::all() {
        make(&definitions, &definition).await.with_context(|| definition.name_any())?;
        established(&definitions, &definition.name_any()).await?;
    }
    Ok((server, client))
}

/// Waits until a kind is served.
async fn established(definitions: &Api<CustomResourceDefinition>, name: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let conditions = definitions.get(name).await?.status.unwrap_or_default().conditions.unwrap_or_default();
        if conditions.iter().any(|condition| condition.type_ == "Established" && condition.status == "True") {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{name} is not established: {conditions:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

/// Creates an object unless it is there.
async fn make<K>(api: &Api<K>, object: &K) -> Result<()>
where
    K: Clone + std::fmt::Debug + serde::de::DeserializeOwned + serde::Serialize,
{
    match api.create(&PostParams::default(), object).await {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        result => Ok(result.map(drop)?),
    }
}

/// A namespace of its own for each call.
async fn namespace(client: &Client) -> Result<String> {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let name = format!("metadata-{}", NUMBER.fetch_add(1, Ordering::Relaxed));
    let namespaces: Api<Namespace> = Api::all(client.clone());
    make(&namespaces, &serde_json::from_value(json!({"metadata": {"name": name}}))?).await?;
    Ok(name)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_store_on_an_api_server_keeps_the_contract() -> Result<()> {
    let (_server, client) = server().await?;
    let open = || async {
        let namespace = namespace(&client).await.unwrap();
        let store = KubernetesStore::new(client.clone(), &namespace, "main", MetadataMetrics::default());
        Arc::new(store) as Arc<dyn MetadataStore>
    };
    contract::check(&open).await;
    Ok(())
}

/// Of the Cluster `main`.
fn store(client: &Client, namespace: &str) -> Arc<dyn MetadataStore> {
    Arc::new(KubernetesStore::new(client.clone(), namespace, "main", MetadataMetrics::default()))
}

/// An API server on a busy machine answers within them.
const TIMES: Times = Times {
    lease: Duration::from_secs(5),
    renew_deadline: Duration::from_millis(3500),
    retry: Duration::from_millis(300),
};

/// A broker that would be controller.
fn candidate(client: &Client, namespace: &str, broker: i32) -> Result<Election> {
    let meta = Disk::new().open().meta();
    Ok(Election::start(Settings {
        lease: Arc::new(KubernetesLease::new(client.clone(), namespace, "main")),
        store: store(client, namespace),
        context: Surroundings::system(&*meta)?,
        meta,
        cluster: "main".to_owned(),
        broker,
        pod: format!("main-{broker}"),
        times: TIMES,
    }))
}

/// Waits until a candidate is controller; its epoch.
async fn acts(candidate: &Election) -> Result<i32> {
    let mut leadership = candidate.leadership();
    let acting = leadership.wait_for(|leadership| matches!(leadership, Leadership::Acting { .. }));
    match &*timeout(PATIENCE, acting).await.context("nobody becomes controller")?? {
        Leadership::Acting { epoch, .. } => Ok(*epoch),
        Leadership::Follower { .. } => unreachable!("it was waited for"),
    }
}

/// Waits until a candidate's term is over. It may have begun the next.
async fn ends(candidate: &Election, term: i32) -> Result<()> {
    let mut leadership = candidate.leadership();
    let over = leadership.wait_for(|now| !matches!(now, Leadership::Acting { epoch, .. } if *epoch == term));
    timeout(PATIENCE, over).await.context("it stays controller")??;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m14_of_two_candidates_one_is_controller_and_each_term_has_a_higher_epoch() -> Result<()> {
    let (_server, client) = server().await?;
    let namespace = namespace(&client).await?;
    let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);

    let first = candidate(&client, &namespace, 0)?;
    assert_eq!(acts(&first).await?, 1);
    let second = candidate(&client, &namespace, 1)?;
    sleep(2 * TIMES.lease).await;
    assert!(
        matches!(&*second.leadership().borrow(), Leadership::Follower { holder: Some(holder) } if holder.starts_with("main-0_"))
    );
    assert_eq!(acts(&first).await?, 1, "it renews its term");

    // Deleted: the holder makes it again.
    leases.delete("main-controller", &DeleteParams::default()).await?;
    sleep(2 * TIMES.lease).await;
    assert_eq!(acts(&first).await?, 1, "the term goes on");

    // Edited, so that nobody who runs holds it: the holder notices, and somebody begins another term.
    let edit = Patch::Merge(json!({"spec": {"holderIdentity": "nobody"}}));
    leases.patch("main-controller", &PatchParams::default(), &edit).await?;
    ends(&first, 1).await?;
    let either = async {
        tokio::select! { epoch = acts(&first) => epoch, epoch = acts(&second) => epoch }
    };
    assert_eq!(either.await?, 2);

    // Released: the other one takes it without waiting for its end, whoever it is.
    let (holder, other) = if matches!(*first.leadership().borrow(), Leadership::Acting { .. }) {
        (first, second)
    } else {
        (second, first)
    };
    holder.stop().await;
    let begin = Instant::now();
    assert_eq!(acts(&other).await?, 3);
    assert!(begin.elapsed() < TIMES.lease, "{:?}", begin.elapsed());

    // Told of a later controller, it stops at once and begins anew.
    other.deposed().send(3)?;
    ends(&other, 3).await?;
    assert_eq!(acts(&other).await?, 4);
    other.stop().await;
    let state = store(&client, &namespace).get(Kind::ClusterState, "main").await?.context("it was made")?;
    assert_eq!(state.document["spec"]["controllerEpoch"], 4);
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m15_a_process_that_died_is_replaced_once_its_lease_expired() -> Result<()> {
    let (server, client) = server().await?;
    let namespace = namespace(&client).await?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let (its_client, its_namespace) = (connect(Some(&server.kubeconfig())).await?, namespace.clone());
    let dead = runtime.spawn(async move {
        let candidate = candidate(&its_client, &its_namespace, 0)?;
        let epoch = acts(&candidate).await?;
        // Dropped without a stop, it would go on: the runtime dies with everything on it.
        std::mem::forget(candidate);
        anyhow::Ok(epoch)
    });
    assert_eq!(dead.await??, 1);
    runtime.shutdown_background();
    let begin = Instant::now();
    // The same pod, started again at once: it is another candidate, and waits.
    let again = candidate(&client, &namespace, 0)?;
    assert_eq!(acts(&again).await?, 2);
    let waited = begin.elapsed();
    assert!(waited + TIMES.retry > TIMES.lease && waited < 4 * TIMES.lease, "{waited:?}");
    again.stop().await;
    Ok(())
}

/// A client whose changes are done, and whose answers to them are lost: at once, or so that nobody notices.
fn lossy(client: &Client, silent: bool) -> Client {
    let client = client.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move {
            let change = request.method() != Method::GET;
            let answer = client.send(request).await?;
            match (change, silent) {
                (true, true) => std::future::pending().await,
                (true, false) => Err(BoxError::from("connection reset by peer")),
                (false, _) => Ok(answer),
            }
        }
    });
    Client::new(service, "default")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m3_a_change_whose_answer_is_lost_is_told_as_unknown_and_one_without_time_as_not_made() -> Result<()> {
    let (_server, client) = server().await?;
    let namespace = namespace(&client).await?;
    let good = store(&client, &namespace);
    let topic = |name: &str| {
        json!({
            "apiVersion": "taffrail.dev/v1alpha1", "kind": "Topic", "metadata": {"name": name}, "spec": {"partitions": 1},
        })
    };
    let over = good.until(Instant::now()).create(Kind::Topic, "a", topic("a")).await.unwrap_err();
    assert!(matches!(over, MetadataError::Unavailable(_)), "{over}");
    assert_eq!(good.get(Kind::Topic, "a").await?, None);

    for (name, silent) in [("reset", false), ("silent", true)] {
        let lossy = store(&lossy(&client, silent), &namespace);
        let soon = || lossy.until(Instant::now() + Duration::from_secs(5));
        let begin = Instant::now();
        let unknown = soon().create(Kind::Topic, name, topic(name)).await.unwrap_err();
        assert!(matches!(unknown, MetadataError::Unknown(_)), "{unknown}");
        assert!(begin.elapsed() < Duration::from_secs(9), "M16: it ends in its time, not after {:?}", begin.elapsed());
        let mut made = lossy.get(Kind::Topic, name).await?.context("it was done")?;
        made.document["spec"]["partitions"] = 2.into();
        let unknown = soon().replace(&made).await.unwrap_err();
        assert!(matches!(unknown, MetadataError::Unknown(_)), "{unknown}");
        let found = good.get(Kind::Topic, name).await?.context("it is there")?;
        assert_eq!(found.document["spec"]["partitions"], 2);
        let again = good.replace(&made).await.unwrap_err();
        assert!(matches!(again, MetadataError::Conflict { .. }), "{again}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m9_an_api_that_does_not_know_the_kinds_says_nothing_of_objects() -> Result<()> {
    // One of its own: without the definitions.
    let server = tokio::task::spawn_blocking(ApiServer::start).await??;
    let client = connect(Some(&server.kubeconfig())).await?;
    let store = store(&client, "default");
    for error in [
        store.get(Kind::Topic, "a").await.unwrap_err(),
        store.list(Kind::Topic).await.unwrap_err(),
        store.create(Kind::Topic, "a", json!({"metadata": {"name": "a"}})).await.unwrap_err(),
    ] {
        assert!(matches!(error, MetadataError::Unavailable(_)), "{error}");
    }
    let mut watch = store.watch(Kind::Topic);
    assert!(timeout(Duration::from_secs(2), watch.next()).await.is_err(), "a watch tells nothing, not even an end");
    // They come, and the watch goes on by itself.
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in taffrail_crds::all() {
        make(&definitions, &definition).await?;
    }
    assert_eq!(timeout(PATIENCE, watch.next()).await?, Some(Event::Listed));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn only_what_concerns_the_cluster_is_listed_and_watched() -> Result<()> {
    let (_server, client) = server().await?;
    let namespace = namespace(&client).await?;
    let (main, other) = (store(&client, &namespace), "other");
    let other = KubernetesStore::new(client.clone(), &namespace, other, MetadataMetrics::default());
    let slice = |cluster: &str, topic: &str| {
        let id = format!("{topic}-4a53-9d0e-4a9c7a3f5b11");
        json!({
            "apiVersion": "taffrail.dev/v1alpha1",
            "kind": "PartitionSlice",
            "metadata": {"name": format!("{id}-0"), "labels": {"taffrail.dev/cluster": cluster}},
            "spec": {
                "clusterName": cluster, "topicId": id, "topicName": topic, "firstIndex": 0, "controllerEpoch": 1,
                "operationId": 1, "partitions": [{
                    "index": 0, "replicas": [0], "leaderEpoch": 0, "partitionEpoch": 0,
                    "minInSyncReplicas": 1, "replicationFactor": 1,
                }],
            },
        })
    };
    for (cluster, topic) in [("main", "7f6c2f0e-5f0b"), ("other", "8f6c2f0e-5f0b")] {
        let slice = slice(cluster, topic);
        let name = slice["metadata"]["name"].as_str().unwrap().to_owned();
        main.create(Kind::PartitionSlice, &name, slice).await?;
    }
    for (store, cluster) in [(&main, "main"), (&(Arc::new(other) as Arc<dyn MetadataStore>), "other")] {
        let found = store.list(Kind::PartitionSlice).await?;
        let clusters: Vec<_> = found.iter().map(|object| object.document["spec"]["clusterName"].as_str()).collect();
        assert_eq!(clusters, [Some(cluster)]);
        let mut watch = store.watch(Kind::PartitionSlice);
        assert_eq!(watch.next().await, Some(Event::Applied(found[0].clone())));
        assert_eq!(watch.next().await, Some(Event::Listed));
    }
    Ok(())
}
