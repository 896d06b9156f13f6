//! Writes what the fuzzers begin with: into the folder of the first argument, a folder for each target.

use std::path::PathBuf;
use std::{env, fs, io};

fn main() -> io::Result<()> {
    let root = PathBuf::from(env::args_os().nth(1).ok_or_else(|| io::Error::other("seeds FOLDER"))?);
    for (target, seeds) in shadow_fuzz::seeds() {
        let folder = root.join(target);
        fs::create_dir_all(&folder)?;
        for (number, seed) in seeds.iter().enumerate() {
            fs::write(folder.join(format!("seed-{number}")), seed)?;
        }
    }
    Ok(())
}
