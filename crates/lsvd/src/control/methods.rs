//! What each method does, and the one list of them.
//!
//! To add a method: its parameters and its [`Method`] in `protocol`, its [`Perform`] here, and its name in the list at the end.
//! Knows the daemon; no sockets, no JSON but what serde makes of the types.

use std::sync::Arc;

use anyhow::Context;
use lsvd_volume::{CollectionGoal, CollectionStep, Moment, VolumeId};
use serde_json::Value;

use super::daemon::{Daemon, DaemonStatus};
use super::protocol::{
    ClonePin, Code, Fault, Flatten, Gc, GcTarget, Hello, HelloAnswer, Info, InfoAnswer, Method, PROTOCOL,
    Request, Resize, ResizeAnswer, Rollback, RollbackAnswer, SnapshotCreate, SnapshotGroup,
    SnapshotGroupAnswer, SnapshotRm, Status, Upgrade,
};
use super::rollback;
use crate::cli::VERSION;
use crate::clones::{self, FlattenedJson};
use crate::collection::{self, CollectionJson, USUAL_TARGET};
use crate::commands::info::VolumeJson;
use crate::commands::resize;
use crate::served::Served;
use crate::snapshots::{self, ChangedSnapshots, SnapshotJson};
use crate::store;

/// Says how far a request is, in words for people.
pub(crate) type Tell = Arc<dyn Fn(String) + Send + Sync>;

/// A method that a daemon can do.
pub(crate) trait Perform: Method {
    /// Does it.
    ///
    /// # Errors
    /// What is sent as it is.
    fn perform(
        self,
        daemon: &Daemon,
        tell: &Tell,
    ) -> impl Future<Output = Result<Self::Answer, Fault>> + Send;
}

/// The volume that a request names.
fn find<'a>(daemon: &'a Daemon, volume: &str) -> Result<&'a Served, Fault> {
    daemon.find(volume).ok_or_else(|| {
        let words = match daemon.is_opening(volume) {
            true => format!("volume '{volume}' is not open yet: the daemon waits for its store"),
            false => format!("this daemon serves no volume '{volume}'"),
        };
        Fault::new(Code::NotServed, words)
    })
}

/// The same for what changes something.
fn find_to_change<'a>(daemon: &'a Daemon, volume: &str) -> Result<&'a Served, Fault> {
    let served = find(daemon, volume)?;
    if daemon.is_closing() {
        return Err(Fault::new(
            Code::NotServed,
            format!("the daemon that serves volume '{volume}' is ending"),
        ));
    }
    Ok(served)
}

impl Perform for Hello {
    async fn perform(self, daemon: &Daemon, _tell: &Tell) -> Result<HelloAnswer, Fault> {
        Ok(HelloAnswer {
            protocol: PROTOCOL,
            version: VERSION.to_owned(),
            pid: std::process::id(),
            methods: METHODS.map(str::to_owned).into(),
            volumes: daemon.greeting(),
        })
    }
}

impl Perform for Status {
    async fn perform(self, daemon: &Daemon, _tell: &Tell) -> Result<DaemonStatus, Fault> {
        match self.volume {
            Some(volume) => Ok(daemon.status(std::iter::once(find(daemon, &volume)?))),
            None => Ok(daemon.status(daemon.volumes().iter())),
        }
    }
}

impl Perform for Info {
    async fn perform(self, daemon: &Daemon, _tell: &Tell) -> Result<InfoAnswer, Fault> {
        let served = find(daemon, &self.volume)?;
        let info = lsvd_volume::inspect(&served.bucket)
            .await
            .with_context(|| format!("cannot read volume '{}'", served.name))
            .map_err(|error| Fault::of(&error))?;
        let volume = VolumeJson::new(&served.name, &served.url, &info);
        Ok(InfoAnswer { volume, daemon: daemon.volume_status(served) })
    }
}

