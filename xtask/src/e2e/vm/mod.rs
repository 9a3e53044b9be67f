//! A virtual machine with a real Debian kernel, whose root is this machine's own: what only a kernel shows.
//!
//! QEMU boots the kernel that setup unpacked, without KVM's help, in a few seconds. The guest runs one script of
//! xtask/guest and turns itself off; it can change nothing here but below the directory that both share. Knows how a
//! machine is started, watched and killed; not what its script does.
//!
//! Invariants: 1. a machine ends with the value that stands for it; 2. every wait has a limit; 3. what failed says the end
//! of what the guest printed.

mod initramfs;
pub(super) mod writelog;

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use rustix::process::geteuid;

use super::target;
use crate::shell;

/// From the start of virtiofsd to its socket.
const VIRTIOFSD_LIMIT: Duration = Duration::from_secs(20);

/// What this machine lacks for virtual ones, if anything.
pub(super) fn lacking() -> Option<&'static str> {
    if !geteuid().is_root() {
        Some("a virtual machine of the host's own root needs root")
    } else if std::env::consts::ARCH != "x86_64" {
        Some("virtual machines are set up for x86-64 only")
    } else if Kernel::find().is_err() || !qemu().is_file() || !virtiofsd().is_file() {
        Some("no kernel or no QEMU in target/tools/vm: run `cargo xtask setup`")
    } else if !Path::new(BUSYBOX).is_file() {
        Some("no /bin/busybox: run `cargo xtask setup`")
    } else {
        None
    }
}

const BUSYBOX: &str = "/bin/busybox";

fn tools() -> PathBuf {
    target().join("tools/vm")
}

/// The QEMU that setup unpacked.
pub(super) fn qemu() -> PathBuf {
    tools().join("qemu/usr/bin/qemu-system-x86_64")
}

fn virtiofsd() -> PathBuf {
    tools().join("qemu/usr/lib/qemu/virtiofsd")
}

/// The kernel that setup unpacked, with its modules.
#[derive(Debug)]
struct Kernel {
    image: PathBuf,
    version: String,
    /// What holds lib/modules.
    root: PathBuf,
}

impl Kernel {
    fn find() -> Result<Self> {
        let root = tools().join("kernel").canonicalize().context("no kernel was unpacked")?;
        let mut found: Vec<String> = std::fs::read_dir(root.join("lib/modules"))?
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .collect();
        found.sort();
        let version = found.pop().context("the unpacked kernel has no modules")?;
        let image = root.join(format!("boot/vmlinuz-{version}"));
        ensure!(image.is_file(), "there is no {}", image.display());
        Ok(Self { image, version, root })
    }
}

/// A kernel and, in `dir`, an initramfs for a guest that runs one script of xtask/guest and has nothing but its disks.
pub(super) fn bare_guest(dir: &Path, script: &str) -> Result<(PathBuf, PathBuf)> {
    let kernel = Kernel::find()?;
    let initramfs = dir.join("initramfs");
    let archive = initramfs::build(&kernel.root, &kernel.version, script, &["virtio_pci", "virtio_blk"])?;
    std::fs::write(&initramfs, archive)?;
    Ok((kernel.image, initramfs))
}

/// A disk of a machine: a raw file.
#[derive(Debug)]
pub(super) struct Disk {
    /// By what the guest finds it.
    pub(super) serial: String,
    pub(super) path: PathBuf,
}

/// What a machine is to do.
#[derive(Debug)]
pub(super) struct Boot<'a> {
    /// One of xtask/guest.
    pub(super) script: &'a str,
    pub(super) arguments: &'a [String],
    /// The directory that both share, with the guest's log and all that it leaves.
    pub(super) out: &'a Path,
    pub(super) disks: &'a [Disk],
    /// An export that QEMU's own NBD client serves as the disk "nbd", reconnecting for a minute.
    pub(super) nbd: Option<&'a str>,
    /// More variables for the script.
    pub(super) environment: &'a [(&'a str, String)],
    /// The program under test.
    pub(super) lsvd: &'a Path,
    /// Whether the guest reaches this machine's loopback, as [`HOST`].
    pub(super) network: bool,
    pub(super) memory_mib: u32,
}

