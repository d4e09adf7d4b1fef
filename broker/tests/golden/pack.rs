//! Files in a file: for each its name and its bytes, each behind its length (`u32` big endian).

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Files by their names, with `/` between folders.
#[derive(Debug, Default)]
pub(crate) struct Pack(BTreeMap<String, Vec<u8>>);

impl Pack {
    pub(crate) fn add(&mut self, name: &str, bytes: &[u8]) {
        self.0.insert(name.to_owned(), bytes.to_vec());
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    pub(crate) fn names(&self) -> Vec<&str> {
        self.0.keys().map(String::as_str).collect()
    }

    pub(crate) fn file(&self, name: &str) -> Option<&[u8]> {
        self.0.get(name).map(Vec::as_slice)
    }

    /// All files of a data directory but those that tell people what happened, and the lock.
    pub(crate) fn of(dir: &Path) -> Self {
        let mut pack = Self::default();
        pack.gather(dir, "");
        pack.0.retain(|name, _| {
            let name = name.rsplit('/').next().unwrap_or_default();
            !name.starts_with("LOG") && !name.starts_with("OPTIONS") && !name.eq_ignore_ascii_case("lock")
        });
        pack
    }

    fn gather(&mut self, dir: &Path, prefix: &str) {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let name = format!("{prefix}{}", entry.file_name().to_str().unwrap());
            if entry.file_type().unwrap().is_dir() {
                self.gather(&entry.path(), &format!("{name}/"));
            } else {
                self.add(&name, &fs::read(entry.path()).unwrap());
            }
        }
    }

    pub(crate) fn unpack(&self, dir: &Path) {
        for (name, bytes) in &self.0 {
            let path = dir.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, bytes).unwrap();
        }
    }

    pub(crate) fn write(&self, path: &Path) {
        let part = |bytes: &[u8]| [&(bytes.len() as u32).to_be_bytes()[..], bytes].concat();
        let file = |(name, bytes): (&String, &Vec<u8>)| [part(name.as_bytes()), part(bytes)].concat();
        fs::write(path, self.0.iter().flat_map(file).collect::<Vec<u8>>()).unwrap();
    }

    pub(crate) fn read(path: &Path) -> Self {
        let (bytes, mut pack) = (fs::read(path).unwrap(), Self::default());
        let mut rest = bytes.as_slice();
        let take = |rest: &mut &[u8]| {
            let (length, behind) = rest.split_first_chunk().unwrap();
            let (part, behind) = behind.split_at(u32::from_be_bytes(*length) as usize);
            *rest = behind;
            part.to_vec()
        };
        while !rest.is_empty() {
            let name = String::from_utf8(take(&mut rest)).unwrap();
            pack.0.insert(name, take(&mut rest));
        }
        pack
    }
}
