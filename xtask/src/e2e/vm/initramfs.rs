//! The initramfs: busybox, modules, and a script of xtask/guest as the first process, in a cpio archive.
//!
//! The format is "newc" of the kernel's Documentation/driver-api/early-userspace/buffer-format.rst. Knows nothing of
//! machines.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::BUSYBOX;
use crate::shell;

const LIMIT: Duration = Duration::from_secs(30);

/// Mount points and the like.
const DIRECTORIES: [&str; 8] = ["bin", "modules", "host", "layer", "new", "dev", "proc", "sys"];

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// The archive for a kernel of this version, whose modules are below `root`: `init` runs when `modules` are there to load.
pub(super) fn build(root: &Path, version: &str, init: &str, modules: &[&str]) -> Result<Vec<u8>> {
    let mut archive = Archive::default();
    for name in DIRECTORIES {
        archive.add(name, DIRECTORY, &[]);
    }
    let init = shell::root().join("xtask/guest").join(init);
    archive.add(
        "init",
        PROGRAM,
        &std::fs::read(&init).with_context(|| format!("cannot read {}", init.display()))?,
    );
    archive.add("bin/busybox", PROGRAM, &std::fs::read(BUSYBOX).context("cannot read busybox")?);
    for (index, path) in files(root, version, modules)?.iter().enumerate() {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        // In the order of their names each finds what it needs loaded.
        let module = std::fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
        archive.add(&format!("modules/{index:02}-{name}"), PROGRAM, &module);
    }
    Ok(archive.finish())
}

/// Files of the modules and of those that they need, in the order in which they are to be loaded; none for what is built
/// into the kernel.
fn files(root: &Path, version: &str, modules: &[&str]) -> Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    for module in modules {
        let mut command = Command::new("/sbin/modprobe");
        command.arg("--dirname").arg(root).args(["--set-version", version, "--show-depends", module]);
        for line in shell::output_ok(&mut command, LIMIT)?.stdout.lines() {
            if let Some(path) = line.strip_prefix("insmod ") {
                let path = PathBuf::from(path.trim());
                ensure!(
                    path.extension().is_some_and(|extension| extension == "ko"),
                    "{} is packed",
                    path.display()
                );
                if !paths.contains(&path) {
                    paths.push(path);
                }
            }
        }
    }
    Ok(paths)
}

#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
}

impl Archive {
    fn add(&mut self, name: &str, mode: u32, content: &[u8]) {
        self.entries += 1;
        let links = 1;
        let (number, length) = (self.entries, content.len());
        // Number, mode, owner, group, links, time, length, device and special device, length of the name, checksum.
        let fields = [number as usize, mode as usize, 0, 0, links, 0, length, 0, 0, 0, 0, name.len() + 1, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend_from_slice(content);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.add("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_archive_is_laid_out_as_the_kernel_reads_it() {
        let mut archive = Archive::default();
        archive.add("d", DIRECTORY, &[]);
        archive.add("d/file", PROGRAM, b"12345");
        let bytes = archive.finish();
        let head = "070701\
                    00000001000041ed000000000000000000000001000000000000000000000000000000000000000000000000\
                    0000000200000000d\0";
        assert_eq!(std::str::from_utf8(&bytes[..112]).unwrap(), head);
        let file = &bytes[112..];
        assert_eq!(&file[..22], b"07070100000002000081ed");
        assert_eq!(&file[110..117], b"d/file\0");
        // Both the name and the content end at a multiple of four.
        assert_eq!(&file[120..128], b"12345\0\0\0");
        assert!(file[128..].starts_with(b"070701") && bytes.len().is_multiple_of(4));
    }
}
