//! stub
/// x
#[derive(Clone, Debug)]
pub enum Leadership {
    /// x
    Acting {
        /// e
        epoch: i32,
        /// u
        write_until: tokio::time::Instant,
    },
    /// x
    Follower,
}
