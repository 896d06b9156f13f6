//! `cargo xtask ci`: everything that a change must pass, in the order in which failures are cheapest to find.

use std::fs;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::setup::{self, Need};
use crate::{rings, sh};

/// What the README promises a reader can type; `ci` runs them or what they stand for.
const PROMISED: [&str; 7] = [
    "cargo xtask demo",
    "cargo xtask test",
    "cargo xtask vm-test",
    "cargo xtask bench live",
    "cargo xtask bench kernel",
    "cargo xtask bench overhead",
    "shadow-agent run",
];

/// `cargo xtask ci`.
pub(crate) fn run() -> Result<()> {
    sh::require_root("`ci` runs every ring of the tests, which")?;
    setup::ensure(Need::Ci)?;
    sh::step("format");
    sh::run(sh::cargo().args(["fmt", "--all", "--", "--check"]))?;
    sh::step("promises of the documentation");
    documentation()?;
    sh::step("dependencies: licences, bans, sources, unused ones");
    sh::run(sh::cargo().args(["fetch", "--locked"]))?;
    sh::run(sh::cargo().args(["deny", "--offline", "check", "bans", "licenses", "sources"]))?;
    // Asked by its own name: under `cargo run` it takes "machete" for a folder.
    sh::run(sh::program("cargo-machete").arg("--skip-target-dir"))?;
    sh::step("lints, host");
    sh::run(sh::cargo().args([
        "clippy",
        "--locked",
        "--workspace",
        "--all-targets",
        "--",
        "-D",
        "warnings",
    ]))?;
    sh::step("lints, kernel program");
    sh::run(&mut kernel_clippy())?;
    sh::step("documentation");
    sh::run(
        sh::cargo().args(["doc", "--locked", "--workspace", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"),
    )?;
    sh::run(sh::cargo().args(["test", "--locked", "--workspace", "--doc"]))?;
    rings::run(&rings::Options::for_ci())
}

/// Clippy over the kernel program for the BPF target, which has no standard library but the one built from source.
fn kernel_clippy() -> Command {
    let mut command = sh::cargo();
    command
        .args([
            "clippy",
            "--locked",
            "-p",
            "shadow-ebpf",
            "--lib",
            "--bins",
            "--target",
            "bpfel-unknown-none",
        ])
        .args(["-Z", "build-std=core", "--", "-D", "warnings"])
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", "--cfg=bpf_target_arch=\"x86_64\"");
    command
}

/// The README names the commands that exist, and the files that users are pointed at are there.
fn documentation() -> Result<()> {
    let root = sh::root();
    for file in ["README.md", "ARCHITECTURE.md", "CHANGELOG.md"] {
        let text = fs::read_to_string(root.join(file)).with_context(|| format!("{file} is missing"))?;
        ensure!(!text.trim().is_empty(), "{file} is empty");
        if file == "README.md" {
            for promise in PROMISED {
                ensure!(text.contains(promise), "README.md does not mention `{promise}`");
            }
        }
    }
    Ok(())
}
