//! The demo, as a test: exactly the planted regressions are found.

use anyhow::Result;
use shadow_tests::demo;

#[test]
fn exactly_the_planted_regressions_are_found() -> Result<()> {
    demo::run(&|line| eprintln!("{line}")).map(drop)
}
