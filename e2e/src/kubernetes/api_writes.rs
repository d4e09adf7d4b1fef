//! What is written to a Kubernetes API, by the API server's own count.

use std::collections::BTreeMap;

use anyhow::{Context, Result};

use super::ApiServer;

/// How often something was written, by verb and resource, such as "PUT leases".
pub type Writes = BTreeMap<String, u64>;

/// All that it has answered until now.
pub fn writes(api: &ApiServer) -> Result<Writes> {
    let metrics = api.kubectl(&["get", "--raw", "/metrics"])?.ok()?;
    let mut writes = Writes::new();
    for line in metrics.lines().filter(|line| line.starts_with("apiserver_request_total{")) {
        let label = |name: &str| {
            let (_, rest) = line.split_once(&format!("{name}=\""))?;
            rest.split('"').next()
        };
        let (verb, resource) = (label("verb").context("verb")?, label("resource").context("resource")?);
        if matches!(verb, "POST" | "PUT" | "PATCH" | "APPLY" | "DELETE" | "DELETECOLLECTION") {
            let count: f64 = line.rsplit(' ').next().context("value")?.parse()?;
            *writes.entry(format!("{verb} {resource}")).or_default() += count as u64;
        }
    }
    Ok(writes)
}

/// What was written between two counts.
pub fn since(after: &Writes, before: &Writes) -> Writes {
    let more = |(what, count): (&String, &u64)| {
        let more = count - before.get(what).copied().unwrap_or_default();
        (more > 0).then(|| (what.clone(), more))
    };
    after.iter().filter_map(more).collect()
}
