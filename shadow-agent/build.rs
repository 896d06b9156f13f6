//! Builds the kernel programs and leaves the object where `capture::kernel` embeds it from.
//!
//! `SHADOW_EBPF_SKIP=1` leaves an empty object instead; the agent then refuses to capture.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const OBJECT: &str = "shadow-programs";
const SKIP: &str = "SHADOW_EBPF_SKIP";
/// Its LLVM must be that of the compiler; `cargo xtask setup` sees to it.
const LINKER: &str = "bpf-linker";

fn main() -> ExitCode {
    match build() {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            println!("cargo::error={problem}");
            ExitCode::FAILURE
        }
    }
}

fn build() -> Result<(), String> {
    let out = PathBuf::from(variable("OUT_DIR")?);
    let package = PathBuf::from(variable("CARGO_MANIFEST_DIR")?).join("../shadow-ebpf");
    println!("cargo::rerun-if-env-changed={SKIP}");
    for input in ["src", "Cargo.toml", "../Cargo.toml", "../Cargo.lock", "../rust-toolchain.toml"] {
        println!("cargo::rerun-if-changed={}", package.join(input).display());
    }
    let object = out.join(OBJECT);
    if env::var_os(SKIP).is_some_and(|value| value == "1") {
        return fs::write(&object, []).map_err(|error| format!("cannot write {}: {error}", object.display()));
    }
    if !Command::new(LINKER).arg("--version").output().is_ok_and(|output| output.status.success()) {
        return Err(format!(
            "{LINKER} is not on PATH, and the kernel programs cannot be linked without it: run `cargo xtask setup`"
        ));
    }
    let target = out.join("ebpf");
    compile(&package, &target)?;
    let built = target.join(triple()?).join("release").join(OBJECT);
    fs::copy(&built, &object).map_err(|error| format!("cannot copy {}: {error}", built.display()))?;
    Ok(())
}

fn compile(package: &Path, target: &Path) -> Result<(), String> {
    let architecture = variable("CARGO_CFG_TARGET_ARCH")?.to_string_lossy().into_owned();
    let flags = [
        format!("--cfg=bpf_target_arch=\"{architecture}\""),
        // Map definitions and their key and value types are read from BTF, which is made of debug information.
        "-Cdebuginfo=2".into(),
        "-Clink-arg=--btf".into(),
    ];
    let output = Command::new(variable("CARGO")?)
        .current_dir(package)
        .args(["build", "--release", "--locked", "--bins", "-Z", "build-std=core"])
        .args(["--target", triple()?, "--target-dir"])
        .arg(target)
        // Building `core` for a target without one is unstable; the stable compiler does it when told so.
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\x1f"))
        .env_remove("RUSTC")
        .env_remove("RUSTC_WRAPPER")
        .env_remove("RUSTC_WORKSPACE_WRAPPER")
        .output()
        .map_err(|error| format!("cannot run cargo for the kernel programs: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    for line in String::from_utf8_lossy(&output.stderr).lines().filter(|line| !line.trim().is_empty()) {
        println!("cargo::warning={line}");
    }
    Err("the kernel programs do not build (see the lines above); if `core` or the linker's LLVM is the trouble, \
         run `cargo xtask setup`"
        .into())
}

fn triple() -> Result<&'static str, String> {
    Ok(if variable("CARGO_CFG_TARGET_ENDIAN")? == "big" {
        "bpfeb-unknown-none"
    } else {
        "bpfel-unknown-none"
    })
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("{name} is not set: this is a build script, run by cargo"))
}
