//! The OpenTelemetry collector that the end-to-end tests tell their spans to. Debian has none; this one comes as a Python
//! wheel, of which only the program in it is used, and the wheel is known by its digest.

use std::env;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};

use crate::sh;

const NAME: &str = "rotel-agent";
/// The version of the wheel, and what the program in it says of itself.
const VERSION: &str = "0.0.1a15";
const SAYS: &str = "0.0.1-alpha10-e6a2d53";

/// Machines for which there is a wheel: the name of its platform, and its SHA-256.
const WHEELS: [(&str, &str, &str); 2] = [
    ("x86_64", "manylinux_2_34_x86_64", "2f4117e58410c933e0dc042a268ef738dab2e3a5d63b5831209acdac2a6ddcb7"),
    ("aarch64", "manylinux_2_34_aarch64", "4eb01f9e5d228e4086f63e16cf1d0fa6e92b724bde51f120932a742acec5b0ba"),
];

/// Puts the collector beside what cargo installs, unless it is there.
pub(super) fn install() -> Result<Option<String>> {
    if sh::output(NAME, &["version"]).is_some_and(|says| says.trim() == SAYS) {
        return Ok(None);
    }
    let Some((_, platform, digest)) = WHEELS.into_iter().find(|(machine, ..)| *machine == env::consts::ARCH)
    else {
        bail!(
            "there is no {NAME} {VERSION} for {}; put the program of that name into a folder of PATH",
            env::consts::ARCH
        );
    };
    sh::step(&format!("{NAME} {VERSION}: the collector that spans are told to in tests"));
    let folder = sh::target_directory().join("setup").join(NAME);
    fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let wanted = folder.join("wanted.txt");
    fs::write(&wanted, format!("rotel=={VERSION} --hash=sha256:{digest}\n"))?;
    sh::run(
        sh::program("python3")
            .args(["-m", "pip", "download", "--quiet", "--require-hashes", "--no-deps"])
            .args(["--only-binary", ":all:", "--implementation", "cp", "--python-version", "311"])
            .args(["--platform", platform, "--dest"])
            .arg(&folder)
            .arg("--requirement")
            .arg(&wanted),
    )?;
    let wheel = folder.join(format!("rotel-{VERSION}-cp311-cp311-{platform}.whl"));
    sh::run(sh::program("python3").args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&folder))?;
    let program = folder.join("rotel").join(NAME);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))?;
    let home = home()?;
    fs::create_dir_all(&home).with_context(|| format!("making {}", home.display()))?;
    let place = home.join(NAME);
    fs::copy(&program, &place).with_context(|| format!("writing {}", place.display()))?;
    fs::remove_dir_all(&folder)?;
    if sh::output(NAME, &["version"]).is_none() {
        bail!("{} does not run, or its folder is not in PATH; put it there", place.display());
    }
    Ok(Some(format!("{NAME} {VERSION}")))
}

/// Where cargo puts programs.
fn home() -> Result<PathBuf> {
    let cargo = env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo = cargo.or_else(|| env::home_dir().map(|home| home.join(".cargo")));
    Ok(cargo.context("neither CARGO_HOME nor HOME is set")?.join("bin"))
}
