//! The program `taffrail-broker`.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    taffrail_broker::cli::run(std::env::args_os())
}
