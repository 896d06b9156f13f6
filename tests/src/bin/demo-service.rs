//! The demo service as a program; `shadow_tests::service` says what it does.

use anyhow::Result;
use clap::Parser;
use shadow_tests::service::{self, Options};

/// A small shop, in production's version or in the candidate's.
#[derive(Debug, Parser)]
#[command(after_help = "Example:\n  demo-service --version candidate --port 8081 --log requests.jsonl")]
struct Arguments {
    #[command(flatten)]
    options: Options,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    service::serve(Arguments::parse().options).await
}
