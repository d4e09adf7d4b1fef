//! Golden objects: `tests/golden/NAME.yaml` holds a Cluster, `NAME.expected.yaml` what it is made of. `UPDATE=1` writes the
//! latter anew; a pod template that differs restarts every broker when the operator is upgraded, so look twice.

use std::collections::BTreeSet;
use std::path::PathBuf;

use super::build;
use crate::cluster::fetch::{Facts, Fetched};
use crate::cluster::validate::validate;
use crate::context::Settings;

fn golden(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name)
}

fn check(name: &str, facts: &Facts) {
    let text = std::fs::read_to_string(golden(&format!("{name}.yaml"))).unwrap();
    let cluster = serde_yaml::from_str(&text).unwrap();
    let settings = Settings { broker_image: "registry.test/taffrail-broker".to_owned(), service_monitors: true };
    let validated = validate(&cluster, &Fetched::default(), &settings).unwrap();
    let children = build(&validated, facts).into_iter().flat_map(|(_, children)| children);
    let found =
        children.fold(String::new(), |all, child| all + "---\n" + &serde_yaml::to_string(&child.object).unwrap());
    let file = golden(&format!("{name}.expected.yaml"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let expected = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(found == expected, "{} differs; UPDATE=1 writes it anew:\n{found}", file.display());
}

#[test]
fn the_least_cluster_is_made_of_these() {
    check("least", &Facts::default());
}

#[test]
fn a_cluster_that_sets_everything_is_made_of_these() {
    let namespaces = BTreeSet::from(["shop".to_owned()]);
    check("everything", &Facts { namespaces, fragile: true, monitors: true });
}
