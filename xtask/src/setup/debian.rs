//! Packages of the operating system. On Debian and its relatives they are installed; elsewhere they are named.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};

use super::Need;
use super::tools::LLVM;
use crate::sh;

/// A package, what it gives us, and a file that shows that it is there on systems without dpkg.
struct Package {
    name: &'static str,
    gives: &'static str,
    need: Need,
    program: Option<&'static str>,
}

const PACKAGES: &[Package] = &[
    Package {
        name: "llvm-22-dev",
        gives: "LLVM 22 with headers, for bpf-linker",
        need: Need::Build,
        program: None,
    },
    Package { name: "gcc", gives: "a C linker", need: Need::Build, program: Some("cc") },
    Package { name: "g++", gives: "libstdc++, for linking LLVM", need: Need::Build, program: Some("c++") },
    Package { name: "iproute2", gives: "ip and tc", need: Need::Test, program: Some("ip") },
    Package { name: "util-linux", gives: "setpriv", need: Need::Test, program: Some("setpriv") },
    Package { name: "curl", gives: "curl", need: Need::Test, program: Some("curl") },
    Package { name: "nftables", gives: "nft", need: Need::Test, program: Some("nft") },
    Package { name: "nginx-light", gives: "nginx", need: Need::Test, program: Some("nginx") },
    Package { name: "apache2-utils", gives: "ab", need: Need::Test, program: Some("ab") },
    Package { name: "wrk", gives: "wrk", need: Need::Test, program: Some("wrk") },
    Package { name: "tcpdump", gives: "tcpdump", need: Need::Test, program: Some("tcpdump") },
    Package { name: "tshark", gives: "tshark", need: Need::Test, program: Some("tshark") },
    Package { name: "apache2", gives: "apache2", need: Need::Test, program: Some("apache2") },
    Package { name: "haproxy", gives: "haproxy", need: Need::Test, program: Some("haproxy") },
    Package { name: "nodejs", gives: "node", need: Need::Test, program: Some("node") },
    Package {
        name: "node-har-validator",
        gives: "a validator of HTTP archives",
        need: Need::Test,
        program: None,
    },
    Package { name: "nghttp2-client", gives: "h2load", need: Need::Test, program: Some("h2load") },
    Package { name: "gunicorn", gives: "gunicorn and Python 3", need: Need::Test, program: Some("gunicorn") },
    Package { name: "python3-pip", gives: "pip", need: Need::Test, program: None },
    Package {
        name: "prometheus",
        gives: "prometheus and promtool",
        need: Need::Test,
        program: Some("promtool"),
    },
    Package {
        name: "qemu-system-x86",
        gives: "virtual machines",
        need: Need::Vm,
        program: Some("qemu-system-x86_64"),
    },
    Package {
        name: "busybox-static",
        gives: "the first programs of a virtual machine",
        need: Need::Vm,
        program: Some("busybox"),
    },
];

/// Services that Debian's packaging would start at the next boot, with the package that brings them.
const SERVICES: &[(&str, &str)] =
    &[("nginx-light", "nginx"), ("prometheus", "prometheus"), ("apache2", "apache2"), ("haproxy", "haproxy")];

/// Installs without starting any service: `policy-rc.d` refuses, and goes away again whatever happens. One that is
/// there already is left as it is.
const INSTALL: &str = r#"
policy=/usr/sbin/policy-rc.d
if [ ! -e "$policy" ]; then
    trap 'rm -f "$policy"' EXIT
    trap 'exit 130' INT TERM
    printf '#!/bin/sh\nexit 101\n' >"$policy" && chmod 755 "$policy" || exit 1
fi
apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --option Dpkg::Use-Pty=0 --yes --no-install-recommends "$@"
"#;

/// Installs the packages that are missing for `need`; returns their names.
pub(super) fn packages(need: Need) -> Result<Vec<String>> {
    let wanted: Vec<&Package> = PACKAGES.iter().filter(|package| package.need <= need).collect();
    if !Path::new("/usr/bin/apt-get").exists() {
        return elsewhere(&wanted);
    }
    let missing: Vec<&str> =
        wanted.iter().map(|package| package.name).filter(|name| !is_installed(name)).collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let list = missing.join(" ");
    if !sh::is_root() {
        bail!(
            "these Debian packages are missing: {list}; install them with `sudo apt-get install \
             --no-install-recommends {list}` and run the command again"
        );
    }
    sh::step(&format!("Debian packages: {list}"));
    let mut command = sh::program("sh");
    command.args(["-c", INSTALL, "apt-get"]).args(&missing);
    sh::run_as(&format!("apt-get install {list}"), &mut command).with_context(|| {
        format!(
            "installing {list}; where the distribution has no llvm-{LLVM}-dev, add the repository of apt.llvm.org"
        )
    })?;
    for (_, service) in SERVICES.iter().filter(|(package, _)| missing.contains(package)) {
        // Not every system runs systemd, and then there is nothing to disable.
        let _ = sh::output("systemctl", &["disable", "--quiet", service]);
    }
    Ok(missing.into_iter().map(str::to_owned).collect())
}

fn is_installed(package: &str) -> bool {
    sh::output("dpkg-query", &["--show", "--showformat=${db:Status-Status}", package])
        .is_some_and(|status| status == "installed")
}

/// Names what to install where there is no apt; satisfied when every program is on PATH.
fn elsewhere(wanted: &[&Package]) -> Result<Vec<String>> {
    let on_path = |program: &str| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&path).any(|folder| folder.join(program).exists())
    };
    let missing: Vec<String> = wanted
        .iter()
        .filter(|package| package.program.is_some_and(|program| !on_path(program)))
        .map(|package| format!("  {:<14} {}", package.name, package.gives))
        .collect();
    if missing.is_empty() {
        return Ok(Vec::new());
    }
    let system = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("this system");
    bail!(
        "setup installs packages on Debian only; on {} install what gives the following (Debian's names), and LLVM \
         {LLVM} with headers, then run the command again:\n{}",
        name.trim_matches('"'),
        missing.join("\n")
    )
}
