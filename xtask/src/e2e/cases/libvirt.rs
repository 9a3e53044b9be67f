//! The recipes for libvirt, as deploy/ has them: valid by libvirt's own schema, and run by its QEMU driver.
//!
//! The driver runs in a process of its own (virt-qemu-run): no libvirtd, no KVM. The guest has nothing but its disks.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use super::super::case::{Needs, TOOL_LIMIT, World};
use super::super::vm;
use super::Entry;
use crate::shell;

pub(super) const CASES: &[Entry] = &[(
    "libvirt",
    "deploy/libvirt-*.xml by libvirt's schema and its QEMU driver; a disk that reconnects (rule 1)",
    Needs::Vm,
    libvirt,
)];

const SCHEMA: &str = "/usr/share/libvirt/schemas/domain.rng";
/// What the guest writes to each disk.
const RECORDS: u32 = 60;
/// How many of them the disk that reconnects has when its daemon is killed.
const KILLED_AT: u32 = 15;
/// From the domain's start to its end, emulated on a loaded machine.
const LIMIT: Duration = Duration::from_secs(180);

/// As root, without what a container lacks; the driver looks up a user that only libvirtd's package makes.
const QEMU_CONF: &str = "user = \"root\"\ngroup = \"root\"\ncgroup_controllers = []\nnamespaces = []\n\
                         security_driver = \"none\"\nstdio_handler = \"file\"\nremember_owner = 0\n";
const RUN: &str = "sed '$a libvirt-qemu:x:64055:64055::/:/bin/false' /etc/passwd >passwd && mount --bind passwd /etc/passwd && \
                   sed '$a libvirt-qemu:x:64055:' /etc/group >group && mount --bind group /etc/group && \
                   exec virt-qemu-run --root=\"$PWD/root\" domain.xml";

fn libvirt(world: &World) -> Result<()> {
    let port = std::net::TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
    for name in ["db1", "db2", "db3"] {
        world.create(name, "64M")?;
    }
    let db1 = world.serve("db1")?;
    let db2 = world.serve_with("db2", &["--listen", &format!("tcp:127.0.0.1:{port}")])?;
    let socket = world.dir.join("db3.sock").display().to_string();
    let listen = format!("unix:{socket}");
    let db3 = world.serve_with("db3", &["--listen", &listen])?;

    let recipe = |name: &str, ours: (&str, &str)| -> Result<String> {
        let path = shell::root().join("deploy").join(name);
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains(ours.0), "{} does not speak of {}", path.display(), ours.0);
        Ok(text.replace(ours.0, ours.1))
    };
    let db1_socket = db1.socket().display().to_string();
    let disks = [
        recipe("libvirt-unix.xml", ("/run/lsvd/db1.sock", &db1_socket))?,
        recipe("libvirt-tcp.xml", ("port='10809'", &format!("port='{port}'")))?,
    ];
    let more = recipe("libvirt-reconnect.xml", ("/run/lsvd/db3.sock", &socket))?;
    let domain = domain(world, &disks.concat(), &more)?;
    validate(world, &domain)?;

    let mut command = Command::new("unshare");
    command.current_dir(&world.dir).args(["--mount", "--propagation", "private", "sh", "-c", RUN]);
    let log = std::fs::File::create(world.dir.join("libvirt.log"))?;
    let mut guest = command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).spawn()?;
    let ran = watch(world, &mut guest, || {
        db3.kill();
        std::thread::sleep(Duration::from_secs(2));
        world.serve_with("db3", &["--listen", &listen])
    });
    let _ = guest.kill();
    let _ = guest.wait();
    let db3 = ran.with_context(|| said(world))?;
    for daemon in [db1, db2, db3] {
        let name = daemon.uri().rsplit_once("/db").map_or("", |(_, rest)| rest).get(..1).unwrap_or_default();
        let code = format!(
            "for nth in range({RECORDS}):\n  found = h.pread(4096, nth * 4096).rstrip(bytes(1))\n  \
             assert found == b'db{name} record %d\\n' % nth, (nth, found)"
        );
        world.tool("nbdsh", &["-u", daemon.uri(), "-c", &code])?;
        daemon.close()?;
    }
    Ok(())
}

