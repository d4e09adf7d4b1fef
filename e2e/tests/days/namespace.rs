//! A namespace that goes with all that is in it.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use taffrail_e2e::cli::cli;
use taffrail_e2e::faults::ground::IMAGES;
use taffrail_e2e::kubernetes::lab;

use crate::operate::{cluster, endpoint, topic, wait_ready};

/// How long it may take.
const GONE: Duration = Duration::from_mins(1);

#[test]
fn a_namespace_that_holds_everything_is_deleted_within_a_minute() -> Result<()> {
    lab::test(IMAGES, async |lab| {
        lab.install_operator()?;
        let namespace = lab.namespace("all")?;
        namespace.apply(&cluster("", ""))?;
        namespace.apply(&topic("kept", "", ""))?;
        namespace.apply(&topic("brief", "", ", deletionPolicy: Delete"))?;
        wait_ready(&namespace)?;
        for topic in ["kept", "brief"] {
            namespace.wait_topic(topic, 3)?;
            cli(&endpoint(&namespace), &format!("produce {topic}"), "a\nb\nc\n")?.ok()?;
        }
        let begin = Instant::now();
        let timeout = format!("--timeout={}s", GONE.as_secs());
        let deleted = lab.kubectl(&["delete", "namespace", namespace.name(), &timeout])?.ok();
        let left = || lab.kubectl(&["get", "namespace", namespace.name(), "-o", "yaml"]);
        deleted.with_context(|| left().map_or_else(|error| error.to_string(), |ended| ended.out))?;
        println!("the namespace was gone after {:.1?}", begin.elapsed());
        Ok(())
    })
}
