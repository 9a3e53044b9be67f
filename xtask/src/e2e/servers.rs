//! The servers that stores run on: which there are, how each is started, and what each is known to do.
//!
//! Knows command lines and configurations, and nothing of volumes. Each listens on loopback alone, tells nobody of
//! itself, and has credentials that are made up for the run.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum;

use super::target;
use crate::shell;

/// A user of SeaweedFS who may read and write but not list.
pub(super) const NO_LIST_KEY: &str = "lsvdnolist";
pub(super) const NO_LIST_SECRET: &str = "e2e-secret-nolist-77";
/// Where each of them listens.
pub(super) const PORT: u16 = 18333;
/// What volumes are made in.
pub(super) const BUCKET: &str = "e2e";
/// SeaweedFS' other ports, and each again 10,000 higher.
const WEED_PORTS: [u16; 3] = [19333, 19340, 18888];
const GARAGE_RPC_PORT: u16 = 18901;
/// The account in the path, as Azurite has it.
const AZURE_ACCOUNT: &str = "lsvde2e";

/// A kind of store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum StoreKind {
    /// SeaweedFS, from target/tools (see setup) or from PATH
    Seaweedfs,
    /// MinIO: a `minio` binary on PATH
    Minio,
    /// Azurite, for Azure's protocol, from target/tools (see setup) or from PATH
    Azurite,
    /// The lab store of this repository: in memory, and it misbehaves on demand
    Lab,
    /// The lab store by Google's protocol
    LabGoogle,
    /// A directory
    Directory,
    /// moto: `moto_server` in target/tools/moto/bin or on PATH; it checks no signatures
    Moto,
    /// Garage, for `doctor` alone: `garage` in target/tools or on PATH; it overwrites
    Garage,
    /// s3s-fs, for `doctor` alone: `s3s-fs` in target/tools or on PATH; creators race
    S3sFs,
    /// rclone serve s3, for `doctor` alone: a recent `rclone` in target/tools or on PATH; it overwrites
    Rclone,
}

/// How a store is spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    S3,
    Azure,
    Google,
    Directory,
}

impl StoreKind {
    pub(crate) fn name(self) -> String {
        self.to_possible_value().map(|value| value.get_name().to_owned()).unwrap_or_default()
    }

    pub(super) fn protocol(self) -> Protocol {
        match self {
            Self::Azurite => Protocol::Azure,
            Self::LabGoogle => Protocol::Google,
            Self::Directory => Protocol::Directory,
            _ => Protocol::S3,
        }
    }

    /// Whether it is the lab store.
    pub(crate) fn is_lab(self) -> bool {
        matches!(self, Self::Lab | Self::LabGoogle)
    }

    /// Whether it is known to break what a volume stands on: the doctor has to say so, and nothing else is run.
    pub(super) fn is_broken(self) -> bool {
        matches!(self, Self::Garage | Self::S3sFs | Self::Rclone)
    }

    /// Whether what it acknowledged is there after it was killed. Azurite was seen to lose 64 of 952 objects.
    pub(super) fn keeps_when_killed(self) -> bool {
        matches!(self, Self::Seaweedfs | Self::Minio)
    }

    /// Access key and secret that it is started with.
    pub(super) fn credentials(self) -> (&'static str, &'static str) {
        match self {
            // An account's key is base64; Garage's keys have a form of their own.
            Self::Azurite => (AZURE_ACCOUNT, "ZTJlLXNlY3JldC01ZjFjMGE3ZDNiLWFuZC1tb3JlLW9mLWl0"),
            Self::Garage => (
                "GK4c73766465326531323334ab",
                "5f1c0a7d3b0e2e5ec1e75f1c0a7d3b0e2e5ec1e75f1c0a7d3b0e2e5ec1e75f1c",
            ),
            _ => ("lsvde2e", "e2e-secret-5f1c0a7d3b"),
        }
    }

    /// The region that it wants requests signed for.
    pub(super) fn region(self) -> String {
        match self {
            Self::Garage => "garage".into(),
            _ => std::env::var("AWS_REGION").unwrap_or_else(|_| "us-east-1".into()),
        }
    }

    /// Whether it starts with its bucket. The others are asked for it by xtask/scripts/objects.py.
    pub(super) fn has_bucket(self) -> bool {
        !matches!(self, Self::Azurite | Self::Moto)
    }

    /// The command that serves from `dir`, with its configuration written there.
    pub(super) fn command(self, dir: &Path) -> Result<Command> {
        let mut command = match self {
            Self::Seaweedfs => seaweedfs(dir, self.credentials())?,
            Self::Minio => minio(dir, self.credentials())?,
            Self::Azurite => azurite(self.credentials())?,
            Self::Lab | Self::LabGoogle => lab(),
            Self::Moto => moto()?,
            Self::Garage => garage(dir, self.credentials())?,
            Self::S3sFs => s3s_fs(dir, self.credentials())?,
            Self::Rclone => rclone(dir, self.credentials())?,
            Self::Directory => bail!("a directory is served by nobody"),
        };
        command.current_dir(dir);
        Ok(command)
    }
}

