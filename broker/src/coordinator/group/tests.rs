mod crowd;
mod expiry;
mod handover;
mod harness;
mod membership;
mod offsets;
mod statics;
mod topics;
