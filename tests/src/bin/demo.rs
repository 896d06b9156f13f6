//! What `cargo xtask demo` becomes: runs the demo and says how it ended.

#![expect(clippy::print_stdout, reason = "what it says is its purpose")]

use std::process::ExitCode;

use shadow_tests::{demo, process};

fn main() -> ExitCode {
    let outcome = process::stop_on_signals().and_then(|()| demo::run(&|line| println!("{line}")));
    match outcome {
        Ok(_) => {
            println!("demo passed: exactly the planted regressions were found");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("demo failed: {error:#}");
            ExitCode::FAILURE
        }
    }
}
