use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write as _;

use clap::Command;
use tempfile::NamedTempFile;

use super::layers::{Effective, as_text, resolve};
use super::*;

struct Case<'a> {
    mode: Mode,
    flags: &'a [&'a str],
    environment: &'a [(&'a str, &'a str)],
    file: Option<&'a str>,
}

impl Case<'_> {
    fn resolve(&self) -> Result<Effective, Vec<String>> {
        let command = as_text(self.mode.augment(Command::new("t"))).no_binary_name(true);
        let matches = command.try_get_matches_from(self.flags).expect("flags of the case are known");
        let environment: BTreeMap<_, _> = self.environment.iter().copied().collect();
        let file = self.file.map(|text| {
            let mut file = NamedTempFile::new().unwrap();
            file.write_all(text.as_bytes()).unwrap();
            file
        });
        let path = file.as_ref().map(|f| f.path().to_owned());
        let lookup = |name: &str| environment.get(name).map(|v| (*v).to_owned());
        let shown = |fault: &Fault| {
            let text = fault.to_string();
            path.as_ref().map_or_else(|| text.clone(), |p| text.replace(&p.display().to_string(), "FILE"))
        };
        resolve(self.mode, &matches, lookup, path.as_deref()).map_err(|faults| faults.iter().map(shown).collect())
    }

    fn setting(&self, name: &str) -> (String, &'static str) {
        let effective = self.resolve().unwrap();
        let setting = effective.settings.iter().find(|s| s.name == name).unwrap();
        let source = match setting.source {
            Source::Flag(_) => "flag",
            Source::Environment(_) => "environment",
            Source::File(..) => "file",
            Source::Default => "default",
        };
        (setting.values.join(" "), source)
    }
}

const NOTHING: Case<'_> = Case { mode: Mode::Standalone, flags: &[], environment: &[], file: None };

#[test]
fn a_flag_wins_over_the_environment_over_the_file_over_the_default() {
    let file = Some("memory-limit: 300MiB\n");
    let environment: &[_] = &[("TAFFRAIL_MEMORY_LIMIT", "400MiB")];
    let flags: &[_] = &["--memory-limit", "500MiB"];
    for (case, expected) in [
        (NOTHING, ("1GiB", "default")),
        (Case { file, ..NOTHING }, ("300MiB", "file")),
        (Case { environment, file, ..NOTHING }, ("400MiB", "environment")),
        (Case { flags, environment, file, ..NOTHING }, ("500MiB", "flag")),
        (Case { file, environment: &[("TAFFRAIL_MEMORY_LIMIT", "")], ..NOTHING }, ("300MiB", "file")),
    ] {
        let (value, source) = case.setting("memory-limit");
        assert_eq!((value.as_str(), source), expected);
    }
}

#[test]
fn several_listeners_come_from_any_layer() {
    let two = ["grpc://127.0.0.1:1", "grpc://[::1]:2"];
    let flags = Case { flags: &["--listen", two[0], "--listen", two[1]], ..NOTHING };
    let environment = Case { environment: &[("TAFFRAIL_LISTEN", "grpc://127.0.0.1:1, grpc://[::1]:2")], ..NOTHING };
    let file = Case { file: Some("listen:\n- grpc://127.0.0.1:1\n- grpc://[::1]:2\n"), ..NOTHING };
    for case in [flags, environment, file] {
        let listen = case.resolve().unwrap().config.listen;
        assert_eq!(listen.iter().map(ToString::to_string).collect::<Vec<_>>(), two);
    }
}

#[test]
fn all_faults_are_told_at_once_each_with_its_place() {
    let case = Case {
        flags: &["--memory-limit", "5"],
        environment: &[("TAFFRAIL_LOG_FORMAT", "xml"), ("TAFFRAIL_LISTEN", "kafka://127.0.0.1:1")],
        mode: Mode::Standalone,
        file: Some("dataDir: x\nnonsense: 1\ndefault-partitions: 0\nlog-level: {}\nadmin-listen: here\n"),
    };
    let faults = case.resolve().unwrap_err();
    let expected = [
        "FILE:1: there is no setting \"dataDir\": did you mean \"data-dir\"?",
        "FILE:2: there is no setting \"nonsense\"; there are data-dir, listen, admin-listen,",
        "FILE:4: log-level must be a value or a list of values",
        "TAFFRAIL_LISTEN: listen \"kafka://127.0.0.1:1\": unknown protocol kafka://: only grpc:// is served",
        "FILE:5: admin-listen \"here\": write HOST:PORT",
        "--memory-limit: memory-limit \"5\": must be 256MiB to 1TiB",
        "FILE:3: default-partitions \"0\": 0 is not in 1..=10000",
        "TAFFRAIL_LOG_FORMAT: log-format \"xml\": must be one of auto, human, json",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}\nshould begin with\n{expected}");
    }
}

