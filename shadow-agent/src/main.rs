//! Starts the agent: arguments, logging, one command, exit code.

use std::process::ExitCode;

use clap::Parser;
use shadow_agent::cli::Cli;
use shadow_agent::{commands, logging};

fn main() -> ExitCode {
    let cli = Cli::parse();
    logging::start(&cli.log);
    match commands::execute(&cli.command) {
        Ok(exit) => exit.into(),
        Err(error) => {
            logging::fail(&error);
            commands::exit_of(&error).into()
        }
    }
}
