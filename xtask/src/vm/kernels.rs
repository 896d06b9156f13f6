//! Which Debian kernels there are, and the cache of those that were downloaded.

use std::collections::BTreeSet;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use anyhow::{Context, Error, Result, anyhow, bail};

use super::apt::Apt;
use crate::sh;

const FLAVOUR: &str = "-cloud-amd64";

/// A kernel that somebody asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// The newest of a series such as 6.12.
    Series(u32, u32),
    /// The newest there is.
    Newest,
}

impl Wanted {
    fn accepts(self, release: &Release) -> bool {
        match self {
            Wanted::Series(major, minor) => release.numbers.starts_with(&[major, minor]),
            Wanted::Newest => true,
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Wanted::Series(major, minor) => write!(to, "{major}.{minor}"),
            Wanted::Newest => to.write_str("newest"),
        }
    }
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Wanted, String> {
        if text == "newest" {
            return Ok(Wanted::Newest);
        }
        let (major, minor) = text.split_once('.').unwrap_or_default();
        match (major.parse(), minor.parse()) {
            (Ok(major), Ok(minor)) => Ok(Wanted::Series(major, minor)),
            _ => Err("expected a series such as 6.12, or newest".to_owned()),
        }
    }
}

/// A release of the kernel, as `uname -r` gives it, ordered by its numbers.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Release {
    numbers: Vec<u32>,
    name: String,
}

impl Release {
    /// The release with that name, such as `6.12.9+deb13-cloud-amd64`; `None` for any other name.
    fn parse(name: &str) -> Option<Release> {
        let version = name.strip_suffix(FLAVOUR)?;
        // A metapackage has two numbers only.
        let three = version.split(['.', '-', '+']).take(3).filter(|part| part.parse::<u32>().is_ok()).count();
        let digits = version.split(|character: char| !character.is_ascii_digit());
        let numbers = digits.filter_map(|digits| digits.parse().ok()).collect();
        (three == 3).then(|| Release { numbers, name: name.to_owned() })
    }

    /// `uname -r`.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The numbers that people call it by, such as `6.12.9`; Debian's own revision where that says more.
    pub(super) fn short(&self) -> &str {
        let version = self.name.strip_suffix(FLAVOUR).unwrap_or(&self.name);
        version.split('+').next().unwrap_or(version)
    }
}

/// A kernel that can be installed as a whole, and the packages that it consists of.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Offer {
    release: Release,
    packages: Vec<String>,
}

/// What the archive offers, by the names of its packages. Kernels of which a part is missing are left out.
fn offers(packages: &[String]) -> BTreeSet<Offer> {
    let names: BTreeSet<&str> = packages.iter().map(String::as_str).collect();
    let offer = |name: &str| {
        let release = Release::parse(name.strip_prefix("linux-image-")?)?;
        // Since 6.19 image and modules are packages of their own.
        let [binary, modules] = ["binary", "modules"].map(|part| format!("linux-{part}-{}", release.name));
        let packages = match (names.contains(&*binary), names.contains(&*modules)) {
            (true, true) => vec![binary, modules],
            (false, false) => vec![name.to_owned()],
            _ => return None,
        };
        Some(Offer { release, packages })
    };
    names.iter().filter_map(|name| offer(name)).collect()
}

/// A kernel in the cache.
#[derive(Clone, Debug)]
pub(super) struct Kernel {
    pub(super) release: Release,
    folder: PathBuf,
}

impl Kernel {
    /// The image that boots.
    pub(super) fn image(&self) -> PathBuf {
        self.folder.join("vmlinuz")
    }

    /// The folder of its modules.
    pub(super) fn modules(&self) -> PathBuf {
        self.folder.join("modules")
    }
}

