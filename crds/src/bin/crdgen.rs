//! Writes the definitions of all kinds to `yaml/`, one file each. `tests/yaml.rs` fails while they differ.

use std::path::Path;

fn main() -> std::io::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
    std::fs::create_dir_all(&folder)?;
    for (name, text) in taffrail_crds::yaml_files() {
        let path = folder.join(name);
        std::fs::write(&path, text)?;
        println!("{}", path.display());
    }
    Ok(())
}
