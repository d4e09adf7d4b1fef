//! Writes what is made from the types: the definitions of all kinds, one file each, to `yaml/` and into the chart, and their
//! reference to `docs/`. `tests/yaml.rs` fails while they differ.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    for (name, text) in taffrail_crds::written_files() {
        let path = root.join(&name);
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder)?;
        }
        std::fs::write(&path, text)?;
        println!("{name}");
    }
    Ok(())
}