impl Perform for Gc {
    async fn perform(self, daemon: &Daemon, tell: &Tell) -> Result<CollectionJson, Fault> {
        let target = match self.target {
            None => USUAL_TARGET,
            Some(GcTarget::Off(_)) => f64::INFINITY,
            Some(GcTarget::Ratio(ratio)) => {
                collection::check_target(ratio).map_err(|words| Fault::new(Code::Params, words))?
            }
        };
        collect(daemon, &self.volume, CollectionGoal::Target(target), self.dry_run, tell).await
    }
}

impl Perform for Upgrade {
    async fn perform(self, daemon: &Daemon, tell: &Tell) -> Result<CollectionJson, Fault> {
        collect(daemon, &self.volume, CollectionGoal::Format2, self.dry_run, tell).await
    }
}

async fn collect(
    daemon: &Daemon,
    volume: &str,
    goal: CollectionGoal,
    dry_run: bool,
    tell: &Tell,
) -> Result<CollectionJson, Fault> {
    let served = find_to_change(daemon, volume)?;
    let told = match dry_run {
        true => collection::planned(&served.volume(), &served.name, goal),
        false => {
            tracing::info!(volume = served.name, ?goal, "collecting, as a client of the control socket asks");
            let step = |step: CollectionStep| tell(collection::step_in_words(step));
            collection::collected(&served.volume(), &served.name, goal, &step).await
        }
    };
    told.map_err(|error| Fault::of(&error))
}

impl Perform for SnapshotCreate {
    async fn perform(self, daemon: &Daemon, _tell: &Tell) -> Result<ChangedSnapshots, Fault> {
        let Self { volume, name, keep } = self;
        if name.is_some() && keep.is_some() {
            return Err(Fault::new(
                Code::Params,
                "'keep' is for automatic snapshots, and those have no 'name'",
            ));
        }
        let served = find_to_change(daemon, &volume)?;
        let keep = keep.unwrap_or_default().into();
        changed(served, snapshots::create(&served.volume(), name.as_deref(), keep).await)
    }
}

impl Perform for SnapshotRm {
    async fn perform(self, daemon: &Daemon, _tell: &Tell) -> Result<ChangedSnapshots, Fault> {
        let served = find_to_change(daemon, &self.volume)?;
        changed(served, snapshots::remove(&served.volume(), &self.names, self.force).await)
    }
}

/// Says in the daemon's log what a client had done.
fn changed(
    served: &Served,
    done: Result<ChangedSnapshots, lsvd_volume::Error>,
) -> Result<ChangedSnapshots, Fault> {
    let volume = &served.name;
    let done = done
        .with_context(|| format!("cannot change the snapshots of volume '{volume}'"))
        .map_err(|error| Fault::of(&error))?;
    if let Some(made) = &done.created {
        tracing::info!(volume, snapshot = made.name, "snapshot made, as a client of the control socket asks");
    }
    for snapshot in &done.removed {
        tracing::info!(volume, snapshot, "snapshot removed, as a client of the control socket asks");
    }
    Ok(done)
}

impl Perform for SnapshotGroup {
    async fn perform(self, daemon: &Daemon, _tell: &Tell) -> Result<SnapshotGroupAnswer, Fault> {
        let mut volumes = Vec::new();
        for volume in &self.volumes {
            volumes.push(find_to_change(daemon, volume)?.volume());
        }
        let made = lsvd_volume::create_group_snapshot(&volumes, &self.name, false).await;
        let made = made.map_err(|error| Fault::of(&error.into()))?;
        tracing::info!(
            volumes = self.volumes.join(", "),
            snapshot = self.name,
            "group snapshot made, as a client of the control socket asks"
        );
        Ok(SnapshotGroupAnswer { snapshots: made.iter().map(Into::into).collect() })
    }
}

