#![allow(clippy::needless_pass_by_value, clippy::large_stack_arrays)]
use super::*;
use crate::cluster::volumes;
use serde_json::{Value, json};

fn cluster(spec: Value) -> Cluster {
    let mut all = json!({"replicas": 3, "storage": {"size": "10Gi"}});
    all.as_object_mut().unwrap().extend(spec.as_object().cloned().unwrap());
    serde_json::from_value(json!({"metadata": {"name": "main", "namespace": "ns", "uid": "u"}, "spec": all})).unwrap()
}

fn settings() -> Settings {
    Settings { broker_image: "registry.test/broker".to_owned(), service_monitors: false }
}

/// A StatefulSet of so many brokers of this version and size, and claims of that size in a class that may grow or not.
fn built(replicas: i32, version: &str, size: &str, grows: bool) -> Fetched {
    let requests = json!({"resources": {"requests": {"storage": size}}});
    let set = json!({
        "metadata": {"annotations": {"taffrail.dev/version": version}},
        "spec": {
            "replicas": replicas, "serviceName": "x", "selector": {}, "template": {},
            "volumeClaimTemplates": [{"spec": requests}],
        },
    });
    let claim = |number: i32| json!({"metadata": {"name": format!("data-main-{number}")}, "spec": requests});
    let class = json!({"metadata": {"name": "fast"}, "provisioner": "x", "allowVolumeExpansion": grows});
    Fetched {
        set: Some(serde_json::from_value(set).unwrap()),
        claims: (0..replicas).map(|number| serde_json::from_value(claim(number)).unwrap()).collect(),
        class: Some(serde_json::from_value(class).unwrap()),
        ..Fetched::default()
    }
}

#[test]
fn the_brokers_version_is_the_clusters_and_not_the_operators() {
    let own = env!("CARGO_PKG_VERSION");
    let version = |cluster: &Cluster, fetched: &Fetched| validate(cluster, fetched, &settings()).unwrap().version;
    assert_eq!(version(&cluster(json!({})), &Fetched::default()), own);
    assert_eq!(version(&cluster(json!({})), &built(3, "0.0.9", "10Gi", true)), "0.0.9");
    assert_eq!(version(&cluster(json!({"version": "0.2.0"})), &built(3, "0.0.9", "10Gi", true)), "0.2.0");
    let image = |spec: Value| validate(&cluster(spec), &Fetched::default(), &settings()).unwrap().image;
    assert_eq!(image(json!({"version": "0.2.0"})), "registry.test/broker:0.2.0");
    assert_eq!(image(json!({"image": "mine:1"})), "mine:1");
}

#[test]
fn volumes_grow_where_their_class_allows_it() {
    let plan = |size: &str, fetched: &Fetched| {
        let cluster = cluster(json!({"storage": {"size": size}}));
        let validated = validate(&cluster, fetched, &settings()).unwrap();
        let plan = volumes::plan(&validated, fetched);
        (plan.grow.len(), plan.recreate, plan.problem.is_some(), validated.claim_size.to_string())
    };
    let grows = built(2, "0.1.0", "10Gi", true);
    assert_eq!(plan("10Gi", &grows), (0, false, false, "10Gi".to_owned()));
    assert_eq!(plan("20Gi", &grows), (2, true, false, "20Gi".to_owned()));
    assert_eq!(plan("20Gi", &built(2, "0.1.0", "10Gi", false)), (0, false, true, "10Gi".to_owned()));
    assert_eq!(plan("20Gi", &Fetched::default()), (0, false, false, "20Gi".to_owned()));
    // The StatefulSet was deleted to be made anew, and the operator died.
    let half = Fetched { set: None, ..built(2, "0.1.0", "20Gi", true) };
    assert_eq!(plan("20Gi", &half), (0, false, false, "20Gi".to_owned()));
}

#[test]
fn an_exposed_listener_cannot_have_the_name_of_a_service_of_the_cluster() {
    let named =
        |name: &str| cluster(json!({"listeners": [{"name": name, "port": 9094, "expose": {"type": "NodePort"}}]}));
    assert!(validate(&named("outside"), &Fetched::default(), &settings()).is_ok());
    for name in ["brokers", "bootstrap"] {
        assert_eq!(validate(&named(name), &Fetched::default(), &settings()).unwrap_err().reason, "ListenerName");
    }
}
