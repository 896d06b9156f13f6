//! Writes an archive that the kernel unpacks as its first file system (cpio, format `newc`). Knows no file by itself.

/// The alignment of names and contents.
const ALIGNMENT: usize = 4;
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;

/// The archive under way.
#[derive(Clone, Default)]
pub(super) struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    directories: Vec<String>,
}

impl Archive {
    /// Adds a directory and those above it, once each. Paths have no leading slash.
    pub(super) fn directory(&mut self, path: &str) {
        for (at, _) in path.match_indices('/').chain([(path.len(), "")]) {
            let part = path.get(..at).unwrap_or_default();
            if !part.is_empty() && !self.directories.iter().any(|known| known == part) {
                self.directories.push(part.to_owned());
                self.entry(part, DIRECTORY | 0o755, &[]);
            }
        }
    }

    /// Adds a file that may be run, and the directories above it.
    pub(super) fn file(&mut self, path: &str, content: &[u8]) {
        self.parent(path);
        self.entry(path, REGULAR | 0o755, content);
    }

    /// The archive, complete.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }

    fn parent(&mut self, path: &str) {
        if let Some((folder, _)) = path.rsplit_once('/') {
            self.directory(folder);
        }
    }

    fn entry(&mut self, path: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let size = u32::try_from(content.len()).unwrap_or(u32::MAX);
        let name = u32::try_from(path.len() + 1).unwrap_or(u32::MAX);
        // Inode, mode, user, group, links, time, size, device and device of the node (two numbers each), name, checksum.
        let fields = [self.entries, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(path.bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(ALIGNMENT), 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Name, mode and content of every entry.
    fn entries(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        while !bytes.is_empty() {
            let field = |at: usize| {
                let text = std::str::from_utf8(&bytes[6 + 8 * at..][..8]).unwrap();
                u32::from_str_radix(text, 16).unwrap()
            };
            assert_eq!(&bytes[..6], b"070701");
            let (mode, size, name) = (field(1), field(6) as usize, field(11) as usize);
            let start = (110 + name).next_multiple_of(ALIGNMENT);
            assert_eq!(bytes[110 + name - 1], 0, "a name ends with a zero");
            let title = String::from_utf8(bytes[110..110 + name - 1].to_vec()).unwrap();
            entries.push((title, mode, bytes[start..start + size].to_vec()));
            bytes = &bytes[(start + size).next_multiple_of(ALIGNMENT)..];
        }
        entries
    }

    #[test]
    fn entries_are_aligned_and_folders_come_before_what_is_in_them() {
        let mut archive = Archive::default();
        archive.file("usr/lib/x/one", b"content");
        archive.file("usr/lib/two", b"");
        archive.directory("usr");
        let folder = |name: &str| (name.to_owned(), DIRECTORY | 0o755, Vec::new());
        let file = |name: &str, content: &[u8]| (name.to_owned(), REGULAR | 0o755, content.to_vec());
        assert_eq!(
            entries(&archive.finish()),
            [
                folder("usr"),
                folder("usr/lib"),
                folder("usr/lib/x"),
                file("usr/lib/x/one", b"content"),
                file("usr/lib/two", b""),
                ("TRAILER!!!".to_owned(), 0, Vec::new()),
            ]
        );
    }
}