impl Perform for ClonePin {
    async fn perform(self, daemon: &Daemon, _tell: &Tell) -> Result<SnapshotJson, Fault> {
        let served = find_to_change(daemon, &self.volume)?;
        let wrong = |words: String| Fault::new(Code::Params, words);
        let id = self.clone_id.parse::<VolumeId>().map_err(|error| wrong(format!("'clone_id': {error}")))?;
        let moment = self.moment.as_deref().map(str::parse::<Moment>).transpose().map_err(wrong)?;
        let pinned = served.volume().pin_for_clone(moment.as_ref(), id, &self.path).await;
        let pinned = pinned
            .with_context(|| format!("cannot change the snapshots of volume '{}'", served.name))
            .map_err(|error| Fault::of(&error))?;
        tracing::info!(
            volume = served.name,
            snapshot = pinned.name,
            clone = self.path,
            "kept for a clone, as a client of the control socket asks"
        );
        Ok((&pinned).into())
    }
}

impl Perform for Flatten {
    async fn perform(self, daemon: &Daemon, tell: &Tell) -> Result<FlattenedJson, Fault> {
        let served = find_to_change(daemon, &self.volume)?;
        tracing::info!(volume = served.name, "flattening, as a client of the control socket asks");
        let flattened = clones::flatten(&served.volume(), &|words| tell(words)).await;
        flattened
            .with_context(|| format!("cannot flatten volume '{}' to the end", served.name))
            .map_err(|error| Fault::of(&error))
    }
}

impl Perform for Resize {
    async fn perform(self, daemon: &Daemon, _tell: &Tell) -> Result<ResizeAnswer, Fault> {
        let served = find_to_change(daemon, &self.volume)?;
        let resized = resize::of_open(&served.volume(), &served.name, self.size_bytes, self.discard).await;
        let resized = resized.map_err(|error| Fault::of(&error))?;
        tracing::info!(
            volume = served.name,
            size_bytes = resized.size_bytes,
            "resized, as a client of the control socket asks"
        );
        Ok(resized)
    }
}

impl Perform for Rollback {
    async fn perform(self, daemon: &Daemon, tell: &Tell) -> Result<RollbackAnswer, Fault> {
        let served = find_to_change(daemon, &self.volume)?;
        let moment = store::moment(&self.to).map_err(|error| Fault::of(&error.into()))?;
        if self.dry_run {
            return Ok((&rollback::plan(served, &moment).await?).into());
        }
        let done = rollback::roll_back(served, daemon.nbd(), &moment, self.disconnect, tell).await?;
        Ok((&done).into())
    }
}

async fn perform<M: Perform>(daemon: &Daemon, params: Value, tell: &Tell) -> Result<Value, Fault> {
    let params: M = serde_json::from_value(params)
        .map_err(|error| Fault::new(Code::Params, format!("the parameters of '{}': {error}", M::NAME)))?;
    let answer = params.perform(daemon, tell).await?;
    serde_json::to_value(answer).map_err(|error| Fault::new(Code::Internal, error.to_string()))
}

macro_rules! methods {
    ($($method:ty),+ $(,)?) => {
        /// Their names.
        const METHODS: [&str; [$(<$method as Method>::NAME),+].len()] = [$(<$method as Method>::NAME),+];

        /// Does what a request asks for.
        ///
        /// # Errors
        /// What is to be answered.
        pub(crate) async fn dispatch(daemon: &Daemon, request: Request, tell: &Tell) -> Result<Value, Fault> {
            match request.method.as_str() {
                $(<$method as Method>::NAME => perform::<$method>(daemon, request.params, tell).await,)+
                unknown => {
                    let known = METHODS.join(", ");
                    let unknown: String = unknown.chars().take(64).collect();
                    let words = format!("there is no method '{unknown}' here, but {known}: the daemon may be older");
                    Err(Fault::new(Code::UnknownMethod, words))
                }
            }
        }
    };
}

methods!(
    Hello,
    Status,
    Info,
    Gc,
    Upgrade,
    SnapshotCreate,
    SnapshotGroup,
    SnapshotRm,
    ClonePin,
    Flatten,
    Resize,
    Rollback
);
