//! The host's own file systems on an export: nbdfuse makes a file of it, a loop device makes a disk of that.
//!
//! Invariant: what was attached is detached when the value goes, also when its daemon is dead; nothing here waits for
//! a dead server without a limit.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::geteuid;

use crate::shell;

const LIMIT: Duration = Duration::from_secs(60);

/// What this machine lacks for mounts, if anything.
pub(crate) fn lacking() -> Option<&'static str> {
    if !geteuid().is_root() {
        Some("mounting needs root")
    } else if !Path::new("/dev/fuse").exists() {
        Some("no /dev/fuse: load the module fuse")
    } else if !Path::new("/dev/loop-control").exists() {
        Some("no /dev/loop-control: load the module loop")
    } else {
        None
    }
}

/// An export as a block device of this host.
#[derive(Debug)]
pub(crate) struct Attached {
    /// Who shows the export as a file, and where it is mounted.
    nbdfuse: Option<(PathBuf, Child)>,
    device: String,
    mounted: Option<PathBuf>,
}

impl Attached {
    /// Attaches the export at `uri`, with its mount points below `dir`.
    pub(crate) fn new(uri: &str, dir: &Path) -> Result<Self> {
        let fuse = dir.join("fuse");
        std::fs::create_dir_all(&fuse)?;
        let file = fuse.join("nbd");
        let nbdfuse = Command::new("nbdfuse")
            .arg(&file)
            .arg(uri)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nbdfuse")?;
        let mut attached = Self { nbdfuse: Some((fuse, nbdfuse)), device: String::new(), mounted: None };
        let appears = || file.metadata().is_ok_and(|metadata| metadata.len() > 0);
        shell::wait_until("nbdfuse shows the export", LIMIT, appears)?;
        attached.device = loop_device(&file)?;
        Ok(attached)
    }

    /// A file of this machine's own disk in place of an export, to compare with.
    pub(crate) fn file(file: &Path) -> Result<Self> {
        Ok(Self { nbdfuse: None, device: loop_device(file)?, mounted: None })
    }

    /// The block device.
    pub(crate) fn device(&self) -> &str {
        &self.device
    }

    /// Mounts its file system at `path`; the file system's own recovery runs here.
    pub(crate) fn mount(&mut self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path)?;
        shell::output_ok(Command::new("mount").arg(&self.device).arg(path), LIMIT)?;
        self.mounted = Some(path.to_path_buf());
        Ok(())
    }

    /// Unmounts the file system, which must work.
    pub(crate) fn unmount(&mut self) -> Result<()> {
        if let Some(path) = &self.mounted {
            shell::output_ok(Command::new("umount").arg(path), LIMIT)?;
        }
        self.mounted = None;
        Ok(())
    }

    /// Takes everything away, whether the daemon answers or not.
    fn detach(&mut self) {
        if let Some(path) = self.mounted.take() {
            let plain = shell::output(Command::new("umount").arg(&path), LIMIT);
            if !plain.is_ok_and(|output| output.status.success()) {
                let _ = shell::output(Command::new("umount").arg("--lazy").arg(&path), LIMIT);
            }
        }
        if !self.device.is_empty() {
            let _ = shell::output(Command::new("losetup").args(["--detach", &self.device]), LIMIT);
        }
        let Some((fuse, mut nbdfuse)) = self.nbdfuse.take() else { return };
        let unmount = |lazy: &[&str]| {
            let mut command = Command::new("umount");
            shell::output(command.args(lazy).arg(&fuse), LIMIT).is_ok_and(|output| output.status.success())
        };
        if !unmount(&[]) {
            unmount(&["--lazy"]);
        }
        if !matches!(shell::wait(&mut nbdfuse, Duration::from_secs(10)), Ok(Some(_))) {
            let _ = nbdfuse.kill();
            let _ = nbdfuse.wait();
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.detach();
    }
}

/// A loop device on `file`, past this machine's page cache.
fn loop_device(file: &Path) -> Result<String> {
    let mut losetup = Command::new("losetup");
    losetup.args(["--find", "--show", "--direct-io=on"]).arg(file);
    let device = shell::output_ok(&mut losetup, LIMIT)?.stdout.trim().to_owned();
    ensure!(device.starts_with("/dev/loop"), "losetup said '{device}'");
    Ok(device)
}
