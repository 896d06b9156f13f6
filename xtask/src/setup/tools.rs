//! What comes from rustup and cargo: components of the pinned toolchain, the BPF linker, and the checkers of `ci`.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::sh;

/// The LLVM of the pinned compiler; change it together with `rust-toolchain.toml`.
pub(super) const LLVM: u32 = 22;

/// A program that cargo installs.
struct Tool {
    name: &'static str,
    version: &'static str,
    features: Option<&'static str>,
}

const BPF_LINKER: Tool = Tool { name: "bpf-linker", version: "0.13.0", features: Some("llvm-22") };

const CHECKERS: [Tool; 2] = [
    Tool { name: "cargo-deny", version: "0.20.2", features: None },
    Tool { name: "cargo-machete", version: "0.9.2", features: None },
];

const FUZZER: Tool = Tool { name: "cargo-fuzz", version: "0.13.2", features: None };

/// The components of the pinned toolchain that the build needs; returns those that were missing.
pub(super) fn rust_components() -> Result<Vec<String>> {
    let Some(sysroot) = sh::output("rustc", &["--print", "sysroot"]) else {
        bail!("rustc does not run; install rustup, and with it the toolchain that rust-toolchain.toml names");
    };
    let there = |path: &str| Path::new(&sysroot).join(path).exists();
    let parts = [
        ("rust-src", there("lib/rustlib/src/rust/library/core")),
        ("clippy", there("bin/cargo-clippy")),
        ("rustfmt", there("bin/rustfmt")),
    ];
    let missing: Vec<&str> = parts.into_iter().filter(|(_, there)| !there).map(|(name, _)| name).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    sh::step(&format!("Rust components: {}", missing.join(" ")));
    sh::run(sh::program("rustup").args(["component", "add"]).args(&missing)).with_context(|| {
        format!("without rustup, install {} of this compiler's version yourself", missing.join(" and "))
    })?;
    Ok(missing.into_iter().map(str::to_owned).collect())
}

/// The linker of the kernel program, built against the compiler's LLVM.
pub(super) fn bpf_linker() -> Result<Option<String>> {
    install(&BPF_LINKER)
}

/// What `ci` runs beside cargo.
pub(super) fn checkers() -> Result<Vec<String>> {
    let mut installed = Vec::new();
    for tool in &CHECKERS {
        installed.extend(install(tool)?);
    }
    Ok(installed)
}

/// What builds the fuzz targets.
pub(super) fn fuzzer() -> Result<Option<String>> {
    install(&FUZZER)
}

/// The toolchain that Miri comes with: any nightly will do.
const NIGHTLY: &str = "nightly";

/// `cargo miri` of a nightly toolchain, installed if it is missing.
pub(super) fn miri() -> Result<Command> {
    let found = sh::output("rustup", &["run", NIGHTLY, "cargo", "miri", "--version"]);
    let sysroot = sh::output("rustup", &["run", NIGHTLY, "rustc", "--print", "sysroot"]).unwrap_or_default();
    if found.is_none() || !Path::new(sysroot.trim()).join("lib/rustlib/src/rust/library/core").exists() {
        sh::step("Miri, and the nightly toolchain that it needs");
        let words = ["toolchain", "install", NIGHTLY, "--profile", "minimal", "--component", "miri,rust-src"];
        sh::run(sh::program("rustup").args(words)).context("Miri needs rustup, and a nightly toolchain")?;
    }
    let mut command = sh::program("rustup");
    command.args(["run", NIGHTLY, "cargo", "miri"]);
    // Those of the compiler that runs this would be taken for Miri's own.
    for name in ["CARGO", "RUSTC", "RUSTUP_TOOLCHAIN"] {
        command.env_remove(name);
    }
    Ok(command)
}

fn install(tool: &Tool) -> Result<Option<String>> {
    let Tool { name, version, .. } = *tool;
    let found = sh::output(name, &["--version"]).unwrap_or_default();
    if found.split_whitespace().any(|word| word == version) {
        return Ok(None);
    }
    sh::step(&format!("{name} {version}: built once, which takes a few minutes"));
    let mut command = sh::cargo();
    // These are ours to run, not to debug: the package's own profile with link-time optimisation takes far longer.
    command.env("CARGO_PROFILE_RELEASE_LTO", "off");
    command.args(["install", name, "--version", version, "--locked"]);
    if let Some(features) = tool.features {
        let llvm = format!("/usr/lib/llvm-{LLVM}");
        if Path::new(&llvm).exists() {
            command.env("LLVM_PREFIX", llvm);
        }
        command.args(["--no-default-features", "--features", features]);
    }
    sh::run(&mut command)?;
    Ok(Some(format!("{name} {version}")))
}