/// The folder of kernels that were downloaded.
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn open(folder: PathBuf) -> Result<Cache> {
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        Ok(Cache { folder })
    }

    /// The newest of every series in `wanted`, oldest first: downloaded where the archive has a newer one than the
    /// cache, taken from the cache where the archive cannot be asked.
    pub(super) fn provide(
        &self,
        wanted: &[Wanted],
        refresh: bool,
        mirror: Option<&str>,
    ) -> Result<Vec<Kernel>> {
        let (apt, trouble) = match self.ask(refresh, mirror) {
            Ok((apt, offers, trouble)) => (Some((apt, offers)), trouble),
            Err(error) => (None, Some(error)),
        };
        if let Some(error) = &trouble {
            sh::say(&format!("note: {error:#}; going by what was fetched before"));
        }
        let mut kernels: Vec<Kernel> = Vec::new();
        for &wanted in wanted {
            let cached = self.cached()?.into_iter().rfind(|kernel| wanted.accepts(&kernel.release));
            let offered = apt.as_ref().and_then(|(apt, offers)| {
                let newest = offers.iter().rfind(|offer| wanted.accepts(&offer.release))?;
                Some((apt, newest))
            });
            let kernel = match (cached, offered) {
                (Some(cached), Some((_, offer))) if cached.release >= offer.release => cached,
                (None, Some((apt, offer))) => self.fetch(apt, offer)?,
                (Some(cached), Some((apt, offer))) => self.fetch(apt, offer).unwrap_or_else(|error| {
                    sh::say(&format!("note: {error:#}; taking {} from the cache", cached.release.name));
                    cached
                }),
                (Some(cached), None) => cached,
                (None, None) => {
                    let error = match trouble {
                        Some(error) => error,
                        None => anyhow!("Debian's archive does not offer one; look again with --refresh"),
                    };
                    return Err(error.context(format!("no kernel {wanted} is in the cache")));
                }
            };
            if !kernels.iter().any(|known| known.release == kernel.release) {
                kernels.push(kernel);
            }
        }
        kernels.sort_by(|left, right| left.release.cmp(&right.release));
        Ok(kernels)
    }

    /// Asks the archive what it offers; gives as well why the lists could not be fetched, or not all of them.
    fn ask(&self, refresh: bool, mirror: Option<&str>) -> Result<(Apt, BTreeSet<Offer>, Option<Error>)> {
        let apt = Apt::open(&self.folder.join("apt"), mirror)?;
        let mut trouble = None;
        if refresh || !apt.is_fresh() {
            sh::step("lists of Debian's kernels");
            // One suite that is gone takes nothing from the others.
            trouble = apt.update().err();
        }
        let offers = offers(&apt.names("linux-")?);
        Ok((apt, offers, trouble))
    }

    /// Everything in the cache, oldest first.
    fn cached(&self) -> Result<Vec<Kernel>> {
        let folder = self.folder.join("kernels");
        fs::create_dir_all(&folder).with_context(|| format!("creating {}", folder.display()))?;
        let mut kernels = Vec::new();
        for entry in fs::read_dir(&folder)? {
            let entry = entry?;
            if let Some(release) = entry.file_name().to_str().and_then(Release::parse) {
                kernels.push(Kernel { release, folder: entry.path() });
            }
        }
        kernels.sort_by(|left, right| left.release.cmp(&right.release));
        Ok(kernels)
    }

    /// Downloads and unpacks a kernel, and forgets older ones of its series.
    fn fetch(&self, apt: &Apt, offer: &Offer) -> Result<Kernel> {
        let Offer { release, packages } = offer;
        sh::step(&format!("kernel {}", release.name));
        let work = self.folder.join(format!("unpacking-{}", std::process::id()));
        fs::create_dir_all(&work).with_context(|| format!("creating {}", work.display()))?;
        let unpacked = apt.download(packages, &work).and_then(|()| unpack(release, &work));
        let result = unpacked.and_then(|ready| {
            let folder = self.folder.join("kernels").join(&release.name);
            fs::rename(&ready, &folder).with_context(|| format!("creating {}", folder.display()))?;
            Ok(Kernel { release: release.clone(), folder })
        });
        // What is left there is of no use, whatever came of it.
        let _ = fs::remove_dir_all(&work);
        let kernel = result?;
        let series = |release: &Release| release.numbers.get(..2).map(<[u32]>::to_vec);
        for old in self.cached()? {
            if series(&old.release) == series(release) && old.release < *release {
                let _ = fs::remove_dir_all(&old.folder);
            }
        }
        Ok(kernel)
    }
}

