//! Measurements against this machine's limits: `make bench`.
//!
//! - [`parts`]: what there is to measure; [`sitting`]: one run; [`figures`]: what must be reached;
//! - [`limits`]: what the machine can do; [`load`], [`appender`]: load without the client library, and without a broker;
//! - [`engine`], [`cold`], [`mixed`], [`stream`], [`produce`], [`client`], [`scale`], [`group`], [`coordinator`] with
//!   [`members`], [`hostile`], [`cluster`], [`failover`]: the parts;
//! - [`probe`], [`profile`]: what a process used, and where; [`results`], [`environment`], [`report`]: what is written down.

pub mod appender;
pub mod client;
pub mod cluster;
pub mod cold;
pub mod coordinator;
pub mod engine;
pub mod environment;
pub mod failover;
pub mod figures;
pub mod group;
pub mod hostile;
pub mod limits;
pub mod load;
pub mod members;
pub mod mixed;
pub mod parts;
pub mod probe;
pub mod produce;
pub mod profile;
pub mod report;
pub mod results;
pub mod scale;
pub mod sitting;
pub mod stream;
