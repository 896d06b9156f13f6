//! Reads the descriptor set that `compare.descriptors` names, so that what is wrong with it is known before anything
//! starts.

use std::fs::File;
use std::io::Read;

use super::super::{DescriptorFile, Problem, units};
use crate::compare::descriptors::Descriptors;

/// The largest descriptor set, in bytes.
const MAX_FILE: u64 = 64 << 20;

pub(super) fn load(path: &str) -> Result<DescriptorFile, Problem> {
    load_within(path, MAX_FILE)
}

fn load_within(path: &str, most: u64) -> Result<DescriptorFile, Problem> {
    let unreadable = |error: std::io::Error| Problem::DescriptorsUnreadable {
        path: path.to_owned(),
        problem: error.to_string(),
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    let read = file.take(most + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if read as u64 > most {
        return Err(Problem::DescriptorsTooLarge { path: path.to_owned(), most: units::write_size(most) });
    }
    let descriptors =
        Descriptors::parse(&bytes).map_err(|error| Problem::Descriptors { path: path.to_owned(), error })?;
    Ok(DescriptorFile { path: path.into(), descriptors })
}

#[cfg(test)]
mod tests {
    use prost_reflect::prost::Message;

    use super::*;
    use crate::compare::descriptors::tests::set;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let bytes = set().encode_to_vec();
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), &bytes).unwrap();
        let path = file.path().to_str().unwrap();
        let size = bytes.len() as u64;
        let loaded = load_within(path, size).unwrap();
        assert_eq!((loaded.path.as_path(), &loaded), (file.path(), &load(path).unwrap()));
        let error = load_within(path, size - 1).unwrap_err().to_string();
        assert!(
            error.starts_with(&format!("`{path}` is larger than {}", units::write_size(size - 1))),
            "{error}"
        );
    }
}