/// A program from target/tools, or from PATH.
fn tool(own: &str, name: &str) -> Result<Command> {
    let own = target().join("tools").join(own);
    if own.is_file() {
        return Ok(Command::new(own));
    }
    if !shell::on_path(name) {
        bail!("this store needs `{name}` on PATH, or at {}", own.display());
    }
    Ok(Command::new(name))
}

pub(super) fn address() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], PORT))
}

/// A directory below the server's data, which most of them take for a bucket.
fn bucket_directory(dir: &Path) -> Result<PathBuf> {
    let data = dir.join("data");
    std::fs::create_dir_all(data.join(BUCKET))?;
    Ok(data)
}

fn seaweedfs(dir: &Path, (key, secret): (&str, &str)) -> Result<Command> {
    let user = |name: &str, key: &str, secret: &str, actions: &[&str]| {
        serde_json::json!({
            "name": name,
            "credentials": [{ "accessKey": key, "secretKey": secret }],
            "actions": actions,
        })
    };
    let users = serde_json::json!({ "identities": [
        user("e2e", key, secret, &["Admin", "Read", "Write", "List", "Tagging"]),
        user("nolist", NO_LIST_KEY, NO_LIST_SECRET, &["Read", "Write"]),
    ]});
    std::fs::write(dir.join("s3.json"), users.to_string())?;
    std::fs::create_dir_all(dir.join("data"))?;
    let [master, volume, filer] = WEED_PORTS;
    let mut command = tool("seaweedfs/bin/weed", "weed")?;
    command.args(["-logtostderr=true", "mini"]);
    command.args(["-dir=data", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3.config=s3.json"]);
    command.args(["-admin.ui=false", "-webdav=false", "-s3.port.iceberg=0", "-s3.port.lance=0"]);
    command.args(["-master.telemetry=false", "-filer.maxMB=1"]);
    command.arg(format!("-bucket={BUCKET}")).arg(format!("-s3.port={PORT}"));
    command.arg(format!("-master.port={master}")).arg(format!("-volume.port={volume}"));
    command.arg(format!("-filer.port={filer}"));
    Ok(command)
}

fn minio(dir: &Path, (key, secret): (&str, &str)) -> Result<Command> {
    let data = bucket_directory(dir)?;
    let mut command = tool("minio", "minio")?;
    command.args(["server", "--quiet", "--address", &address().to_string()]).arg(data);
    command.env("MINIO_ROOT_USER", key).env("MINIO_ROOT_PASSWORD", secret);
    command.env("MINIO_UPDATE", "off").env("MINIO_CALLHOME_ENABLE", "off");
    Ok(command)
}

fn azurite((account, key): (&str, &str)) -> Result<Command> {
    let mut command = tool("azurite/node_modules/.bin/azurite-blob", "azurite-blob")?;
    command.args(["--blobHost", "127.0.0.1", "--blobPort", &PORT.to_string(), "--location", "data"]);
    command.args(["--disableTelemetry", "--silent"]);
    command.env("AZURITE_ACCOUNTS", format!("{account}:{key}"));
    Ok(command)
}

/// The lab store that the outer half has built.
fn lab() -> Command {
    let mut command = Command::new(target().join("debug/lsvd-labstore"));
    command.args(["--listen", &address().to_string(), "--bucket", BUCKET]);
    command
}

fn moto() -> Result<Command> {
    let mut command = tool("moto/bin/moto_server", "moto_server")?;
    command.args(["-H", "127.0.0.1", "-p", &PORT.to_string()]);
    Ok(command)
}

fn garage(dir: &Path, (key, secret): (&str, &str)) -> Result<Command> {
    let rpc = SocketAddr::from(([127, 0, 0, 1], GARAGE_RPC_PORT));
    let configuration = format!(
        "metadata_dir = \"meta\"\ndata_dir = \"data\"\ndb_engine = \"sqlite\"\nreplication_factor = 1\n\
         rpc_bind_addr = \"{rpc}\"\nrpc_public_addr = \"{rpc}\"\nrpc_secret = \"{secret}\"\n\
         [s3_api]\ns3_region = \"garage\"\napi_bind_addr = \"{}\"\n",
        address()
    );
    std::fs::write(dir.join("garage.toml"), configuration)?;
    let mut command = tool("garage", "garage")?;
    command.args(["-c", "garage.toml", "server", "--single-node", "--default-bucket"]);
    command.env("GARAGE_DEFAULT_ACCESS_KEY", key).env("GARAGE_DEFAULT_SECRET_KEY", secret);
    command.env("GARAGE_DEFAULT_BUCKET", BUCKET);
    Ok(command)
}

fn s3s_fs(dir: &Path, (key, secret): (&str, &str)) -> Result<Command> {
    let data = bucket_directory(dir)?;
    let mut command = tool("s3s-fs", "s3s-fs")?;
    command.args(["--host", "127.0.0.1", "--port", &PORT.to_string()]);
    command.args(["--access-key", key, "--secret-key", secret]).arg(data);
    Ok(command)
}

fn rclone(dir: &Path, (key, secret): (&str, &str)) -> Result<Command> {
    let data = bucket_directory(dir)?;
    let mut command = tool("rclone", "rclone")?;
    command.args(["--config", "rclone.conf", "serve", "s3", "--addr", &address().to_string()]);
    command.args(["--auth-key", &format!("{key},{secret}")]).arg(data);
    Ok(command)
}
