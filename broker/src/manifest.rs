//! The `--manifest` file or directory: read with all its faults, and again whenever it changes.
//!
//! It looks at names, sizes and times once a second instead of asking the kernel for events: that works on every file
//! system and through the symbolic links by which Kubernetes swaps a mounted ConfigMap. What is read is admitted whole or
//! not at all; what it means is the controller's business.

use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use taffrail_crds::Topic;
use taffrail_crds::manifest::{Document, duplicates, parse};

pub mod follow;

/// Largest file that is read, in bytes.
const MAX_FILE: u64 = 16 << 20;
/// Most files of a directory that are read.
const MAX_FILES: usize = 1_000;

/// Something is wrong with a manifest.
#[derive(Debug, thiserror::Error)]
pub enum ManifestFault {
    /// A file or the directory cannot be read.
    #[error("{}: cannot be read: {cause}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// What the system said.
        cause: io::Error,
    },
    /// A file is larger than is read.
    #[error("{}: has {size} bytes, at most {MAX_FILE} are read: split it", path.display())]
    TooLarge {
        /// Which.
        path: PathBuf,
        /// Its bytes.
        size: u64,
    },
    /// The directory has more files than are read.
    #[error("{}: has {found} YAML files, at most {MAX_FILES} are read: join some", path.display())]
    TooManyFiles {
        /// Which.
        path: PathBuf,
        /// How many.
        found: usize,
    },
    /// A line of a file is wrong.
    #[error(transparent)]
    Content(#[from] taffrail_crds::manifest::Fault),
}

/// What tells that a file may have changed. Equal marks: it has not, but for a change within the clock's grain that kept
/// the size.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mark {
    path: PathBuf,
    /// Inode, size, time of the last change; absent: it could not be looked at.
    state: Option<(u64, u64, SystemTime)>,
}

/// A manifest that is looked after.
#[derive(Debug)]
pub struct Manifest {
    path: PathBuf,
    /// None before the first look.
    seen: Option<Vec<Mark>>,
}

impl Manifest {
    /// Of a file or directory; not read yet.
    pub fn new(path: PathBuf) -> Self {
        Self { path, seen: None }
    }

    /// Reads it if it has changed since the last call, and at the first: all its topics, or all its faults. A fault is told
    /// once; the next look is for the next change. Blocks.
    pub fn poll(&mut self) -> Option<Result<Vec<Topic>, Vec<ManifestFault>>> {
        let marks = match files(&self.path) {
            Ok(files) => files.iter().map(|file| mark(file)).collect(),
            Err(_) => vec![mark(&self.path)],
        };
        if self.seen.as_ref() == Some(&marks) {
            return None;
        }
        // The marks are older than the content: a change in between is found at the next call.
        self.seen = Some(marks);
        Some(read(&self.path))
    }
}

fn mark(path: &Path) -> Mark {
    use std::os::unix::fs::MetadataExt as _;
    let state = std::fs::metadata(path).and_then(|m| Ok((m.ino(), m.len(), m.modified()?))).ok();
    Mark { path: path.to_owned(), state }
}

/// The file itself, or the YAML files directly in the directory, by name. Hidden ones are left out: among them are the
/// ones behind Kubernetes' links, and those of editors.
fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestFault> {
    let unreadable = |cause| ManifestFault::Unreadable { path: path.to_owned(), cause };
    if !std::fs::metadata(path).map_err(unreadable)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries: Vec<PathBuf> = std::fs::read_dir(path)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .map_err(unreadable)?;
    let mut files: Vec<PathBuf> = entries.into_iter().filter(|path| is_manifest(path)).collect();
    files.sort();
    if files.len() > MAX_FILES {
        return Err(ManifestFault::TooManyFiles { path: path.to_owned(), found: files.len() });
    }
    Ok(files)
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let yaml = path.extension().is_some_and(|extension| extension == "yaml" || extension == "yml");
    !hidden && yaml && !path.is_dir()
}

fn read(path: &Path) -> Result<Vec<Topic>, Vec<ManifestFault>> {
    let mut documents: Vec<Document> = Vec::new();
    let mut faults = Vec::new();
    for file in files(path).map_err(|fault| vec![fault])? {
        match text(&file).map(|text| parse(&text, &file.display().to_string())) {
            Ok(Ok(found)) => documents.extend(found),
            Ok(Err(wrong)) => faults.extend(wrong.into_iter().map(ManifestFault::from)),
            Err(fault) => faults.push(fault),
        }
    }
    faults.extend(duplicates(&documents).into_iter().map(ManifestFault::from));
    if faults.is_empty() { Ok(documents.into_iter().map(|d| d.topic).collect()) } else { Err(faults) }
}

