//! Measurements against this machine's limits: `make bench`.
//!
//! - [`sitting`]: one run; [`limits`]: what the machine can do; [`load`]: load without the client library;
//! - [`produce`], [`client`], [`scale`]: the parts; [`figures`]: what they must reach; [`report`]: tables and plots.

pub mod client;
pub mod figures;
pub mod limits;
pub mod load;
pub mod probe;
pub mod produce;
pub mod report;
pub mod scale;
pub mod sitting;
