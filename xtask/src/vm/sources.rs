//! Finds the Debian mirrors that this machine's own apt sources name. Reads text; asks nobody.

use std::fs;
use std::path::Path;

/// Debian's suites by name: what tells its mirrors from other repositories.
const SUITES: [&str; 10] = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
];

/// Where Debian's packages come from.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Mirrors {
    /// The archive.
    pub(super) archive: Option<String>,
    /// The archive of security updates.
    pub(super) security: Option<String>,
}

impl Mirrors {
    /// Reads `/etc/apt`.
    pub(super) fn of_this_machine() -> Mirrors {
        let mut mirrors = Mirrors::default();
        let folder = fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten();
        let mut files: Vec<_> = folder.map(|entry| entry.path()).collect();
        files.sort_unstable();
        files.insert(0, "/etc/apt/sources.list".into());
        for file in files {
            let text = fs::read_to_string(&file).unwrap_or_default();
            match file.extension().and_then(|extension| extension.to_str()) {
                Some("list") => mirrors.read_lines(&text),
                Some("sources") => mirrors.read_stanzas(&text),
                _ => {}
            }
        }
        mirrors
    }

    /// Reads the one-line format: `deb [options] URI suite component …`.
    fn read_lines(&mut self, text: &str) {
        for line in text.lines() {
            let Some(rest) = line.trim().strip_prefix("deb ") else { continue };
            let rest = match rest.trim_start().strip_prefix('[') {
                Some(options) => options.split_once(']').map_or("", |(_, rest)| rest),
                None => rest,
            };
            let mut words = rest.split_whitespace();
            if let (Some(uri), Some(suite)) = (words.next(), words.next()) {
                self.add(uri, suite);
            }
        }
    }

    /// Reads the format of stanzas: `URIs: …` and `Suites: …`, stanzas separated by empty lines.
    fn read_stanzas(&mut self, text: &str) {
        let lines: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        for stanza in lines.split(|line| line.trim().is_empty()) {
            let words = |name: &str| -> Vec<&str> {
                let line = stanza.iter().find_map(|line| {
                    let (field, value) = line.split_once(':')?;
                    field.eq_ignore_ascii_case(name).then_some(value)
                });
                line.unwrap_or_default().split_whitespace().collect()
            };
            if !words("Types").contains(&"deb") || words("Enabled") == ["no"] {
                continue;
            }
            for uri in words("URIs") {
                for suite in words("Suites") {
                    self.add(uri, suite);
                }
            }
        }
    }

    /// Takes the first mirror of each kind.
    fn add(&mut self, uri: &str, suite: &str) {
        let (name, part) = suite.split_once(['-', '/']).unwrap_or((suite, ""));
        if !SUITES.contains(&name) {
            return;
        }
        let place = match part {
            "security" | "updates" if suite.contains("security") || suite.contains('/') => &mut self.security,
            _ => &mut self.archive,
        };
        place.get_or_insert_with(|| uri.to_owned());
    }

    /// The lines of a sources list with everything that kernels are taken from.
    pub(super) fn list(&self, keyring: &Path) -> String {
        const ARCHIVE: [&str; 5] = ["bullseye", "bookworm", "trixie", "trixie-backports", "sid"];
        const SECURITY: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];
        let keyring = keyring.display();
        let lines = |uri: &Option<String>, suites: &[&str]| -> String {
            let Some(uri) = uri else { return String::new() };
            suites
                .iter()
                .map(|suite| format!("deb [arch=amd64 signed-by={keyring}] {uri} {suite} main\n"))
                .collect()
        };
        lines(&self.archive, &ARCHIVE) + &lines(&self.security, &SECURITY)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mirrors(archive: Option<&str>, security: Option<&str>) -> Mirrors {
        Mirrors { archive: archive.map(str::to_owned), security: security.map(str::to_owned) }
    }

    #[test]
    fn mirrors_are_found_in_both_formats_and_nothing_else_is_taken_for_one() {
        let check = |lines: &str, stanzas: &str, expected: Mirrors| {
            let mut found = Mirrors::default();
            found.read_lines(lines);
            found.read_stanzas(stanzas);
            assert_eq!(found, expected, "{lines}{stanzas}");
        };
        check("", "", mirrors(None, None));
        check("deb http://a/debian bookworm main contrib\n", "", mirrors(Some("http://a/debian"), None));
        check(
            "# deb http://x/debian sid main\ndeb [arch=amd64 signed-by=/k] http://a/d sid main\n",
            "",
            mirrors(Some("http://a/d"), None),
        );
        check(
            "deb http://a/s bookworm-security main\ndeb http://a/d bookworm-updates main\n",
            "",
            mirrors(Some("http://a/d"), Some("http://a/s")),
        );
        check("deb http://a/s buster/updates main\n", "", mirrors(None, None));
        check("deb http://a/s stable/updates main\n", "", mirrors(None, Some("http://a/s")));
        check("deb-src http://a/d sid main\ndeb http://a/cloud sdk-bookworm main\n", "", mirrors(None, None));
        check(
            "",
            "Types: deb\n# a comment\nURIs: http://a/d\nSuites: trixie trixie-updates\n\nTypes: deb\nURIs: http://a/s\n\
             Suites: trixie-security\n",
            mirrors(Some("http://a/d"), Some("http://a/s")),
        );
        check("", "Types: deb\nURIs: http://a/d\nSuites: nodistro\n", mirrors(None, None));
        check("", "Types: deb\nEnabled: no\nURIs: http://a/d\nSuites: sid\n", mirrors(None, None));
        check("", "Types: deb-src\nURIs: http://a/d\nSuites: sid\n", mirrors(None, None));
    }

    #[test]
    fn the_list_names_every_suite_of_the_mirrors_there_are() {
        let list = |mirrors: &Mirrors| mirrors.list(Path::new("/keys.gpg"));
        assert_eq!(list(&mirrors(None, None)), "");
        let archive = list(&mirrors(Some("http://a/d"), None));
        assert_eq!(archive.lines().count(), 5);
        assert!(archive.starts_with("deb [arch=amd64 signed-by=/keys.gpg] http://a/d bullseye main\n"));
        assert_eq!(list(&mirrors(Some("http://a/d"), Some("http://a/s"))).lines().count(), 8);
    }
}
