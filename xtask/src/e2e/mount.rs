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
pub(super) fn lacking() -> Option<&'static str> {
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
pub(super) struct Attached {
    fuse: PathBuf,
    nbdfuse: Child,
    device: String,
    mounted: Option<PathBuf>,
}

impl Attached {
    /// Attaches the export at `uri`, with its mount points below `dir`.
    pub(super) fn new(uri: &str, dir: &Path) -> Result<Self> {
        let fuse = dir.join("fuse");
        std::fs::create_dir_all(&fuse)?;
        let file = fuse.join("nbd");
        let nbdfuse = Command::new("nbdfuse")
            .arg(&file)
            .arg(uri)
            .stdin(Stdio::null())
            .spawn()
            .context("cannot start nbdfuse")?;
        let mut attached = Self { fuse, nbdfuse, device: String::new(), mounted: None };
        let appears = || file.metadata().is_ok_and(|metadata| metadata.len() > 0);
        shell::wait_until("nbdfuse shows the export", LIMIT, appears)?;
        let mut losetup = Command::new("losetup");
        losetup.args(["--find", "--show", "--direct-io=on"]).arg(&file);
        attached.device = shell::output_ok(&mut losetup, LIMIT)?.stdout.trim().to_owned();
        ensure!(attached.device.starts_with("/dev/loop"), "losetup said '{}'", attached.device);
        Ok(attached)
    }

    /// The block device.
    pub(super) fn device(&self) -> &str {
        &self.device
    }

    /// Mounts its file system at `path`; the file system's own recovery runs here.
    pub(super) fn mount(&mut self, path: &Path) -> Result<()> {
        std::fs::create_dir_all(path)?;
        shell::output_ok(Command::new("mount").arg(&self.device).arg(path), LIMIT)?;
        self.mounted = Some(path.to_path_buf());
        Ok(())
    }

    /// Unmounts the file system, which must work.
    pub(super) fn unmount(&mut self) -> Result<()> {
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
        let fuse = self.fuse.clone();
        let unmount = |lazy: &[&str]| {
            let mut command = Command::new("umount");
            shell::output(command.args(lazy).arg(&fuse), LIMIT).is_ok_and(|output| output.status.success())
        };
        if !unmount(&[]) {
            unmount(&["--lazy"]);
        }
        if !matches!(shell::wait(&mut self.nbdfuse, Duration::from_secs(10)), Ok(Some(_))) {
            let _ = self.nbdfuse.kill();
            let _ = self.nbdfuse.wait();
        }
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        self.detach();
    }
}
