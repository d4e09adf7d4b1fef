//! The definitions on a real API server: it takes them, its rules say what ours say, and kubectl shows what it should.
#![allow(clippy::unwrap_used)]

#[path = "../../crds/tests/table/mod.rs"]
mod table;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, CustomResourceDefinitionCondition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, PostParams};
use kube::{Client, ResourceExt};
use serde_json::json;
use taffrail_crds::admission::admit_kind;
use taffrail_crds::{GROUP, Kind, VERSION};
use taffrail_e2e::cli::project;
use taffrail_e2e::kubernetes::{ApiServer, has_ended};
use taffrail_e2e::process::Process;
use tokio::time::sleep;

const PATIENCE: Duration = Duration::from_secs(90);

/// An API server that knows our kinds, and a namespace in it.
async fn server(namespace: &str) -> Result<(Arc<ApiServer>, Client)> {
    let server = tokio::task::spawn_blocking(ApiServer::shared).await??;
    let client = server.client().await?;
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in taffrail_crds::all() {
        make(&definitions, &definition).await.with_context(|| definition.name_any())?;
        established(&definitions, &definition.name_any()).await?;
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    make(&namespaces, &serde_json::from_value(json!({"metadata": {"name": namespace}}))?).await?;
    Ok((server, client))
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

/// Waits until a kind is served.
async fn established(definitions: &Api<CustomResourceDefinition>, name: &str) -> Result<()> {
    let begin = Instant::now();
    loop {
        let status = definitions.get(name).await?.status.unwrap_or_default();
        let conditions: Vec<CustomResourceDefinitionCondition> = status.conditions.unwrap_or_default();
        let is =
            |type_: &str| conditions.iter().any(|condition| condition.type_ == type_ && condition.status == "True");
        ensure!(!is("NonStructuralSchema"), "{name}: {conditions:#?}");
        if is("Established") && is("NamesAccepted") {
            return Ok(());
        }
        ensure!(begin.elapsed() < PATIENCE, "{name} is not established: {conditions:#?}");
        sleep(Duration::from_millis(50)).await;
    }
}

fn resource(kind: Kind) -> ApiResource {
    ApiResource {
        group: GROUP.to_owned(),
        version: VERSION.to_owned(),
        api_version: format!("{GROUP}/{VERSION}"),
        kind: kind.name().to_owned(),
        plural: kind.definition().spec.names.plural,
    }
}

/// What an API server says to a step: nothing, or why it refuses it.
async fn verdict(api: &Api<DynamicObject>, table: &table::Table, step: &table::Step) -> Result<Option<String>> {
    let mut new: DynamicObject = serde_json::from_value(table.after(step))?;
    let name = new.name_any();
    let answer = match table.before(step) {
        None => api.create(&PostParams::default(), &new).await,
        Some(old) => {
            let old = api.create(&PostParams::default(), &serde_json::from_value(old)?).await;
            new.metadata.resource_version = old.context("what was there is legal")?.metadata.resource_version;
            api.replace(&name, &PostParams::default(), &new).await
        }
    };
    let verdict = match answer {
        Ok(_) => None,
        Err(kube::Error::Api(status)) if status.code == 422 => Some(status.message.clone()),
        Err(error) => return Err(error.into()),
    };
    match api.delete(&name, &DeleteParams::default()).await {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        result => drop(result?),
    }
    Ok(verdict)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn m2_an_api_server_takes_and_refuses_the_same_steps_as_the_embedded_admission() -> Result<()> {
    let (_server, client) = server("steps").await?;
    let (mut count, mut wrong) = (0, vec![]);
    for table in table::tables(&project().join("crds")) {
        let kind = Kind::from_name(&table.kind).unwrap();
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), "steps", &resource(kind));
        for step in &table.steps {
            let what = format!("{}: {}", table.kind, step.what);
            let verdict = verdict(&api, &table, step).await.with_context(|| what.clone())?;
            let embedded = admit_kind(kind, &table.after(step), table.before(step).as_ref());
            let said = verdict.as_deref().unwrap_or_default();
            let told = step.refused.iter().chain(&step.says).all(|part| said.contains(part.as_str()));
            let same = verdict.is_some() != embedded.is_empty();
            if verdict.is_some() != step.refused.is_some() || !told || !same {
                wrong.push(format!("{what}\n  API server: {verdict:?}\n  embedded: {embedded:?}"));
            }
            count += 1;
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert!(count > 200, "{count} steps");
    Ok(())
}

/// All objects of a schema that have fields: their path, and the documentation of each field.
fn documented(schema: &JSONSchemaProps, path: &str, found: &mut Vec<(String, Vec<String>)>) {
    let schema = match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(items)) => items,
        _ => schema,
    };
    let Some(fields) = &schema.properties else { return };
    found.push((path.to_owned(), fields.values().filter_map(|field| field.description.clone()).collect()));
    for (name, field) in fields {
        documented(field, &format!("{path}.{name}"), found);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_explains_every_field() -> Result<()> {
    let (server, _) = server("explain").await?;
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for kind in Kind::ALL {
        let definition = kind.definition();
        let schema = definition.spec.versions[0].schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
        let mut objects = vec![];
        documented(schema.unwrap(), &format!("{}.{GROUP}", definition.spec.names.plural), &mut objects);
        ensure!(objects.len() > 1, "{kind:?} has fields");
        for (path, fields) in objects {
            // The group is an argument of its own: `explain topics.spec`, as people write it.
            let short = path.replacen(&format!(".{GROUP}"), "", 1);
            let shown = explained(&server, &short)?;
            let shown = words(&shown);
            for field in fields {
                ensure!(shown.contains(&words(&field)), "{path}: {field:?} is not in {shown}");
            }
        }
    }
    Ok(())
}

/// What kubectl explains. The server publishes a new kind's documentation a moment after it serves it.
fn explained(server: &ApiServer, path: &str) -> Result<String> {
    let begin = Instant::now();
    loop {
        let shown = server.kubectl(&["explain", path, "--api-version", &format!("{GROUP}/{VERSION}")])?;
        if shown.code == Some(0) || begin.elapsed() > PATIENCE {
            return shown.ok().with_context(|| path.to_owned());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_lists_scales_and_finds_by_category_and_short_name() -> Result<()> {
    let (server, _) = server("lists").await?;
    let kubectl = |arguments: &str| server.kubectl(&arguments.split(' ').collect::<Vec<_>>())?.ok();
    let example = project().join("crds/examples/kubernetes/small.yaml");
    kubectl(&format!("apply --server-side -n lists -f {}", example.display()))?;
    let status = json!({"status": {"topicId": "3f2a8c1e-0000-4000-8000-00000000abcd", "conditions": [{
        "type": "Ready", "status": "False", "reason": "NoBroker", "message": "", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    let patch = status.to_string();
    server
        .kubectl(&["patch", "tft/events", "-n", "lists", "--subresource=status", "--type=merge", "-p", &patch])?
        .ok()?;

    let table = kubectl("get topics -n lists")?;
    assert_eq!(rows(&table)[0], ["NAME", "CLUSTER", "PARTITIONS", "REPLICAS", "READY", "UNDER-REPLICATED", "AGE"]);
    assert_eq!(rows(&table)[1][..4], ["events", "main", "1", "False"], "replicas are as the cluster says");
    let wide = kubectl("get tft -n lists -o wide")?;
    assert!(wide.contains("REASON") && wide.contains("NoBroker"), "{wide}");
    let clusters = kubectl("get clusters.taffrail.dev -n lists")?;
    assert_eq!(rows(&clusters)[0], ["NAME", "BROKERS", "READY", "UNDER-REPLICATED", "VERSION", "AGE"]);

    kubectl("scale clusters.taffrail.dev/main -n lists --replicas=5")?;
    assert_eq!(kubectl("get tfc/main -n lists -o jsonpath={.spec.replicas}")?, "5");
    let all = kubectl("get taffrail -n lists -o name")?;
    assert_eq!(all, "cluster.taffrail.dev/main\ntopic.taffrail.dev/events\n");
    let brokers = kubectl("get brokers,partitionslices,clusterstates -n lists -o name")?;
    assert_eq!(brokers, "", "the kinds are served");
    Ok(())
}

fn rows(table: &str) -> Vec<Vec<&str>> {
    table.lines().map(|line| line.split_whitespace().collect()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn examples_for_kubernetes_are_taken() -> Result<()> {
    let (server, client) = server("taffrail").await?;
    let namespaces: Api<Namespace> = Api::all(client);
    make(&namespaces, &serde_json::from_value(json!({"metadata": {"name": "shop"}}))?).await?;
    let folder = project().join("crds/examples/kubernetes");
    for (how, path, count) in [("-f", "production.yaml", 2), ("-k", "gitops", 3)] {
        let path = folder.join(path).to_string_lossy().into_owned();
        let applied = server.kubectl(&["apply", "--server-side", "--dry-run=server", how, &path])?.ok()?;
        assert_eq!(applied.lines().count(), count, "{applied}");
    }
    Ok(())
}

const HELPER: &str = "starts_an_api_server_and_waits_to_be_killed";

#[test]
#[ignore = "the next test starts it"]
fn starts_an_api_server_and_waits_to_be_killed() -> Result<()> {
    let server = ApiServer::start()?;
    eprintln!("pids {} {}", server.pids()[0], server.pids()[1]);
    std::thread::sleep(Duration::from_mins(2));
    Ok(())
}

#[test]
fn an_api_server_ends_with_the_test_that_started_it_even_if_that_is_killed() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let mut helper = Command::new(std::env::current_exe()?);
    // What it cannot remove any more goes with this test's folder.
    helper.env("TMPDIR", dir.path());
    helper.args([HELPER, "--exact", "--ignored", "--nocapture"]).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut helper = Process(helper.spawn()?);
    let lines = BufReader::new(helper.0.stderr.take().context("standard error")?).lines();
    let pids = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("pids ").map(str::to_owned));
    let pids: Vec<u32> = pids.context("no ids")?.split(' ').map(str::parse).collect::<Result<_, _>>()?;
    assert_eq!(pids.len(), 2);
    drop(helper); // SIGKILL
    let begin = Instant::now();
    for pid in pids {
        while !has_ended(pid)? {
            ensure!(begin.elapsed() < PATIENCE, "process {pid} is still there");
            std::thread::sleep(Duration::from_millis(20));
        }
    }
    Ok(())
}
