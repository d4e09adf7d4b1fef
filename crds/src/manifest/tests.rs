use super::*;
use crate::duration::Retention;
use crate::topic::Durability;
use proptest::prelude::*;

const HEAD: &str = "apiVersion: taffrail.dev/v1alpha1\nkind: Topic\n";

/// `line:column path: message` of each fault.
fn faults(text: &str) -> Vec<String> {
    let faults = parse(text, "t.yaml").unwrap_err();
    faults.iter().map(|fault| format!("{}:{} {}: {}", fault.line, fault.column, fault.path, fault.message)).collect()
}

#[track_caller]
fn assert_faults(text: &str, expected: &[(&str, &str)]) {
    let found = faults(text);
    let fits = |(found, (place, message)): (&String, &(&str, &str))| {
        found.starts_with(&format!("{place}: ")) && found.contains(message)
    };
    assert!(found.len() == expected.len() && found.iter().zip(expected).all(fits), "{found:#?}\n{expected:#?}");
}

#[test]
fn reads_topics_with_their_lines_and_skips_empty_documents() {
    let text = format!(
        "---\n# nothing\n---\n{HEAD}metadata:\n  name: orders\nspec:\n  partitions: 8\n  config: {{retention: 90m, durability: disk}}\n---\n{HEAD}metadata: {{name: plain}}\nspec: {{}}\n---\n"
    );
    let documents = parse(&text, "t.yaml").unwrap();
    let lines: Vec<_> = documents.iter().map(|document| (document.topic.topic_name(), document.line)).collect();
    assert_eq!(lines, vec![("orders".to_owned(), 4), ("plain".to_owned(), 12)]);
    let spec = &documents[0].topic.spec;
    assert_eq!((spec.partitions, spec.config.durability()), (8, Durability::Disk));
    assert_eq!(spec.config.retention(), Retention::from_millis(90 * 60_000));
    assert_eq!(documents[1].topic.spec, crate::TopicSpec::default(), "defaults are those of the type");
}

#[test]
fn nothing_is_no_topics() {
    for text in ["", "\n\n", "# only a comment\n", "---\n---\n", "null", "~"] {
        assert_eq!(parse(text, "t.yaml"), Ok(vec![]), "{text:?}");
    }
}

#[test]
fn all_faults_of_a_file_are_listed_with_their_places() {
    let text = "\
apiVersion: taffrail.dev/v1
kind: Topics
metadata:
  name: Orders
  colour: red
spec:
  partitions: many
  replicationFactor: 8
  topicName: __mine
  confg: {}
  config:
    retention: seven days
    retentionBytes: 0
    maxMessageBytes: 64Mi
    durability: DISK
    minInSyncReplicas: 0
    kafka:
      cleanup.policy: compact
      segment.bytes: '12'
      retention.ms: '1'
      wrong.key: x
    trash_retention: 24h
---
apiVersion: taffrail.dev/v1alpha1
kind: Topic
metadata:
  name: second
spec:
  partitions: 0
";
    assert_faults(
        text,
        &[
            ("1:1 apiVersion", "write taffrail.dev/v1alpha1"),
            ("2:1 kind", "write Topic"),
            ("4:3 metadata.name", "cannot be the name of an object"),
            ("5:3 metadata.colour", "unknown field"),
            ("7:3 spec.partitions", "expected integer, found the text \"many\""),
            ("8:3 spec.replicationFactor", "the most is 7"),
            ("9:3 spec.topicName", "internal topics"),
            ("10:3 spec.confg", "unknown field: there are clusterRef, config"),
            ("12:5 spec.config.retention", "7d or 1h30m, or the word forever"),
            ("13:5 spec.config.retentionBytes", "1 at least"),
            ("14:5 spec.config.maxMessageBytes", "from 1Ki to 7Mi"),
            ("15:5 spec.config.durability", "write one of \"os\", \"disk\""),
            ("16:5 spec.config.minInSyncReplicas", "the least is 1"),
            ("18:7 spec.config.kafka[cleanup.policy]", "compaction by key is not available"),
            ("19:7 spec.config.kafka[segment.bytes]", "from 1048576"),
            ("20:7 spec.config.kafka[retention.ms]", "write retention in place of it"),
            ("21:7 spec.config.kafka[wrong.key]", "unknown configuration key"),
            ("22:5 spec.config[trash_retention]", "did you mean trashRetention?"),
            ("29:3 spec.partitions", "the least is 1"),
        ],
    );
}

