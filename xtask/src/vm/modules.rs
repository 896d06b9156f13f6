//! The kernel modules that the tests need, with what those depend on, in the order in which they can be loaded.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::sh;

/// What the tests make and attach to. What a kernel has no file for is built in, or the tests say what they miss.
const NEEDED: [&str; 14] = [
    "veth",
    "dummy",
    "bridge",
    "8021q",
    "macvlan",
    "ifb",
    "tun",
    "sch_ingress",
    "cls_bpf",
    "cls_u32",
    "cls_matchall",
    "act_bpf",
    "act_gact",
    "act_mirred",
];
/// The deepest chain of modules that is followed: more would be a circle.
const MOST_DEPTH: usize = 16;

/// A module: its name, and its content as the kernel takes it.
pub(super) struct Module {
    pub(super) name: String,
    pub(super) content: Vec<u8>,
}

/// The modules needed from a folder, each after those it depends on.
pub(super) fn needed(folder: &Path) -> Result<Vec<Module>> {
    let mut files = BTreeMap::new();
    find(&folder.join("kernel"), &mut files)?;
    let mut modules = Vec::new();
    for name in NEEDED {
        add(name, &files, &mut modules, 0)?;
    }
    Ok(modules)
}

fn add(name: &str, files: &BTreeMap<String, PathBuf>, modules: &mut Vec<Module>, depth: usize) -> Result<()> {
    ensure!(depth < MOST_DEPTH, "module {name} depends on itself");
    if modules.iter().any(|module| module.name == name) {
        return Ok(());
    }
    let Some(path) = files.get(name) else { return Ok(()) };
    let content = read(path)?;
    for dependency in dependencies(&content) {
        add(&dependency, files, modules, depth + 1)?;
    }
    modules.push(Module { name: name.to_owned(), content });
    Ok(())
}

/// Finds all modules below a folder, by name.
fn find(folder: &Path, files: &mut BTreeMap<String, PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            find(&entry.path(), files)?;
        } else if let Some((name, "ko" | "ko.xz")) =
            entry.file_name().to_str().and_then(|name| name.split_once('.'))
        {
            files.insert(name.replace('-', "_"), entry.path());
        }
    }
    Ok(())
}

fn read(path: &Path) -> Result<Vec<u8>> {
    if path.extension().is_some_and(|extension| extension == "xz") {
        let output = sh::program("busybox").arg("xzcat").arg(path).output().context("starting busybox")?;
        ensure!(output.status.success(), "{} cannot be decompressed", path.display());
        return Ok(output.stdout);
    }
    fs::read(path).with_context(|| format!("reading {}", path.display()))
}

/// The modules that a module says it depends on.
fn dependencies(content: &[u8]) -> Vec<String> {
    const FIELD: &[u8] = b"depends=";
    let Some(at) = content.windows(FIELD.len()).position(|window| window == FIELD) else { return Vec::new() };
    let list = content.get(at + FIELD.len()..).unwrap_or_default();
    let list = list.split(|&byte| byte == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(list);
    names.split(',').filter(|name| !name.is_empty()).map(|name| name.replace('-', "_")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dependencies_are_read_from_the_module_s_information() {
        for (content, expected) in [
            (&b"\0license=GPL\0depends=llc,stp-x\0name=bridge\0"[..], &["llc", "stp_x"][..]),
            (b"\0depends=\0name=veth\0", &[]),
            (b"\0name=veth\0", &[]),
            (b"depends=a", &["a"]),
            (b"", &[]),
        ] {
            assert_eq!(dependencies(content), expected);
        }
    }
}