/// Unpacks the packages in a folder; gives a folder with the image and the modules.
fn unpack(release: &Release, work: &Path) -> Result<PathBuf> {
    let (tree, ready) = (work.join("tree"), work.join("ready"));
    for entry in fs::read_dir(work)? {
        let package = entry?.path();
        if package.extension().is_some_and(|extension| extension == "deb") {
            let mut command = sh::program("dpkg-deb");
            command.arg("--extract").arg(&package).arg(&tree);
            sh::run_as(&format!("dpkg-deb --extract {}", shown(&package)), &mut command)?;
        }
    }
    fs::create_dir_all(&ready)?;
    let name = &release.name;
    let one_of = |places: [String; 2]| {
        let found = places.iter().map(|place| tree.join(place)).find(|path| path.exists());
        found.ok_or_else(|| anyhow!("the packages of {name} have neither {}", places.join(" nor ")))
    };
    let image = one_of([format!("boot/vmlinuz-{name}"), format!("usr/lib/modules/{name}/vmlinuz")])?;
    fs::rename(image, ready.join("vmlinuz"))?;
    let modules = one_of([format!("lib/modules/{name}"), format!("usr/lib/modules/{name}")])?;
    fs::rename(modules, ready.join("modules"))?;
    if !ready.join("modules/kernel").is_dir() {
        bail!("the packages of {name} hold no modules");
    }
    Ok(ready)
}

fn shown(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_told_from_metapackages_and_ordered_by_their_numbers() {
        let ordered = [
            "5.10.0-30-cloud-amd64",
            "5.10.0-46-cloud-amd64",
            "6.1.0-0.deb11.52-cloud-amd64",
            "6.1.0-9-cloud-amd64",
            "6.1.0-56-cloud-amd64",
            "6.12.99+deb13-cloud-amd64",
            "6.12.115+deb12-cloud-amd64",
            "6.12.115+deb13-cloud-amd64",
            "6.12.115+deb13.1-cloud-amd64",
            "7.2.13+deb14-cloud-amd64",
        ];
        let releases: Vec<Release> = ordered.iter().map(|name| Release::parse(name).unwrap()).collect();
        assert!(releases.is_sorted(), "{releases:?}");
        for other in
            ["6.12-cloud-amd64", "cloud-amd64", "6.12.9-amd64", "6.12.9-cloud-amd64-dbg", "6.1.x-cloud-amd64"]
        {
            assert_eq!(Release::parse(other), None, "{other}");
        }
        let short: Vec<&str> = releases.iter().map(Release::short).collect();
        assert_eq!((short[1], short[9]), ("5.10.0-46", "7.2.13"));
    }

    #[test]
    fn what_is_wanted_is_a_series_or_the_newest() {
        for (text, expected) in [
            ("6.12", Some(Wanted::Series(6, 12))),
            ("newest", Some(Wanted::Newest)),
            ("6", None),
            ("6.12.1", None),
            ("", None),
        ] {
            assert_eq!(text.parse::<Wanted>().ok(), expected, "{text}");
        }
        let release = Release::parse("6.1.0-56-cloud-amd64").unwrap();
        assert!(Wanted::Series(6, 1).accepts(&release) && Wanted::Newest.accepts(&release));
        assert!(!Wanted::Series(6, 12).accepts(&release));
    }

    #[test]
    fn kernels_of_which_a_part_is_missing_are_not_offered() {
        let check = |packages: &[&str], expected: &[&[&str]]| {
            let packages: Vec<String> = packages.iter().map(|name| (*name).to_owned()).collect();
            let found: Vec<Vec<String>> = offers(&packages).into_iter().map(|offer| offer.packages).collect();
            assert_eq!(found, expected, "{packages:?}");
        };
        let whole = "linux-image-6.1.0-56-cloud-amd64";
        let image = "linux-image-7.2.1+deb13-cloud-amd64";
        let binary = "linux-binary-7.2.1+deb13-cloud-amd64";
        let modules = "linux-modules-7.2.1+deb13-cloud-amd64";
        check(&[], &[]);
        check(&["linux-image-6.1-cloud-amd64", "linux-image-6.1.0-56-cloud-amd64-dbg"], &[]);
        check(&[image, binary, modules, whole], &[&[whole], &[binary, modules]]);
        check(&[image, binary], &[]);
        check(&[image, modules], &[]);
        check(&[binary, modules], &[]);
    }
}
