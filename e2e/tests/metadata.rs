//! The broker's metadata on a real API server: the store keeps the contract that the embedded one keeps.
#![allow(clippy::unwrap_used)]

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use taffrail_broker::metadata::kubernetes::client::connect;
use taffrail_broker::metadata::{KubernetesStore, MetadataStore, contract};
use taffrail_broker::metrics::MetadataMetrics;
use taffrail_e2e::kubernetes::ApiServer;
use tokio::time::{Instant, sleep};

const PATIENCE: Duration = Duration::from_secs(30);

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
