use super::*;
use crate::clock::ManualClock;
use crate::metadata::EmbeddedStore;
use crate::storage::Storage;
use crate::storage::memory::Disk;

fn kept(incarnation: i64, registered: i64) -> Kept {
    Kept { cluster: Uuid::from_u128(1), broker: 2, incarnation, registered }
}

fn identity(complete: bool) -> Identity {
    Identity { storage: Uuid::from_u128(7), incarnation: 1, clean: complete, complete }
}

fn spec(incarnation: i64, storage: u128) -> BrokerSpec {
    BrokerSpec {
        cluster_name: "main".to_owned(),
        id: 2,
        incarnation,
        continues: None,
        storage_id: Id(Uuid::from_u128(storage)),
        boot_id: Id(Uuid::from_u128(9)),
        zone: None,
        endpoints: endpoints("h", &("h".to_owned(), 9093), &[(None, 9094)], &[Listener::default()]),
        version: "0.1.0".to_owned(),
        feature_level: 1,
        fenced: false,
    }
}

#[test]
fn a_session_has_a_higher_incarnation_and_continues_only_what_is_proven() {
    for (what, kept, found, complete, expected) in [
        ("the first", kept(0, 0), None, true, (1, None)),
        ("proven", kept(4, 4), Some(spec(4, 7)), true, (5, Some(4))),
        ("not proven", kept(4, 4), Some(spec(4, 7)), false, (5, None)),
        ("another volume", kept(0, 0), Some(spec(4, 8)), true, (5, None)),
        ("l6_a volume that remembers nothing is empty", kept(0, 0), Some(spec(4, 7)), true, (5, None)),
        ("taken and not registered", kept(6, 4), Some(spec(4, 7)), true, (7, Some(4))),
        ("registered and not noted", kept(5, 4), Some(spec(5, 7)), true, (6, Some(5))),
        ("an older copy of the volume", kept(3, 3), Some(spec(5, 7)), true, (6, None)),
        ("an API that was restored", kept(6, 6), Some(spec(3, 7)), true, (7, None)),
        ("deleted by hand", kept(6, 6), None, true, (7, Some(6))),
    ] {
        assert_eq!(session(&kept, found.as_ref(), &identity(complete)), expected, "{what}");
    }
}

#[test]
fn an_object_is_written_kept_or_left_to_another_process() {
    let own = spec(5, 7);
    let shown = |found: Option<BrokerSpec>| match register("main-2", &own, found.as_ref()) {
        Decision::Keep => "keep".to_owned(),
        Decision::Write(new) => format!("write {} {}", new.incarnation, new.fenced),
        Decision::Refuse(error) => format!("refuse: {error}"),
    };
    assert_eq!(shown(None), "write 5 false");
    assert_eq!(shown(Some(own.clone())), "keep");
    assert_eq!(shown(Some(BrokerSpec { fenced: true, ..own.clone() })), "keep", "it is the controller's");
    assert_eq!(shown(Some(BrokerSpec { zone: Some("b".to_owned()), fenced: true, ..own.clone() })), "write 5 true");
    assert_eq!(shown(Some(BrokerSpec { fenced: true, ..spec(3, 8) })), "write 5 true");
    for other in [spec(6, 7), spec(5, 8), BrokerSpec { boot_id: Id(Uuid::from_u128(1)), ..own.clone() }] {
        assert!(shown(Some(other.clone())).contains("two processes run with one --broker-id"), "{other:?}");
    }
}

#[test]
fn volumes_of_others_are_refused() {
    let (cluster, kept) = (Uuid::from_u128(1), kept(1, 1));
    assert!(decide::check_volume(None, cluster, 0).is_ok());
    assert!(decide::check_volume(Some(&kept), cluster, 2).is_ok());
    let told = |cluster, broker| decide::check_volume(Some(&kept), cluster, broker).unwrap_err().to_string();
    assert!(told(Uuid::from_u128(5), 2).contains("belongs to cluster"));
    assert!(told(cluster, 3).contains("belongs to broker 2 and this is broker 3"));
}

#[test]
fn listeners_are_known_by_their_ports() {
    let listeners = [Listener { name: "shop".to_owned(), port: 9100, ..Listener::default() }, Listener::default()];
    let told = endpoints(
        "main-2.svc",
        &("10.0.0.7".to_owned(), 9093),
        &[9094, 9100, 9101].map(|port| (None, port)),
        &listeners,
    );
    let told: Vec<_> = told.iter().map(|e| format!("{}={}:{}", e.listener, e.host, e.port)).collect();
    assert_eq!(
        told,
        ["internal=10.0.0.7:9093", "grpc=main-2.svc:9094", "shop=main-2.svc:9100", "port-9101=main-2.svc:9101"]
    );
}

struct Bench {
    store: Arc<EmbeddedStore>,
    context: Context,
}