/// This machine's loopback as a guest with a network sees it.
pub(super) const HOST: &str = "10.0.2.2";

/// A machine that runs.
#[derive(Debug)]
pub(super) struct Machine {
    qemu: Child,
    virtiofsd: Child,
    out: PathBuf,
}

impl Machine {
    /// Starts a machine.
    pub(super) fn boot(boot: &Boot) -> Result<Self> {
        let kernel = Kernel::find()?;
        std::fs::create_dir_all(boot.out)?;
        let out = boot.out.canonicalize()?;
        for left in ["status", "guest.log", "console.log"] {
            let _ = std::fs::remove_file(out.join(left));
        }
        std::fs::write(out.join("run"), run_script(boot, &out)?)?;
        let initramfs = out.join("initramfs");
        let archive = initramfs::build(&kernel.root, &kernel.version, "init.sh", &["virtiofs", "overlay"])?;
        std::fs::write(&initramfs, archive)?;

        let socket = out.join("virtiofsd.sock");
        let mut virtiofsd = start_virtiofsd(&out, &socket)?;
        let mut command = qemu_command(boot, &kernel, &out)?;
        let log = std::fs::File::create(out.join("qemu.log"))?;
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        match command.spawn() {
            Ok(qemu) => Ok(Self { qemu, virtiofsd, out }),
            Err(error) => {
                let _ = virtiofsd.kill();
                let _ = virtiofsd.wait();
                Err(error).with_context(|| format!("cannot start `{}`", shell::display(&command)))
            }
        }
    }

    /// Waits until the machine is off, for at most `limit`; its script must have ended well.
    pub(super) fn finish(mut self, limit: Duration) -> Result<()> {
        if shell::wait(&mut self.qemu, limit)?.is_none() {
            bail!("the machine still ran after {} s: {}", limit.as_secs(), self.said());
        }
        match std::fs::read_to_string(self.out.join("status")) {
            Ok(status) if status.trim() == "0" => Ok(()),
            Ok(status) => bail!("the guest's script ended with {}: {}", status.trim(), self.said()),
            Err(_) => bail!("the machine died: {}", self.said()),
        }
    }

    /// Ends it in its tracks, as a power cut would.
    pub(super) fn kill(self) {
        drop(self);
    }