/// Waits for the guest's end, and restarts the third disk's daemon in the middle of its records.
fn watch<T>(
    world: &World,
    guest: &mut std::process::Child,
    restart: impl FnOnce() -> Result<T>,
) -> Result<T> {
    let console = || std::fs::read_to_string(world.dir.join("console.log")).unwrap_or_default();
    let begun = format!("synced db3 {KILLED_AT}\r");
    let mut ended = false;
    shell::wait_until("the guest writes to the disk that reconnects", LIMIT, || {
        ended = !matches!(guest.try_wait(), Ok(None));
        ended || console().contains(&begun)
    })?;
    ensure!(!ended, "the guest ended too early");
    let daemon = restart()?;
    // virt-qemu-run may outlive its guest, so the guest itself is asked.
    shell::wait_until("the guest has written everything", LIMIT, || {
        console().contains("all records are written") || console().contains("refused record")
    })?;
    ensure!(!console().contains("refused record"), "a disk failed");
    let last = format!("synced db3 {RECORDS}\r");
    ensure!(console().contains(&last), "the disk that reconnects has not all its records");
    Ok(daemon)
}

/// A domain with these disks, for a guest that has nothing else.
fn domain(world: &World, disks: &str, more: &str) -> Result<String> {
    let root = world.dir.join("root/etc");
    std::fs::create_dir_all(&root)?;
    std::fs::write(root.join("qemu.conf"), QEMU_CONF)?;
    let (kernel, initramfs) = vm::bare_guest(&world.dir, "disks.sh")?;
    let text = |path: &Path| path.display().to_string();
    let domain = format!(
        "<domain type='qemu'><name>lsvd</name><memory unit='MiB'>256</memory><vcpu>1</vcpu>\n\
         <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{}</kernel><initrd>{}</initrd>\n\
         <cmdline>console=ttyS0 quiet panic=-1 mitigations=off lsvd.records={RECORDS}</cmdline></os>\n\
         <on_poweroff>destroy</on_poweroff><on_reboot>destroy</on_reboot><on_crash>destroy</on_crash>\n\
         <devices><emulator>{}</emulator>\n{disks}\n<controller type='usb' model='none'/>\n\
         <serial type='file'><source path='{}'/><target port='0'/></serial>\n\
         <memballoon model='none'/></devices>\n{more}</domain>\n",
        text(&kernel),
        text(&initramfs),
        text(&vm::qemu().canonicalize()?),
        text(&world.dir.join("console.log")),
    );
    std::fs::write(world.dir.join("domain.xml"), &domain)?;
    Ok(domain)
}

/// By the schema; and what it refuses is refused.
fn validate(world: &World, domain: &str) -> Result<()> {
    let lint = |name: &str, content: &str| {
        let path = world.dir.join(name);
        std::fs::write(&path, content)?;
        let mut command = Command::new("xmllint");
        shell::output(command.args(["--noout", "--relaxng", SCHEMA]).arg(path), TOOL_LIMIT)
    };
    let valid = lint("domain.xml", domain)?;
    ensure!(valid.code() == 0, "the schema refuses the recipes: {}", valid.stderr);
    let wrong = lint("wrong.xml", &domain.replace("protocol='nbd'", "protocol='ndb'"))?;
    ensure!(wrong.code() != 0, "the schema takes anything: it shows nothing");
    Ok(())
}

fn said(world: &World) -> String {
    let end = |name: &str| {
        shell::tail(&String::from_utf8_lossy(&std::fs::read(world.dir.join(name)).unwrap_or_default()), 8)
    };
    format!("{}\n{}", end("libvirt.log"), end("console.log"))
}
