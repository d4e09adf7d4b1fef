//! Storage in memory, for tests: the contract without the disk.
