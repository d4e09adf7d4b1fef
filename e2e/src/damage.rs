//! Bits that flip in files, as worn-out disks and bad cables flip them.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// Which file.
    pub file: PathBuf,
    /// Which byte, from 0.
    pub at: u64,
}

/// Files below `dir` whose names `wanted` accepts, by name.
pub fn files(dir: &Path, wanted: &dyn Fn(&str) -> bool) -> Result<Vec<PathBuf>> {
    let mut found = vec![];
    for entry in std::fs::read_dir(dir).with_context(|| dir.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() {
            found.extend(files(&path, wanted)?);
        } else if path.file_name().and_then(|name| name.to_str()).is_some_and(wanted) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

/// Where these bytes lie first among files below `dir` whose names `wanted` accepts.
pub fn find(dir: &Path, wanted: &dyn Fn(&str) -> bool, bytes: &[u8]) -> Result<Place> {
    let looked = files(dir, wanted)?;
    for file in &looked {
        let content = std::fs::read(file)?;
        if let Some(at) = position(&content, bytes) {
            return Ok(Place { file: file.clone(), at: at as u64 });
        }
    }
    anyhow::bail!("the bytes are in none of {looked:?}")
}

/// First occurrence of `needle`: a search for its first byte, then a comparison.
fn position(content: &[u8], needle: &[u8]) -> Option<usize> {
    content.windows(needle.len()).position(|window| window[0] == needle[0] && window == needle)
}

/// Flips the lowest bit of a byte.
pub fn flip(place: &Place) -> Result<()> {
    let file = File::options().read(true).write(true).open(&place.file)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, place.at)?;
    file.write_all_at(&[byte[0] ^ 1], place.at)?;
    Ok(file.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_found_and_one_bit_of_them_flipped() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("below")).unwrap();
        let file = dir.path().join("below/7.sst");
        std::fs::write(&file, b"....needle..").unwrap();
        let place =
            find(dir.path(), &|name| Path::new(name).extension().is_some_and(|e| e == "sst"), b"needle").unwrap();
        assert_eq!(place, Place { file: file.clone(), at: 4 });
        flip(&place).unwrap();
        assert_eq!(std::fs::read(&file).unwrap(), b"....oeedle..");
        assert!(find(dir.path(), &|name| Path::new(name).extension().is_some_and(|e| e == "log"), b"needle").is_err());
    }
}