#[test]
fn missing_parts_are_named() {
    assert_faults(
        "a: 1\n",
        &[
            ("1:1 ", "missing field \"spec\""),
            ("1:1 a", "unknown field"),
            ("1:1 apiVersion", "missing: write apiVersion: taffrail.dev/v1alpha1"),
            ("1:1 kind", "missing: write kind: Topic"),
            ("1:1 metadata", "missing"),
        ],
    );
    assert_faults(&format!("{HEAD}metadata: {{}}\nspec: {{}}\n"), &[("3:1 metadata", "missing: metadata.name")]);
    assert_faults(&format!("{HEAD}metadata: {{name: }}\nspec: {{}}\n"), &[("3:1 metadata", "missing: metadata.name")]);
    assert_faults("just words\n", &[("1:1 ", "expected an object, found the text")]);
    assert_faults("- a\n", &[("1:1 ", "expected an object, found a list")]);
}

#[test]
fn values_of_the_wrong_type_are_named_wherever_they_are() {
    let topic = |spec: &str| format!("{HEAD}metadata: {{name: t}}\nspec: {spec}\n");
    for (spec, place, message) in [
        ("[]", "4:1 spec", "expected object, found a list"),
        ("{config: 7}", "4:8 spec.config", "expected object"),
        ("{partitions: 1.5}", "4:8 spec.partitions", "expected integer"),
        ("{partitions: '3'}", "4:8 spec.partitions", "expected integer, found the text \"3\""),
        ("{topicName: on}", "4:8 spec.topicName", "expected string, found the boolean true: put it in quotes"),
        ("{config: {retention: 7}}", "4:17 spec.config.retention", "expected string, found the number 7"),
        ("{config: {retentionBytes: -1}}", "4:17 spec.config.retentionBytes", "the least is 0"),
        ("{config: {maxMessageBytes: 1.5}}", "4:17 spec.config.maxMessageBytes", "expected integer or string"),
        ("{config: {kafka: {segment.bytes: 1048576}}}", "4:25 spec.config.kafka[segment.bytes]", "put it in quotes"),
        ("{clusterRef: {}}", "4:8 spec.clusterRef", "missing field \"name\""),
        ("{clusterRef: {name: c, zone: z}}", "4:30 spec.clusterRef.zone", "unknown field"),
        ("{partitions: 99999999999}", "4:8 spec.partitions", "the most is 10000"),
    ] {
        let found = faults(&topic(spec));
        assert!(found.iter().any(|fault| fault.starts_with(place) && fault.contains(message)), "{spec}: {found:#?}");
    }
    let labels = format!("{HEAD}metadata: {{name: t, labels: {{a: 1}}}}\nspec: {{}}\n");
    assert_faults(&labels, &[("3:21 metadata.labels", "expected a string")]);
    let adopt = format!("{HEAD}metadata: {{name: t, annotations: {{taffrail.dev/adopt: x}}}}\nspec: {{}}\n");
    assert_faults(&adopt, &[("3:35 metadata.annotations[taffrail.dev/adopt]", "UUID")]);
}

#[test]
fn topics_that_are_there_twice_are_named_with_both_lines() {
    let topic = |name: &str, spec: &str| format!("---\n{HEAD}metadata: {{name: {name}}}\nspec: {spec}\n");
    let text = topic("a", "{}") + &topic("b", "{topicName: a}") + &topic("a", "{topicName: other}");
    assert_faults(
        &text,
        &[
            ("7:1 ", "the topic \"a\" is already in t.yaml, line 2"),
            ("12:1 ", "the object \"a\" is already in t.yaml, line 2"),
        ],
    );
    let other = parse(&topic("a", "{}"), "other.yaml").unwrap();
    let both: Vec<_> = parse(&topic("a", "{}"), "t.yaml").unwrap().into_iter().chain(other).collect();
    assert_eq!(
        duplicates(&both)[0].to_string(),
        "other.yaml:2:1: the object \"a\" is already in t.yaml, line 2: remove one or rename it"
    );
}

#[test]
fn a_status_is_dropped_and_a_null_is_none() {
    let text = format!(
        "{HEAD}metadata: {{name: t, uid: x}}\nspec: {{topicName: , config: {{retention: ~}}, partitions: }}\nstatus: {{nonsense: 1}}\n"
    );
    let documents = parse(&text, "t.yaml").unwrap();
    assert_eq!(documents[0].topic.spec, crate::TopicSpec::default());
    assert_eq!(documents[0].topic.status, None);
}

const CLUSTER: &str = "apiVersion: taffrail.dev/v1alpha1\nkind: Cluster\n";

