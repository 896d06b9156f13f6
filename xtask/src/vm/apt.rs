//! apt with directories of its own: looks up and downloads Debian packages, verified by Debian's signatures.
//!
//! Nothing is installed and nothing below `/var` or `/etc` is written. Proxies and the like come from the machine's own
//! configuration of apt.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail, ensure};

use super::sources::Mirrors;
use crate::sh;

const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";
/// How long lists of packages are good for.
const FRESH: Duration = Duration::from_secs(7 * 24 * 3600);

/// The private apt.
pub(super) struct Apt {
    configuration: PathBuf,
    updated: PathBuf,
}

impl Apt {
    /// Prepares its directories below `folder`.
    ///
    /// # Errors
    /// When this machine has no apt, names no mirror of Debian and none is given, or does not have Debian's keys.
    pub(super) fn open(folder: &Path, mirror: Option<&str>) -> Result<Apt> {
        ensure!(
            Path::new("/usr/bin/apt-get").exists(),
            "`vm-test` takes its kernels from Debian packages, and this system has no apt-get; run it on Debian or one \
             of its relatives"
        );
        ensure!(
            Path::new(KEYRING).exists(),
            "{KEYRING} is missing, without which Debian's signatures cannot be verified; install \
             debian-archive-keyring"
        );
        let mut mirrors = Mirrors::of_this_machine();
        if let Some(mirror) = mirror {
            mirrors.archive = Some(mirror.to_owned());
        }
        ensure!(
            mirrors.archive.is_some(),
            "the apt sources of this machine name no mirror of Debian; name one with --mirror"
        );
        for part in ["state/lists/partial", "cache/archives/partial"] {
            let part = folder.join(part);
            fs::create_dir_all(&part).with_context(|| format!("creating {}", part.display()))?;
        }
        let write = |name: &str, content: &str| -> Result<PathBuf> {
            let path = folder.join(name);
            fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
            Ok(path)
        };
        write("state/status", "")?;
        let list = write("sources.list", &mirrors.list(Path::new(KEYRING)))?;
        let configuration = write("apt.conf", &configuration(folder, &list))?;
        Ok(Apt { configuration, updated: folder.join("updated") })
    }

    /// Whether the lists of packages are recent enough.
    pub(super) fn is_fresh(&self) -> bool {
        let updated = self.updated.metadata().and_then(|metadata| metadata.modified());
        updated.is_ok_and(|time| SystemTime::now().duration_since(time).is_ok_and(|age| age < FRESH))
    }

    /// Fetches the lists of packages. Suites that cannot be fetched keep what there was of them.
    pub(super) fn update(&self) -> Result<()> {
        sh::run_as("apt-get update (in target/vm)", self.command("apt-get").args(["--quiet=2", "update"]))
            .context("Debian's archive could not be asked; is there a network, or does apt need a proxy?")?;
        File::create(&self.updated).with_context(|| format!("writing {}", self.updated.display()))?;
        Ok(())
    }

    /// The names of all packages that begin with `prefix`.
    pub(super) fn names(&self, prefix: &str) -> Result<Vec<String>> {
        let output = self.command("apt-cache").args(["pkgnames", prefix]).output()?;
        if !output.status.success() {
            bail!("`apt-cache pkgnames` failed: {}", String::from_utf8_lossy(&output.stderr).trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect())
    }

    /// Downloads packages into a folder.
    pub(super) fn download(&self, packages: &[String], into: &Path) -> Result<()> {
        let mut command = self.command("apt-get");
        command.args(["--quiet=2", "download"]).args(packages).current_dir(into);
        sh::run_as(&format!("apt-get download {}", packages.join(" ")), &mut command)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = sh::program(name);
        command.arg("--config-file").arg(&self.configuration).stdin(Stdio::null());
        command
    }
}

/// Read after the machine's own configuration, of which it replaces the directories and removes the hooks.
fn configuration(folder: &Path, list: &Path) -> String {
    let (folder, list) = (folder.display(), list.display());
    format!(
        "#clear APT::Update::Pre-Invoke;\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n\
         #clear Acquire::IndexTargets::deb::DEP-11;\n\
         APT::Architecture \"amd64\";\n\
         APT::Architectures \"amd64\";\n\
         APT::Sandbox::User \"root\";\n\
         APT::Update::Error-Mode \"any\";\n\
         Acquire::Languages \"none\";\n\
         Dir::State \"{folder}/state\";\n\
         Dir::State::lists \"{folder}/state/lists\";\n\
         Dir::State::status \"{folder}/state/status\";\n\
         Dir::Cache \"{folder}/cache\";\n\
         Dir::Cache::archives \"{folder}/cache/archives\";\n\
         Dir::Etc::sourcelist \"{list}\";\n\
         Dir::Etc::sourceparts \"/dev/null\";\n"
    )
}