    /// Whether it still runs; if not its script has ended, or the machine has died.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.qemu.try_wait(), Ok(None))
    }

    /// The end of what the guest and its kernel printed.
    pub(super) fn said(&self) -> String {
        let mut text = String::new();
        for name in ["qemu.log", "console.log", "guest.log"] {
            let bytes = std::fs::read(self.out.join(name)).unwrap_or_default();
            text.push_str(&shell::tail(&String::from_utf8_lossy(&bytes), 15));
            text.push('\n');
        }
        text
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        for child in [&mut self.qemu, &mut self.virtiofsd] {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// What the guest's first process runs once it has its root.
fn run_script(boot: &Boot, out: &Path) -> Result<String> {
    let guest = shell::root().join("xtask/guest").canonicalize()?;
    let mut arguments = String::new();
    for argument in boot.arguments {
        arguments.push(' ');
        arguments.push_str(&shell::quoted(argument));
    }
    let mut variables = String::new();
    for (name, value) in boot.environment {
        variables.push_str(&format!(" {name}={}", shell::quoted(value)));
    }
    let word = |path: &Path| shell::quoted(&path.to_string_lossy());
    let network = if boot.network { "yes" } else { "no" };
    Ok(format!(
        "export OUT={} GUEST={guest} LSVD={} SCRIPT={} NETWORK={network}{variables}\nset --{arguments}\n. {guest}/main.sh\n",
        word(out),
        word(boot.lsvd),
        shell::quoted(boot.script),
        guest = word(&guest),
    ))
}

/// Serves this machine's root, where all but `out` is read-only for it.
fn start_virtiofsd(out: &Path, socket: &Path) -> Result<Child> {
    let _ = std::fs::remove_file(socket);
    let program = virtiofsd().canonicalize().context("setup has unpacked no virtiofsd")?;
    // It wants to write below /run.
    let prepare = "mount --bind \"$1\" \"$1\" && mount -t tmpfs none /run && mount -o remount,ro,bind / && cd / && \
                   exec \"$2\" -f --socket-path=\"$3\" -o source=/,sandbox=chroot,cache=always -o log_level=err";
    let mut command = Command::new("unshare");
    command.args(["--mount", "--propagation", "private", "sh", "-c", prepare, "sh"]);
    command.arg(out).arg(program).arg(socket);
    let log = std::fs::File::create(out.join("virtiofsd.log"))?;
    command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
    let mut child = command.spawn().context("cannot start virtiofsd")?;
    let end = Instant::now() + VIRTIOFSD_LIMIT;
    while !socket.exists() {
        if Instant::now() > end || child.try_wait()?.is_some() {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read_to_string(out.join("virtiofsd.log")).unwrap_or_default();
            bail!("virtiofsd does not serve: {}", shell::tail(&said, 5));
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(child)
}

fn qemu_command(boot: &Boot, kernel: &Kernel, out: &Path) -> Result<Command> {
    let text = |path: &Path| {
        let text = path.to_str().context("a path is not text")?.to_owned();
        ensure!(!text.contains([',', ' ']), "QEMU's options take no path with commas or blanks: {text}");
        Ok(text)
    };
    let out = text(out)?;
    let modules = text(&kernel.root.join("lib/modules"))?;
    let memory = format!("{}M", boot.memory_mib);
    let mut command = Command::new(qemu());
    // Stock kernels do not boot on every KVM, and emulation is quick enough; one CPU costs less than two.
    command.args(["-accel", "tcg,thread=multi,tb-size=512", "-cpu", "max,la57=off", "-smp", "1"]);
    command.args(["-M", "q35,memory-backend=mem", "-m", &memory]);
    command.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]);
    // virtiofsd reads and writes the guest's memory.
    command.args(["-object", &format!("memory-backend-memfd,id=mem,size={memory},share=on")]);
    command.arg("-kernel").arg(&kernel.image).args(["-initrd", &format!("{out}/initramfs")]);
    command.args([
        "-append",
        &format!("console=ttyS0 quiet panic=-1 mitigations=off lsvd.out={out} lsvd.modules={modules}"),
    ]);
    command.args(["-serial", &format!("file:{out}/console.log"), "-device", "virtio-rng-pci"]);
    command.args(["-chardev", &format!("socket,id=fs,path={out}/virtiofsd.sock")]);
    command.args(["-device", "vhost-user-fs-pci,chardev=fs,tag=host,queue-size=1024"]);
    for (index, disk) in boot.disks.iter().enumerate() {
        let file = text(&disk.path)?;
        command.args([
            "-drive",
            &format!("if=none,id=d{index},format=raw,cache=unsafe,discard=unmap,file={file}"),
        ]);
        command.args(["-device", &format!("virtio-blk-pci,drive=d{index},serial={}", disk.serial)]);
    }
    if let Some(uri) = boot.nbd {
        ensure!(!uri.contains(','), "QEMU's options take no URI with commas: {uri}");
        command.args([
            "-drive",
            &format!("if=none,id=nbd,format=raw,cache=none,discard=unmap,file={uri},file.reconnect-delay=60"),
        ]);
        command.args(["-device", "virtio-blk-pci,drive=nbd,serial=nbd"]);
    }
    if boot.network {
        command.args(["-netdev", "user,id=n0", "-device", "virtio-net-pci,netdev=n0,romfile="]);
    }
    Ok(command)
}