#[test]
fn clusters_and_topics_are_read_together_and_all_their_faults_are_listed() {
    let text = format!(
        "{CLUSTER}metadata: {{name: main}}\nspec: {{storage: {{size: 10Gi}}}}\nstatus: {{replicas: x}}\n---\n\
         {HEAD}metadata: {{name: t}}\nspec: {{clusterRef: {{name: main}}}}\n"
    );
    let documents = parse_objects(&text, "t.yaml").unwrap();
    let Object::Cluster(cluster) = &documents[0].object else { panic!("{documents:?}") };
    assert_eq!(
        (cluster.spec.replicas, cluster.status.is_none()),
        (3, true),
        "defaults are filled in, a status is dropped"
    );
    assert!(matches!(&documents[1].object, Object::Topic(topic) if topic.topic_name() == "t"));
    assert_eq!((documents[0].line, documents[1].line), (1, 7));

    let wrong = format!(
        "{CLUSTER}metadata: {{name: 1main}}\nspec:\n  replicas: 101\n  storage: {{size: 1Mi}}\n  colour: red\n---\n\
         apiVersion: taffrail.dev/v1alpha1\nkind: Secret\nmetadata: {{name: x}}\nspec: {{}}\n"
    );
    let places: Vec<_> =
        parse_objects(&wrong, "t.yaml").unwrap_err().iter().map(|f| (f.line, f.path.clone())).collect();
    let at = |line: usize, path: &str| places.contains(&(line, path.to_owned()));
    assert!(
        at(5, "spec.replicas") && at(6, "spec.storage.size") && at(7, "spec.colour") && at(10, "kind"),
        "{places:?}"
    );
}

#[test]
fn a_standalone_broker_takes_topics_only() {
    let text = format!("{CLUSTER}metadata: {{name: main}}\nspec: {{storage: {{size: 10Gi}}}}\n");
    assert!(faults(&text).iter().any(|fault| fault.contains("kind: \"Cluster\" is not known here: write Topic")));
}

#[test]
fn objects_that_are_there_twice_are_named() {
    let topic = |name: &str, spec: &str| format!("---\n{HEAD}metadata: {{name: {name}}}\nspec: {spec}\n");
    let cluster = format!("---\n{CLUSTER}metadata: {{name: a}}\nspec: {{storage: {{size: 10Gi}}}}\n");
    let main = "{clusterRef: {name: main}}";
    let named = |cluster: &str| format!("{{clusterRef: {{name: {cluster}}}, topicName: a}}");
    let twice = |text: String| -> Vec<String> {
        parse_objects(&text, "t.yaml")
            .map_or_else(|faults| faults.iter().map(ToString::to_string).collect(), |_| vec![])
    };
    assert_eq!(twice(topic("a", main) + &cluster + &topic("b", &named("other"))), Vec::<String>::new());
    let found = twice(topic("a", main) + &topic("b", &named("main")) + &cluster + &cluster);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].contains("the topic \"a\" is already in t.yaml, line 2"), "{found:?}");
    assert!(found[1].contains("the Cluster \"a\" is already"), "{found:?}");
}

#[test]
fn hostile_files_give_few_and_short_faults() {
    let wide = (0..20_000).map(|n| format!("f{n}: x")).collect::<Vec<_>>().join("\n");
    let long = format!(
        "{HEAD}metadata: {{name: t}}\nspec: {{{}: 1, topicName: {}}}\n",
        "k".repeat(300_000),
        "n".repeat(300_000)
    );
    let kept = (0..20_000).map(|n| format!("k{n}: x")).collect::<Vec<_>>().join(", ");
    let kept = format!("{HEAD}metadata: {{name: t}}\nspec: {{config: {{kafka: {{{kept}}}}}}}\n");
    let many = "---\na: 1\n".repeat(10_000);
    for text in [wide, long, kept, many, "[".repeat(1000), "a: ".repeat(1000), "- ".repeat(1000), "? ".repeat(1000)] {
        let faults = parse(&text, "t.yaml").unwrap_err();
        assert!((1..=MAX_FAULTS).contains(&faults.len()));
        assert!(faults.iter().all(|fault| fault.to_string().len() < 600), "{:?}", faults[0]);
    }
}

proptest! {
    #[test]
    fn what_is_admitted_reads_back_as_it_was_written(
        partitions in 1..=10_000, factor in prop::option::of(1..=7), retention in prop::option::of(0..u64::MAX),
        bytes in prop::option::of(1..u64::MAX), most in prop::option::of(1024..=7_340_032u64), name in "[a-z]{6,9}",
        topic_name in prop::option::of("[a-zA-Z][a-zA-Z0-9._-]{5,20}"),
    ) {
        let mut topic = Topic::new(&name, crate::TopicSpec { partitions, replication_factor: factor, topic_name, ..Default::default() });
        topic.spec.config.retention = retention.map(Retention::from_millis);
        topic.spec.config.retention_bytes = bytes.map(crate::size::Size::from_bytes);
        topic.spec.config.max_message_bytes = most.map(crate::size::Size::from_bytes);
        topic.spec.config.kafka.insert("segment.ms".to_owned(), "1".to_owned());
        let text = serde_yaml::to_string(&topic).unwrap();
        let documents = parse(&text, "t.yaml").map_err(|faults| TestCaseError::fail(format!("{faults:?}\n{text}")))?;
        prop_assert_eq!(&documents[0].topic, &topic);
    }
}
