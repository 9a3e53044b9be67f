//! A file system of the host on a volume whose daemon dies: what the cases with applications stand on.
//!
//! By nbdfuse and a loop device, which end with their daemon: who comes back attaches again, and the file system's journal
//! replays. Knows no application. Invariant: what is left between two daemons is the bucket, and the journal in that mode.

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use super::super::Daemon;
use super::super::case::{TOOL_LIMIT, World};
use super::super::mount::Attached;
use crate::shell;

/// What FLUSH means, and the flags for it.
pub(super) fn modes(world: &World) -> [(&'static str, Vec<String>); 2] {
    let journal = world.dir.join("journal").display().to_string();
    let flags = ["--flush", "journal", "--journal", &journal].map(str::to_owned);
    [("object", vec!["--no-handover".to_owned()]), ("journal", flags.to_vec())]
}

/// A volume that is served, attached and mounted.
pub(super) struct Disk {
    pub(super) daemon: Daemon,
    /// None only while it is lost.
    attached: Option<Attached>,
    /// Where it is mounted.
    pub(super) files: PathBuf,
}

impl Disk {
    /// A new volume with an empty file system.
    pub(super) fn new(world: &World, name: &str, flags: &[String]) -> Result<Self> {
        world.create(name, "8G")?;
        let (daemon, mut attached) = Self::attach(world, name, flags)?;
        world.tool("mkfs.ext4", &["-q", "-E", "nodiscard,lazy_itable_init=1", attached.device()])?;
        let files = world.dir.join("mnt");
        attached.mount(&files)?;
        Ok(Self { daemon, attached: Some(attached), files })
    }

    /// A volume that has a file system already.
    pub(super) fn open(world: &World, name: &str, flags: &[String]) -> Result<Self> {
        let (daemon, mut attached) = Self::attach(world, name, flags)?;
        let files = world.dir.join("mnt");
        attached.mount(&files)?;
        Ok(Self { daemon, attached: Some(attached), files })
    }

    fn attach(world: &World, name: &str, flags: &[String]) -> Result<(Daemon, Attached)> {
        let flags: Vec<&str> = flags.iter().map(String::as_str).collect();
        let daemon = world.serve_with(name, &flags)?;
        let attached = Attached::new(daemon.uri(), &world.dir)?;
        Ok((daemon, attached))
    }

    /// The daemon has died and who used the disk has ended: what is left is the bucket, and the journal.
    pub(super) fn come_back(&mut self, world: &World, name: &str, flags: &[String]) -> Result<()> {
        self.attached = None;
        let (daemon, mut attached) = Self::attach(world, name, flags)?;
        self.daemon = daemon;
        attached.mount(&self.files).context("mounting after the loss: ext4's journal did not replay")?;
        if world.long {
            check(world, &mut attached)?;
            attached.mount(&self.files)?;
        }
        self.attached = Some(attached);
        Ok(())
    }

    /// Unmounts it, has it checked, and closes the daemon.
    pub(super) fn close(mut self, world: &World) -> Result<()> {
        if let Some(mut attached) = self.attached.take() {
            check(world, &mut attached)?;
        }
        self.daemon.close()
    }
}

/// Unmounts it and has it checked.
fn check(world: &World, attached: &mut Attached) -> Result<()> {
    attached.unmount()?;
    let fsck = shell::output(world.client("e2fsck").args(["-f", "-n", attached.device()]), TOOL_LIMIT)?;
    ensure!(fsck.code() == 0, "e2fsck ended with {}: {}{}", fsck.code(), fsck.stdout, fsck.stderr);
    Ok(())
}