fn text(file: &Path) -> Result<String, ManifestFault> {
    let unreadable = |cause| ManifestFault::Unreadable { path: file.to_owned(), cause };
    let size = std::fs::metadata(file).map_err(unreadable)?.len();
    if size > MAX_FILE {
        return Err(ManifestFault::TooLarge { path: file.to_owned(), size });
    }
    std::fs::read_to_string(file).map_err(unreadable)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    fn topic(name: &str) -> String {
        format!("apiVersion: taffrail.dev/v1alpha1\nkind: Topic\nmetadata:\n  name: {name}\nspec:\n  partitions: 1\n")
    }

    fn names(read: Option<Result<Vec<Topic>, Vec<ManifestFault>>>) -> Vec<String> {
        read.expect("it has changed").expect("it is right").iter().map(Topic::topic_name).collect()
    }

    fn faults(read: Option<Result<Vec<Topic>, Vec<ManifestFault>>>) -> Vec<String> {
        read.expect("it has changed").expect_err("it is wrong").iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_file_is_read_at_first_and_again_only_when_it_changed() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("topics.yaml");
        fs::write(&file, topic("a")).unwrap();
        let mut manifest = Manifest::new(file.clone());
        assert_eq!(names(manifest.poll()), ["a"]);
        assert!(manifest.poll().is_none());
        fs::write(&file, topic("a") + "---\n" + &topic("b")).unwrap();
        assert_eq!(names(manifest.poll()), ["a", "b"]);
        assert!(manifest.poll().is_none());
    }

    #[test]
    fn a_file_that_vanishes_and_returns_is_a_change_each_time() {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("topics.yaml");
        let mut manifest = Manifest::new(file.clone());
        assert!(faults(manifest.poll())[0].contains("cannot be read"));
        assert!(manifest.poll().is_none());
        fs::write(&file, topic("a")).unwrap();
        assert_eq!(names(manifest.poll()), ["a"]);
        fs::remove_file(&file).unwrap();
        assert!(faults(manifest.poll())[0].contains("cannot be read"));
    }

    #[test]
    fn all_yaml_files_of_a_directory_count_but_hidden_ones() {
        let dir = TempDir::new().unwrap();
        for (file, name) in [("b.yml", "b"), ("a.yaml", "a"), (".c.yaml", "c"), ("notes.txt", "d")] {
            fs::write(dir.path().join(file), topic(name)).unwrap();
        }
        let mut manifest = Manifest::new(dir.path().to_owned());
        assert_eq!(names(manifest.poll()), ["a", "b"]);
        fs::write(dir.path().join("e.yaml"), topic("e")).unwrap();
        assert_eq!(names(manifest.poll()), ["a", "b", "e"]);
        fs::remove_file(dir.path().join("a.yaml")).unwrap();
        assert_eq!(names(manifest.poll()), ["b", "e"]);
    }

    #[test]
    fn an_empty_directory_is_no_fault_and_is_read_once() {
        let dir = TempDir::new().unwrap();
        let mut manifest = Manifest::new(dir.path().to_owned());
        assert_eq!(names(manifest.poll()), Vec::<String>::new());
        fs::write(dir.path().join("a.yaml"), topic("a")).unwrap();
        assert_eq!(names(manifest.poll()), ["a"]);
    }

    #[test]
    fn the_swap_of_a_mounted_config_map_is_a_change() {
        let dir = TempDir::new().unwrap();
        let swap = |version: &str, name: &str| {
            let data = dir.path().join(version);
            fs::create_dir(&data).unwrap();
            fs::write(data.join("topics.yaml"), topic(name)).unwrap();
            std::os::unix::fs::symlink(version, dir.path().join("..tmp")).unwrap();
            fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        };
        swap("..1", "a");
        std::os::unix::fs::symlink("..data/topics.yaml", dir.path().join("topics.yaml")).unwrap();
        let mut manifest = Manifest::new(dir.path().to_owned());
        assert_eq!(names(manifest.poll()), ["a"]);
        swap("..2", "b");
        assert_eq!(names(manifest.poll()), ["b"]);
    }

    #[test]
    fn all_faults_of_all_files_are_told_with_file_and_line() {
        let dir = TempDir::new().unwrap();
        fs::write(dir.path().join("a.yaml"), topic("a").replace("partitions: 1", "partitions: 0")).unwrap();
        fs::write(dir.path().join("b.yaml"), topic("b").replace("spec:", "spec:\n  colour: red")).unwrap();
        let told = faults(Manifest::new(dir.path().to_owned()).poll());
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[0].contains("a.yaml:6:") && told[1].contains("b.yaml:6:"), "{told:?}");
    }

    #[test]
    fn the_same_topic_in_two_files_is_a_fault() {
        let dir = TempDir::new().unwrap();
        for file in ["a.yaml", "b.yaml"] {
            fs::write(dir.path().join(file), topic("same")).unwrap();
        }
        let told = faults(Manifest::new(dir.path().to_owned()).poll());
        assert!(told.len() == 1 && told[0].contains("b.yaml") && told[0].contains("a.yaml, line 1"), "{told:?}");
    }
}