#[test]
fn a_file_that_is_no_mapping_is_told_with_its_line() {
    for (text, expected) in [
        ("- a\n", "FILE: 1:1: Top level must be a mapping"),
        ("a: [\n", "FILE: "),
        ("log-level: info\nlog-level: warn\n", "FILE: "),
        ("memory-limit: [256MiB, 1GiB]", "FILE:1: memory-limit \"256MiB, 1GiB\": only one value is possible"),
    ] {
        let faults = Case { file: Some(text), ..NOTHING }.resolve().unwrap_err();
        assert!(faults.len() == 1 && faults[0].starts_with(expected), "{text}: {faults:?}");
    }
    assert!(Case { file: Some("# nothing yet\n"), ..NOTHING }.resolve().is_ok());
}

#[test]
fn a_listener_that_others_can_reach_wants_a_token_file_or_the_word() {
    let exposed: &[_] = &["--listen", "grpc://0.0.0.0:9094"];
    let faults = Case { flags: exposed, ..NOTHING }.resolve().unwrap_err();
    assert!(faults[0].contains("--token-file FILE") && faults[0].contains("--allow-anonymous"), "{faults:?}");
    for more in [&["--allow-anonymous"][..], &["--allow-anonymous=true"], &["--token-file", "t"]] {
        let flags = [exposed, more].concat();
        assert!(Case { flags: &flags, ..NOTHING }.resolve().is_ok(), "{more:?}");
    }
    let flags = [exposed, &["--allow-anonymous=false"]].concat();
    assert!(Case { flags: &flags, ..NOTHING }.resolve().is_err());
}

#[test]
fn no_two_servers_share_an_address_but_port_0_is_no_address_yet() {
    let flags = &["--listen", "grpc://127.0.0.1:9095"];
    let faults = Case { flags, ..NOTHING }.resolve().unwrap_err();
    assert!(faults[0].contains("given twice"), "{faults:?}");
    let flags = &["--listen", "grpc://127.0.0.1:0", "--listen", "grpc://127.0.0.1:0", "--admin-listen", "127.0.0.1:0"];
    assert!(Case { flags, ..NOTHING }.resolve().is_ok());
}

#[test]
fn what_config_prints_is_a_file_that_gives_the_same_configuration() {
    let flags = &[
        "--listen=grpc://127.0.0.1:1",
        "--listen=grpc://[::1]:2",
        "--data-dir=a: #b\"c",
        "--log-level=info,taffrail_broker=debug",
        "--allow-anonymous",
    ];
    let first = Case { flags, ..NOTHING }.resolve().unwrap();
    let yaml = first.to_yaml();
    assert!(
        yaml.contains("# --data-dir") && yaml.contains("# default") && yaml.contains("# manifest: not set"),
        "{yaml}"
    );
    let second = Case { file: Some(&yaml), ..NOTHING }.resolve().unwrap();
    assert_eq!(first.config, second.config);
}

#[test]
fn log_levels_are_checked_word_for_word() {
    for good in ["info", "off", "warn,h2=error", "info,taffrail_broker::storage=trace"] {
        assert!(good.parse::<Level>().is_ok(), "{good}");
    }
    for bad in ["", "inof", "info,", "info,h2", "=info", "info,h2=loud"] {
        assert!(bad.parse::<Level>().is_err(), "{bad}");
    }
}

#[test]
fn memory_reads_back_as_it_is_shown() {
    for (text, bytes) in [("256MiB", 256 << 20), ("1Gi", 1 << 30), ("1 TiB", 1 << 40), ("268435457", 268_435_457)] {
        let memory: Memory = text.parse().unwrap();
        assert_eq!((memory.bytes(), memory.to_string().parse()), (bytes, Ok(memory)));
    }
    for bad in ["", "GiB", "-1GiB", "1.5GiB", "255MiB", "2TiB", "99999999999999999999", "17179869184TiB"] {
        assert!(bad.parse::<Memory>().is_err(), "{bad}");
    }
}

const IN_CLUSTER: Case<'_> = Case {
    mode: Mode::Cluster,
    flags: &["--broker-id=2"],
    environment: &[("TAFFRAIL_ADVERTISE_HOST", "main-2.main-brokers.shop.svc")],
    file: Some("cluster: main\nnamespace: shop\nrenew-deadline: 3s\n"),
};

