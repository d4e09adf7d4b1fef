//! What the demo applies: what users write (`e2e/demo/kubernetes.yaml`), and the pods of an application.

/// Where the demo's objects are.
pub(crate) const NAMESPACE: &str = "flights";
/// Where the operator is.
pub(crate) const OPERATOR_NAMESPACE: &str = "taffrail-system";
/// The Cluster.
pub(crate) const CLUSTER: &str = "main";
/// The Topic.
pub(crate) const TOPIC: &str = "flights";
/// The group that reads.
pub(crate) const GROUP: &str = "readers";
/// Its pods.
pub(crate) const READERS: [&str; 3] = ["reader-0", "reader-1", "reader-2"];

/// What users write.
pub(crate) const MANIFEST: &str = include_str!("../../../demo/kubernetes.yaml");
const VERSION: &str = env!("CARGO_PKG_VERSION");
/// What every pod connects to: any broker forwards.
const BROKER: &str = "main-bootstrap.flights.svc:9094";

/// The pods of the application, as YAML documents; none of them runs on the node `avoided`.
pub(crate) fn pods(avoided: &str) -> String {
    let read = ["consume", TOPIC, "--group", GROUP, "--follow", "-o", "json"];
    let pod = |name: &str, image: &str, arguments: &[&str]| pod(name, image, arguments, avoided);
    let mut documents = READERS.map(|name| pod(name, "taffrail", &read)).to_vec();
    documents.push(pod("producer", "taffrail", &["produce", TOPIC, "--json", "--key-field", "origin"]));
    documents.push(pod("python", "python-client", &["/app/produce.py", BROKER, TOPIC]));
    documents.join("---\n")
}

/// A pod that runs a program of an image and takes its standard input from whoever attaches to it.
fn pod(name: &str, image: &str, arguments: &[&str], avoided: &str) -> String {
    let arguments = arguments.iter().map(|argument| format!("\"{argument}\"")).collect::<Vec<_>>().join(", ");
    let stdin = !READERS.contains(&name);
    format!(
        "apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: {NAMESPACE}}}
spec:
  restartPolicy: Never
  terminationGracePeriodSeconds: 5
  affinity:
    nodeAffinity:
      requiredDuringSchedulingIgnoredDuringExecution:
        nodeSelectorTerms:
          - matchExpressions: [{{key: kubernetes.io/hostname, operator: NotIn, values: [\"{avoided}\"]}}]
  securityContext: {{runAsNonRoot: true, runAsUser: 65532, seccompProfile: {{type: RuntimeDefault}}}}
  containers:
    - name: main
      image: ghcr.io/taffrail/{image}:{VERSION}
      imagePullPolicy: IfNotPresent
      args: [{arguments}]
      env: [{{name: TAFFRAIL_BROKER, value: \"{BROKER}\"}}]
      stdin: {stdin}
      stdinOnce: {stdin}
      securityContext: {{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {{drop: [ALL]}}}}
"
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::Value;
    use taffrail_crds::Kind;
    use taffrail_crds::admission::admit_kind;

    #[test]
    fn the_objects_are_admitted_and_named_as_the_demo_knows_them() {
        let text = format!("{MANIFEST}---\n{}", pods("n3"));
        let objects: Vec<Value> = serde_yaml::Deserializer::from_str(&text)
            .map(|document| Value::deserialize(document).expect("YAML"))
            .collect();
        let names: Vec<_> = objects
            .iter()
            .map(|object| format!("{}/{}", object["kind"], object["metadata"]["name"]).replace('"', ""))
            .collect();
        let topic = format!("Topic/{TOPIC}");
        let expected = ["Namespace/flights", "Cluster/main", &topic, "Pod/reader-0", "Pod/reader-1", "Pod/reader-2"];
        assert_eq!(names, [&expected[..], &["Pod/producer", "Pod/python"]].concat());
        for object in &objects {
            if let Some(kind) = Kind::from_name(object["kind"].as_str().expect("a kind")) {
                assert_eq!(admit_kind(kind, object, None), vec![]);
            }
        }
    }
}
