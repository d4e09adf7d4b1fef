//! The program `taffrail-operator`.

fn main() -> std::process::ExitCode {
    // For tests, which kill the operator between two steps.
    if let Err(error) = taffrail_operator::crash::arm_from_environment() {
        eprintln!("error: {error}");
        return std::process::ExitCode::from(2);
    }
    taffrail_operator::cli::run(std::env::args_os())
}
