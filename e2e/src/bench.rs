//! Measurements against this machine's limits: `make bench`.

pub mod figures;
pub mod limits;
pub mod load;
pub mod probe;
pub mod report;