#[test]
fn a_broker_of_a_cluster_has_settings_of_its_own() {
    let config = IN_CLUSTER.resolve().unwrap().config;
    let cluster = config.cluster.unwrap();
    assert_eq!((cluster.cluster.as_str(), cluster.namespace.as_str(), cluster.broker_id), ("main", "shop", 2));
    assert_eq!((cluster.advertise_host.as_str(), cluster.internal_host), ("main-2.main-brokers.shop.svc", None));
    let times = [cluster.session_timeout, cluster.lease_duration, cluster.renew_deadline, cluster.retry_period];
    assert_eq!(times.map(|time| time.to_string()), ["6s", "6s", "3s", "1s"]);
    assert_eq!(cluster.internal_listen.to_string(), "0.0.0.0:9093");
    assert_eq!(NOTHING.resolve().unwrap().config.cluster, None);
}

#[test]
fn the_other_brokers_may_reach_a_broker_at_an_address_of_its_own() {
    let given = |host| {
        let environment = &[IN_CLUSTER.environment[0], ("TAFFRAIL_INTERNAL_HOST", host)];
        Case { environment, ..IN_CLUSTER }.resolve().map(|effective| effective.config.cluster.unwrap().internal_host)
    };
    for host in ["10.0.0.7", "fd00::7", "main-2.main-brokers.shop.svc"] {
        assert_eq!(given(host).unwrap().as_deref(), Some(host));
    }
    for wrong in ["10.0.0.7:9093", "[fd00::7]", "a b"] {
        assert!(given(wrong).unwrap_err()[0].contains("without a port"), "{wrong}");
    }
}

#[test]
fn what_is_missing_or_wrong_in_a_cluster_is_told_at_once() {
    let file = "cluster: Main\nnamespace: a.b\nlease-duration: 6\nsession-timeout: 2h\nmanifest: x\n";
    let faults = Case { flags: &[], environment: &[], file: Some(file), ..IN_CLUSTER }.resolve().unwrap_err();
    let expected = [
        "FILE:5: there is no setting \"manifest\" of \"taffrail-broker cluster\": it is one of \"standalone\"",
        "FILE:1: cluster \"Main\": must be the name of a Cluster",
        "FILE:2: namespace \"a.b\": cannot be the name of a namespace",
        "FILE:4: session-timeout \"2h\": must be from 100ms to 1h",
        "FILE:3: lease-duration \"6\": write a time such as 800ms or 6s",
        "broker-id is not set: give --broker-id, or TAFFRAIL_BROKER_ID in the environment",
        "advertise-host is not set",
    ];
    assert_eq!(faults.len(), expected.len(), "{faults:#?}");
    for (fault, expected) in faults.iter().zip(expected) {
        assert!(fault.starts_with(expected), "{fault}\nshould begin with\n{expected}");
    }
}

#[test]
fn values_of_a_cluster_fit_each_other() {
    let flags = &["--broker-id=0", "--retry-period=4s", "--renew-deadline=4s", "--lease-duration=4s"];
    let faults = Case { flags, ..IN_CLUSTER }.resolve().unwrap_err();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].contains("retry-period \"4s\": must be shorter than renew-deadline"), "{faults:?}");
    let flags = &["--broker-id=0", "--internal-listen=127.0.0.1:9095"];
    assert!(Case { flags, ..IN_CLUSTER }.resolve().unwrap_err()[0].contains("given twice"));
}

#[test]
fn settings_of_one_mode_are_not_taken_for_the_other() {
    for (mode, key, other) in [
        (Mode::Standalone, "cluster", "cluster"),
        (Mode::Standalone, "brokers", "dev"),
        (Mode::Cluster, "manifest", "standalone"),
        (Mode::Dev, "kubeconfig", "cluster"),
    ] {
        let command = || as_text(mode.augment(Command::new("t"))).no_binary_name(true);
        assert!(command().try_get_matches_from([format!("--{key}=x")]).is_err());
        let faults = Case { mode, file: Some(&format!("{key}: x\n")), ..NOTHING }.resolve().unwrap_err();
        assert!(faults[0].contains(&format!("it is one of \"{other}\"")), "{faults:?}");
    }
}

const IN_ONE_PROCESS: Case<'_> = Case { mode: Mode::Dev, ..NOTHING };

#[test]
fn brokers_of_one_process_have_addresses_and_memory_of_their_own() {
    let config = IN_ONE_PROCESS.resolve().unwrap().config;
    let dev = config.dev.clone().unwrap();
    assert_eq!((config.data_dir.to_str(), dev.brokers), (Some("taffrail-dev"), 3));
    let addresses = dev.addresses(&config).unwrap();
    let ports: Vec<_> = addresses.iter().map(|at| [at.internal, at.listen, at.admin].map(|at| at.port())).collect();
    assert_eq!(ports, [[9093, 9094, 9095], [9103, 9104, 9105], [9113, 9114, 9115]]);
    assert_eq!(dev.memory(&config).to_string(), "341MiB");

    let flags = &["--listen=grpc://127.0.0.1:0", "--admin-listen=127.0.0.1:0", "--internal-listen=127.0.0.1:0"];
    let config = Case { flags, ..IN_ONE_PROCESS }.resolve().unwrap().config;
    let addresses = config.dev.as_ref().unwrap().addresses(&config).unwrap();
    assert!(addresses.iter().all(|at| [at.listen, at.admin, at.internal].iter().all(|at| at.port() == 0)));
}