impl Bench {
    /// A cluster with this id.
    async fn new(cluster: u128) -> Self {
        let meta = Disk::new().open().meta();
        let context = Context::seeded(Arc::new(ManualClock::new(0, "boot")), 7, &*meta).unwrap();
        let store = Arc::new(EmbeddedStore::new(context.clone(), meta));
        let state = serde_json::json!({
            "apiVersion": "taffrail.dev/v1alpha1",
            "kind": "ClusterState",
            "metadata": {"name": "main"},
            "spec": {
                "clusterId": Uuid::from_u128(cluster).to_string(), "controllerEpoch": 1, "featureLevel": 1,
                "nextIds": {"producer": 0, "incarnation": 0, "operation": 0}, "internalTopics": [], "topics": {},
            },
        });
        store.create(Kind::ClusterState, "main", state).await.unwrap();
        Self { store, context }
    }

    async fn begin(&self, disk: &Disk) -> Result<Registration, RegistrationError> {
        let storage = disk.open();
        let (store, context, meta, identity) =
            (self.store.clone(), self.context.clone(), storage.meta(), storage.identity());
        let (cluster, host) = ("main".to_owned(), "main-2.main-brokers.shop.svc".to_owned());
        let (broker, internal, ports, zone_file) = (2, (host.clone(), 9093), vec![(None, 9094)], None);
        let settings = Settings { store, meta, identity, context, cluster, broker, host, internal, ports, zone_file };
        tokio::time::timeout(Duration::from_mins(1), Registration::begin(settings)).await.unwrap()
    }

    async fn object(&self) -> Option<Object> {
        self.store.get(Kind::Broker, "main-2").await.unwrap()
    }

    async fn until(&self, is: impl Fn(Option<&Object>) -> bool) {
        for _ in 0..3_000 {
            if is(self.object().await.as_ref()) {
                return;
            }
            sleep(Duration::from_millis(20)).await;
        }
        panic!("{:?}", self.object().await);
    }
}

#[tokio::test]
async fn m11_each_start_is_another_incarnation_whatever_becomes_of_the_object() {
    let (bench, disk) = (Bench::new(1).await, Disk::new());
    for expected in 1..4 {
        let registration = bench.begin(&disk).await.unwrap();
        assert_eq!(registration.incarnation, expected);
        registration.stop().await;
        let object = bench.object().await.unwrap();
        assert_eq!(object.document["spec"]["incarnation"], expected);
        assert_eq!(object.document["metadata"]["labels"][CLUSTER_LABEL], "main");
        if expected == 2 {
            bench.store.delete(&object).await.unwrap();
        }
    }
    // An empty volume goes on from what is registered.
    assert_eq!(bench.begin(&Disk::new()).await.unwrap().incarnation, 4);
}

#[tokio::test]
async fn a_registration_that_was_deleted_or_fenced_is_put_right() {
    let bench = Bench::new(1).await;
    let registration = bench.begin(&Disk::new()).await.unwrap();
    let mut fenced = bench.object().await.unwrap();
    fenced.document["spec"]["fenced"] = true.into();
    fenced.document["spec"]["version"] = "9".into();
    bench.store.replace(&fenced).await.unwrap();
    let right = |o: &Object| o.document["spec"]["version"] == env!("CARGO_PKG_VERSION");
    bench.until(|object| object.is_some_and(|o| right(o) && o.document["spec"]["fenced"] == true)).await;
    bench.store.delete(&bench.object().await.unwrap()).await.unwrap();
    bench.until(|object| object.is_some_and(|o| right(o) && o.document["spec"]["incarnation"] == 1)).await;
    registration.stop().await;
}

#[tokio::test]
async fn the_older_of_two_processes_with_one_number_gives_way() {
    let bench = Bench::new(1).await;
    let first = bench.begin(&Disk::new()).await.unwrap();
    let second = bench.begin(&Disk::new()).await.unwrap();
    let error = tokio::time::timeout(Duration::from_mins(1), first.ended()).await.unwrap();
    assert!(matches!(error, RegistrationError::Replaced { found: 2, own: 1, .. }), "{error}");
    assert_eq!(second.incarnation, 2);
    assert!(second.ended.borrow().is_none());
}

#[tokio::test]
async fn e6_a_process_gives_way_when_others_know_a_newer_session_though_the_api_tells_it_nothing() {
    let bench = Bench::new(1).await;
    let registration = bench.begin(&Disk::new()).await.unwrap();
    let newest = registration.newest();
    for known in [0, registration.incarnation] {
        newest.send_replace(known);
        sleep(Duration::from_millis(50)).await;
        assert!(!registration.is_replaced(), "{known}");
    }
    newest.send_replace(registration.incarnation + 1);
    let error = tokio::time::timeout(Duration::from_mins(1), registration.ended()).await.unwrap();
    assert!(matches!(error, RegistrationError::Replaced { found: 2, own: 1, .. }), "{error}");
    assert!(registration.is_replaced());
}

#[tokio::test]
async fn a_volume_of_another_cluster_is_refused() {
    let disk = Disk::new();
    Bench::new(1).await.begin(&disk).await.unwrap().stop().await;
    let error = Bench::new(2).await.begin(&disk).await.unwrap_err();
    assert!(matches!(error, RegistrationError::OtherCluster { .. }), "{error}");
}
