//! The program `taffrail-broker`.

#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    // For tests, which kill the broker between two steps.
    if let Err(error) = taffrail_broker::crash::arm_from_environment() {
        eprintln!("error: {error}");
        return std::process::ExitCode::from(2);
    }
    taffrail_broker::cli::run(std::env::args_os())
}