#[test]
fn clients_of_brokers_of_one_process_are_told_an_address_that_they_can_reach() {
    for (flags, host) in [
        (&[][..], "127.0.0.1"),
        (&["--listen=grpc://10.0.0.7:9094", "--allow-anonymous"], "10.0.0.7"),
        (&["--listen=grpc://0.0.0.0:9094", "--allow-anonymous"], "127.0.0.1"),
        (&["--listen=grpc://0.0.0.0:9094", "--allow-anonymous", "--advertise-host=me"], "me"),
        (&["--listen=grpc://[::1]:9094"], "localhost"),
    ] {
        let config = Case { flags, ..IN_ONE_PROCESS }.resolve().unwrap().config;
        assert_eq!(config.dev.as_ref().unwrap().host(&config), host, "{flags:?}");
    }
}

#[test]
fn what_does_not_fit_brokers_of_one_process_is_told() {
    for (flags, expected) in [
        (&["--brokers=0"][..], "brokers \"0\": 0 is not in 1..=9"),
        (&["--listen=grpc://127.0.0.1:1", "--listen=grpc://127.0.0.1:2"], "one address is given"),
        (&["--internal-listen=0.0.0.0:9093"], "brokers trust each other"),
        (&["--brokers=4", "--memory-limit=500MiB"], "must be 128MiB for each of 4 brokers"),
        (&["--brokers=3", "--listen=grpc://127.0.0.1:65530"], "there are not enough: begin lower"),
        (&["--listen=grpc://127.0.0.1:9105"], "127.0.0.1:9105 is given twice"),
        (&["--listen=grpc://0.0.0.0:9094"], "--allow-anonymous"),
    ] {
        let faults = Case { flags, ..IN_ONE_PROCESS }.resolve().unwrap_err();
        assert!(faults.iter().any(|fault| fault.contains(expected)), "{flags:?}: {faults:?}");
    }
}

fn rows(mode: Mode, but: &[String]) -> String {
    let mut out = String::from("| flag | environment | default | meaning |\n|---|---|---|---|\n");
    for arg in mode.augment(Command::new("t")).get_arguments() {
        let flag = arg.get_long().unwrap();
        let variable = format!("TAFFRAIL_{}", flag.to_uppercase().replace('-', "_"));
        let default =
            arg.get_default_values().first().map(|v| format!("`{}`", v.to_string_lossy())).unwrap_or_default();
        if !but.contains(&flag.to_owned()) {
            writeln!(out, "| `--{flag}` | `{variable}` | {default} | {}. |", arg.get_help().unwrap()).unwrap();
        }
    }
    out
}

fn reference() -> String {
    let alone = Mode::Standalone.augment(Command::new("t"));
    let alone: Vec<String> = alone.get_arguments().filter_map(|arg| Some(arg.get_long()?.to_owned())).collect();
    format!(
        "# Configuration of the broker\n\nEach setting can be given as a flag, as an environment variable, or in the YAML file that `--config` \
         (or `TAFFRAIL_CONFIG`)\nnames, where the keys are the names of the flags without dashes in front. A flag wins over the \
         environment, that over the file.\nLists are separated by commas in the environment. `taffrail-broker config` shows what \
         is in force and where each value comes\nfrom.\n\nThis page is made from the program: `UPDATE=1 cargo test --release -p \
         taffrail-broker config`.\n\n{}\n## In a cluster\n\n`taffrail-broker cluster` has all of these but `--manifest`, and those below; `taffrail-broker \
         config --mode cluster` shows them.\n\n{}\n## A cluster in one process\n\n`taffrail-broker dev` has all of the first table, with `taffrail-dev` as the default of `--data-dir` \
         and the addresses of broker 0,\nand those below; `taffrail-broker config --mode dev` shows them.\n\n{}",
        rows(Mode::Standalone, &[]),
        rows(Mode::Cluster, &alone),
        rows(Mode::Dev, &alone)
    )
}

#[test]
fn the_reference_in_docs_is_that_of_the_program() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/configuration.md");
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(path, reference()).unwrap();
    }
    let committed = std::fs::read_to_string(path).unwrap_or_default();
    assert!(committed == reference(), "docs/configuration.md differs from the program; it says how to renew it");
}
