//! `cargo xtask demo`: builds the agent and the demo, then becomes the demo.

use anyhow::Result;

use crate::setup::{self, Need};
use crate::{rings, sh};

/// `cargo xtask demo`.
pub(crate) fn run() -> Result<()> {
    sh::require_root("the demo")?;
    setup::ensure(Need::Test)?;
    rings::build_programs("e2e")?;
    let mut demo = sh::program(rings::built("e2e", "demo"));
    demo.env("SHADOW_TESTS_AGENT", rings::built("e2e", "shadow-agent"));
    sh::become_program(&mut demo)
}
