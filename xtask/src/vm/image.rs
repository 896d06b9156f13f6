//! Puts together what a virtual machine boots into: busybox, the tests with their libraries, and the kernel's modules.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};

use super::archive::Archive;
use super::modules::Module;
use crate::sh;

const INIT: &str = include_str!("init.sh");
/// What the tests call.
const PROGRAMS: [&str; 2] = ["ip", "tc"];

/// What is the same for every kernel.
#[derive(Clone)]
pub(super) struct Image {
    archive: Archive,
}

/// How long the machine may take, in seconds.
#[derive(Clone, Copy)]
pub(super) struct Limits {
    /// For everything, after which it turns itself off.
    pub(super) machine: u64,
    /// For one test.
    pub(super) test: u64,
}

impl Image {
    /// Takes the test program, and runs those of its tests that are named.
    pub(super) fn new(program: &Path, tests: &[String], limits: Limits) -> Result<Image> {
        let mut archive = Archive::default();
        archive.file("init", INIT.as_bytes());
        archive.file("bin/busybox", &read(&find("busybox")?)?);
        for (name, content) in [("passwd", "root:x:0:0::/:/bin/sh\n"), ("group", "root:x:0:\n")] {
            archive.file(&format!("etc/{name}"), content.as_bytes());
        }
        for folder in ["proc", "sys", "dev", "run", "tmp", "vm/modules"] {
            archive.directory(folder);
        }
        archive.file("vm/test", &read(program)?);
        archive.file("vm/tests.list", lines(tests.iter().map(String::as_str)).as_bytes());
        archive.file("vm/limits", format!("{} {}\n", limits.machine, limits.test).as_bytes());
        let mut libraries = libraries(program)?;
        for name in PROGRAMS {
            let path = find(name)?;
            libraries.extend(self::libraries(&path)?);
            archive.file(&format!("usr/sbin/{name}"), &read(&path)?);
        }
        for library in libraries {
            archive.file(library.trim_start_matches('/'), &read(Path::new(&library))?);
        }
        Ok(Image { archive })
    }

    /// The image for a kernel with these modules.
    pub(super) fn with(&self, modules: &[Module]) -> Vec<u8> {
        let mut archive = self.archive.clone();
        for Module { name, content } in modules {
            archive.file(&format!("vm/modules/{name}"), content);
        }
        archive.file("vm/modules.list", lines(modules.iter().map(|module| module.name.as_str())).as_bytes());
        archive.finish()
    }
}

fn lines<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words.map(|word| format!("{word}\n")).collect()
}

fn read(path: &Path) -> Result<Vec<u8>> {
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// A program on `PATH` or where only root looks.
fn find(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(["/usr/sbin", "/sbin"].map(PathBuf::from));
    let mut found = folders.map(|folder| folder.join(name)).filter(|path| path.exists());
    found.next().ok_or_else(|| anyhow!("{name} is not installed; run `cargo xtask setup`"))
}

/// The shared libraries that a program is linked with, its loader included.
fn libraries(program: &Path) -> Result<BTreeSet<String>> {
    let output = sh::program("ldd").arg(program).output().context("`ldd` could not be started")?;
    let said = String::from_utf8_lossy(&output.stdout);
    let found = listed(&said);
    if said.contains("not found") {
        bail!("{} lacks a library: {}", program.display(), said.trim());
    }
    Ok(found)
}

/// The files in what `ldd` prints.
fn listed(said: &str) -> BTreeSet<String> {
    let words = said.split_whitespace();
    words.filter(|word| word.starts_with('/') && !word.ends_with(':')).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_the_loader_are_listed_once_and_the_kernel_s_own_is_not() {
        let said = "\tlinux-vdso.so.1 (0x00007f94)\n\tlibc.so.6 => /lib/x/libc.so.6 (0x00007f94)\n\
                    \tlibm.so.6 => /lib/x/libm.so.6 (0x1)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f94)\n";
        let expected = ["/lib/x/libc.so.6", "/lib/x/libm.so.6", "/lib64/ld-linux-x86-64.so.2"];
        assert_eq!(listed(said).into_iter().collect::<Vec<_>>(), expected);
        assert_eq!(listed("\tstatically linked\n"), BTreeSet::new());
    }
}
