//! `lsvd serve`: volumes as exports of an NBD server, until a signal comes or the last one is fenced.
//!
//! Knows the order of things. Invariants: 1. sockets are bound before a volume is opened, so that a daemon started
//! twice by mistake fails on its socket and fences nobody; 2. the URIs are printed when clients are answered; 3. a
//! signal ends with everything accepted in the store, a second one at once, which is as safe as a crash.

mod control;
mod listen;
mod schedule;

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::future::join_all;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use lsvd_nbd::{Limits, Listener, Server};
use lsvd_volume::{
    CollectOptions, CreateOptions, Error, HandoverOptions, JournalOptions, Moment, OpenOptions,
    UpkeepOptions, Volume,
};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use self::control::Control;
use crate::cli::{Flush, Serve};
use crate::control::place;
use crate::exit::{self, Exit, Usage};
use crate::export::VolumeExport;
use crate::output;
use crate::process::{self, EndSignals};
use crate::served::Served;
use crate::store::{self, Errand, Place};

/// How long a daemon whose last volume has ended still answers: its clients are to hear ESHUTDOWN, not a broken
/// connection that they might take for a reason to try again.
const FENCED_LINGER: Duration = Duration::from_secs(1);

/// How often closing says what it still waits for.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How often opening says that it goes on: longer than opening takes on a store that is well.
const OPENING_SAID_EVERY: Duration = Duration::from_secs(5);

/// Runs the command.
///
/// # Errors
/// If a socket can not be bound or a volume not opened; nothing is served then.
pub(crate) async fn run(arguments: Serve) -> anyhow::Result<Exit> {
    // The command line first: what is wrong with it is no matter of any store.
    if !arguments.listen.is_empty() {
        listen::addresses(&arguments.listen, &[], arguments.allow_remote)?;
    }
    match (arguments.journal.flush, &arguments.journal.journal) {
        (Flush::Journal, None) => {
            return Err(
                Usage("--flush journal needs --journal DIR, on a disk that survives".to_owned()).into()
            );
        }
        (Flush::Object, Some(_)) => {
            let what = "--journal is kept for --flush journal only: say that too, or leave it out";
            return Err(Usage(what.to_owned()).into());
        }
        _ => {}
    }
    check_delete_after(&arguments)?;
    let places = places(&arguments)?;
    let names: Vec<&str> = places.iter().map(|(place, _)| place.name.as_str()).collect();
    let mut listeners = listen::handed_over(arguments.allow_remote)?;
    let addresses = match (arguments.listen.is_empty(), listeners.is_empty()) {
        // The sockets are there, and nobody asked for another one.
        (true, false) => Vec::new(),
        _ => listen::addresses(&arguments.listen, &names, arguments.allow_remote)?,
    };
    let mut signals = EndSignals::catch()?;
    for address in &addresses {
        // A unit may name the socket that it is handed.
        if listeners.iter().any(|handed| handed.address() == address) {
            continue;
        }
        listeners.push(Listener::bind(address).await?);
    }
    let control = Control::start(&arguments, places.iter().map(|(place, _)| place)).await?;
    let volumes = tokio::select! {
        volumes = saying_so(open_all(&arguments, &places)) => volumes?,
        signal = signals.next() => {
            tracing::info!(signal, "stopped before anything was served");
            return Ok(Exit::Done);
        }
    };
    let volumes = Arc::new(volumes);
    let mut control = control;
    if let Some(control) = &mut control {
        control.opened(&volumes).await;
    }
    tokio::select! {
        exit = serve(&volumes, listeners, control.as_ref(), &mut signals, arguments.shutdown_timeout) => exit,
        never = log_stats(&volumes, arguments.stats_interval) => match never {},
        never = schedule::run(&volumes, &arguments.moments) => match never {},
    }
}

/// Says what each volume holds and has done, each `interval`; without one, nothing.
async fn log_stats(volumes: &[Served], interval: Option<Duration>) -> Infallible {
    let Some(interval) = interval else { return std::future::pending().await };
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        ticks.tick().await;
        for served in volumes {
            let stats = served.volume().stats();
            tracing::info!(
                volume = served.name,
                buffered_bytes = stats.buffered_bytes,
                buffered_ms = u64::try_from(stats.buffered_for.as_millis()).unwrap_or(u64::MAX),
                uploads_in_flight = stats.uploads_in_flight,
                objects_written = stats.objects_written,
                bytes_written = stats.bytes_written,
                fetches = stats.fetches,
                bytes_fetched = stats.bytes_fetched,
                cache_hits = stats.cache_hits,
                corrupt_reads = stats.corrupt_reads,
                reloads = stats.reloads,
                mended_regions = stats.mended_regions,
                lost_regions = stats.lost_regions,
                passed_over_objects = stats.passed_over_objects,
                map_extents = stats.map_extents,
                map_bytes = stats.map_bytes,
                checkpoints = stats.checkpoints,
                moved_bytes = stats.moved_bytes,
                deleted_objects = stats.deleted_objects,
                deleted_bytes = stats.deleted_bytes,
                slowed_ms = u64::try_from(stats.slowed_for.as_millis()).unwrap_or(u64::MAX),
                log_objects = stats.log_objects,
                log_bytes = stats.log_bytes,
                dead_bytes = stats.dead_bytes,
                live_bytes = stats.live_bytes,
                durable_number = stats.durable_number,
                "stats"
            );
        }
    }
}

/// Says from time to time that opening still waits: a store that is away is no reason for silence.
async fn saying_so<T>(opening: impl Future<Output = T>) -> T {
    let mut opening = std::pin::pin!(opening);
    loop {
        match tokio::time::timeout(OPENING_SAID_EVERY, &mut opening).await {
            Ok(opened) => return opened,
            Err(_) => tracing::warn!("still opening: waiting for the store"),
        }
    }
}

fn places(arguments: &Serve) -> anyhow::Result<Vec<(Place, Option<Moment>)>> {
    let errand = Errand {
        verb: "open",
        create_root: arguments.create.is_some(),
        patience: arguments.limits.io_timeout,
    };
    let mut places: Vec<(Place, Option<Moment>)> = Vec::new();
    for url in &arguments.urls {
        // What is created in passing gets a name of its own.
        let place = match arguments.create {
            Some(_) => (store::volume(url, &arguments.store, errand)?, None),
            None => store::volume_at(url, &arguments.store, errand)?,
        };
        let (name, url) = (&place.0.name, &place.0.url);
        if let Some((other, _)) = places.iter().find(|(other, _)| other.name == *name) {
            let what = format!(
                "'{}' and '{}' would both be the export '{}': serve one of them from another daemon",
                other.url, url, name
            );
            return Err(Usage(what).into());
        }
        places.push(place);
    }
    Ok(places)
}

/// Opens all volumes together; if one can not be opened the others are closed again.
async fn open_all(arguments: &Serve, places: &[(Place, Option<Moment>)]) -> anyhow::Result<Vec<Served>> {
    let writes = places.iter().any(|(_, moment)| moment.is_none());
    let handover = if writes { handover(arguments)? } else { None };
    let options = |place: &Place| options(arguments, handover.as_ref(), &place.name);
    let opened = places.iter().map(|(place, moment)| open(arguments, place, moment.as_ref(), options(place)));
    let opened = join_all(opened).await;
    let mut volumes = Vec::new();
    let mut failure = None;
    for result in opened {
        match result {
            Ok(volume) => volumes.push(volume),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    let Some(failure) = failure else { return Ok(volumes) };
    for served in volumes {
        if let Err(error) = served.volume().close().await {
            tracing::warn!(volume = served.name, %error, "not closed cleanly");
        }
    }
    Err(failure)
}

async fn open(
    arguments: &Serve,
    place: &Place,
    moment: Option<&Moment>,
    options: OpenOptions,
) -> anyhow::Result<Served> {
    let bucket = place.bucket.clone();
    let opened = if let Some(moment) = moment {
        Volume::open_read_only_at(bucket, moment, options.clone()).await
    } else if arguments.read_only {
        Volume::open_read_only(bucket, options.clone()).await
    } else {
        match (Volume::open(bucket, options.clone()).await, arguments.create) {
            (Err(Error::NotFound { .. }), Some(size_bytes)) => {
                create_and_open(place, size_bytes, options.clone()).await
            }
            (opened, _) => opened,
        }
    };
    let volume = opened.with_context(|| format!("cannot open volume '{}'", place.name))?;
    if let Some(history) = arguments.moments.history {
        let history_ms = u64::try_from(history.as_millis()).unwrap_or(u64::MAX);
        let told = volume.set_history(history_ms).await;
        told.with_context(|| format!("cannot set the history of volume '{}'", place.name))?;
    }
    let opened = volume.description();
    tracing::info!(
        volume = place.name,
        volume_id = %opened.volume_id,
        size_bytes = opened.size_bytes,
        epoch = opened.epoch.0,
        read_only = opened.read_only,
        hands_over = opened.hands_over,
        objects_processed = opened.recovery.objects_processed,
        objects_archived = opened.recovery.objects_archived,
        journal_records = opened.recovery.journal_records,
        durable_number = opened.recovery.durable_number.0,
        "volume is open"
    );
    let as_of = moment.map(|_| opened.recovery.durable_number);
    let place = (place.name.clone(), place.url.to_string(), place.bucket.clone());
    Ok(Served::new(place, volume, options, as_of))
}

async fn create_and_open(place: &Place, size_bytes: u64, options: OpenOptions) -> Result<Volume, Error> {
    let wanted = CreateOptions {
        unsafe_single_writer: options.unsafe_single_writer,
        ..CreateOptions::new(size_bytes)
    };
    match lsvd_volume::create(&place.bucket, &wanted).await {
        Ok(created) => {
            tracing::info!(volume = place.name, volume_id = %created.volume_id, size_bytes, "volume created");
        }
        // Somebody was faster; theirs is as good.
        Err(Error::Exists { .. }) => {}
        Err(error) => return Err(error),
    }
    Volume::open(place.bucket.clone(), options).await
}

/// The volume's own journal: a folder of its name, so that a second volume needs no other directory.
fn journal(arguments: &Serve, name: &str) -> Option<JournalOptions> {
    let journal = &arguments.journal;
    let directory = journal.journal.as_ref().filter(|_| journal.flush == Flush::Journal)?;
    let mut options = JournalOptions::directory(&directory.join(name));
    options.bytes_max = journal.journal_size;
    Some(options)
}

/// Where this daemon hands over to the next one; without a directory of the user's own choice, none if it can not be had.
fn handover(arguments: &Serve) -> anyhow::Result<Option<HandoverOptions>> {
    if arguments.no_handover || arguments.read_only || arguments.journal.flush == Flush::Journal {
        return Ok(None);
    }
    let directory = arguments.handover.clone().unwrap_or_else(place::usual_handover);
    let made = place::own(&directory).and_then(|directory| {
        let made = HandoverOptions::directory(&directory);
        Ok((made.with_context(|| format!("'{}'", directory.display()))?, directory))
    });
    match made {
        Ok((handover, directory)) => Ok(Some(match place::handover_that_is_there(Some(&directory)) {
            // What one that was started otherwise has left.
            Some(elsewhere) => handover.and(&elsewhere),
            None => handover,
        })),
        Err(error) if arguments.handover.is_some() => Err(error.context("--handover")),
        Err(error) => {
            tracing::warn!(
                "if this daemon is killed, writes that it answered and nobody flushed are lost, which clients that reconnect \
                 do not notice: {error:#}; name another directory with --handover DIR"
            );
            Ok(None)
        }
    }
}

fn options(arguments: &Serve, handover: Option<&HandoverOptions>, name: &str) -> OpenOptions {
    let limits = &arguments.limits;
    OpenOptions {
        batch_bytes_max: limits.batch,
        batch_age_max: limits.batch_age,
        buffer_bytes_max: limits.buffer,
        uploads_max: limits.uploads,
        flush_uploads_max: limits.flush_uploads,
        fetches_max: limits.fetches,
        cache_bytes_max: limits.cache,
        map_bytes_max: limits.map_memory,
        upkeep: upkeep(arguments),
        io_timeout: limits.io_timeout,
        unsafe_single_writer: arguments.unsafe_single_writer,
        accept_shorter_log: arguments.accept_shorter_log,
        if_free: arguments.if_free,
        journal: journal(arguments, name),
        handover: handover.cloned(),
        abandon_journal: arguments.journal.abandon_journal,
        ..OpenOptions::default()
    }
}

fn upkeep(arguments: &Serve) -> UpkeepOptions {
    let (upkeep, usual) = (&arguments.upkeep, UpkeepOptions::default());
    let io_timeout = arguments.limits.io_timeout;
    let delete_after = usual.delete_after.max(io_timeout.saturating_mul(2));
    UpkeepOptions {
        checkpoint_age: upkeep.checkpoint_interval,
        delete_after: upkeep.delete_after.unwrap_or(delete_after),
        collect: CollectOptions {
            target: upkeep.gc_target,
            waste_bytes_min: upkeep.gc_waste_min,
            ..usual.collect
        },
        ..usual
    }
}

/// A reader that waits for the store must not find what it waits for deleted.
fn check_delete_after(arguments: &Serve) -> Result<(), Usage> {
    let io_timeout = arguments.limits.io_timeout;
    match arguments.upkeep.delete_after {
        Some(after) if after <= io_timeout => Err(Usage(format!(
            "--delete-after {after:?} is not longer than --io-timeout {io_timeout:?}: a reader could wait that long for an \
             object that is deleted meanwhile"
        ))),
        _ => Ok(()),
    }
}

/// Serves until it is told to stop or nothing is left to serve, then closes.
async fn serve(
    volumes: &[Served],
    listeners: Vec<Listener>,
    control: Option<&Control>,
    signals: &mut EndSignals,
    shutdown_timeout: Duration,
) -> anyhow::Result<Exit> {
    let exports =
        volumes.iter().map(|served| (served.name.clone(), Arc::new(VolumeExport::of(served)))).collect();
    let default_export = (volumes.len() == 1).then(|| volumes[0].name.clone());
    let server = Server::new(exports, default_export, Limits::default())?;
    if let Some(control) = control {
        control.daemon().serves(server.clone());
    }
    let uris: Vec<String> = listeners
        .iter()
        .flat_map(|listener| volumes.iter().map(|served| listener.address().uri(&served.name)))
        .collect();

    let (stop, stopped) = watch::channel(false);
    let mut serving = JoinSet::new();
    for listener in listeners {
        let (server, mut stopped) = (server.clone(), stopped.clone());
        serving.spawn(async move {
            // A sender that is gone means the same as one that says stop.
            let shutdown = async move { stopped.wait_for(|stop| *stop).await.map_or((), |_| ()) };
            server.serve(listener, shutdown).await;
        });
    }
    announce(&uris);

    let exit = until_told(volumes, signals).await;
    process::notify("STOPPING=1");
    if let Some(control) = control {
        control.closes();
    }
    // Nobody is left to hear it if every listener has ended by itself.
    let _ = stop.send(true);
    tokio::select! {
        result = close(volumes, serving) => result?,
        signal = signals.next() => {
            tracing::warn!(signal, "stopped at once: as safe as a crash, what was flushed is safe");
            return Ok(Exit::Interrupted);
        }
        () = tokio::time::sleep(shutdown_timeout) => {
            volumes.iter().for_each(say_what_is_not_stored);
            return Ok(if exit == Exit::Done { Exit::Store } else { exit });
        }
    }
    Ok(exit)
}

fn announce(uris: &[String]) {
    for uri in uris {
        tracing::info!(uri, "serving");
    }
    // Who started the daemon may not care for its stdout; its clients do care for the daemon.
    if let Err(error) = output::line(&uris.join("\n")) {
        tracing::warn!(%error, "cannot print the URIs");
    }
    process::notify("READY=1");
}

/// Waits for a signal, or until no volume can serve any more. Says how the program ends: with the reason of the first
/// volume that ended by itself, if any did.
async fn until_told(volumes: &[Served], signals: &mut EndSignals) -> Exit {
    let mut exit = Exit::Done;
    let mut left = volumes.len();
    let mut ended: FuturesUnordered<_> =
        volumes.iter().map(|served| served.ended().map(|error| (&served.name, error)).boxed()).collect();
    loop {
        tokio::select! {
            signal = signals.next() => {
                tracing::info!(signal, "stopping: no new connections, draining what was accepted");
                return exit;
            }
            Some((name, error)) = ended.next() => {
                left -= 1;
                if exit == Exit::Done {
                    exit = exit::of_volume(&error);
                }
                tracing::error!(volume = name, %error, volumes_left = left, "its clients now get ESHUTDOWN");
                if left == 0 {
                    break;
                }
            }
        }
    }
    tokio::select! {
        () = tokio::time::sleep(FENCED_LINGER) => {}
        signal = signals.next() => tracing::info!(signal, "stopping"),
    }
    exit
}

/// Lets requests in flight finish, then closes every volume, saying what it waits for.
async fn close(volumes: &[Served], serving: JoinSet<()>) -> anyhow::Result<()> {
    serving.join_all().await;
    let closing =
        join_all(volumes.iter().map(|served| async move { (served, served.volume().close().await) }));
    let mut closing = std::pin::pin!(closing);
    let mut progress = tokio::time::interval_at(tokio::time::Instant::now() + PROGRESS_EVERY, PROGRESS_EVERY);
    let closed = loop {
        tokio::select! {
            closed = &mut closing => break closed,
            _ = progress.tick() => volumes.iter().for_each(say_what_is_left),
        }
    };
    let mut failure = None;
    for (served, result) in closed {
        match result {
            Ok(()) => tracing::info!(volume = served.name, "closed cleanly"),
            // It was said when it happened, and it has its own exit code.
            Err(Error::Fenced { .. } | Error::Closed { .. }) => {}
            Err(error) => {
                tracing::error!(volume = served.name, %error, "not closed cleanly; what was flushed is safe");
                let told = format!("cannot close volume '{}' cleanly", served.name);
                failure = failure.or(Some(anyhow::Error::new(error).context(told)));
            }
        }
    }
    failure.map_or(Ok(()), Err)
}

/// The store did not take everything in time.
fn say_what_is_not_stored(served: &Served) {
    let not_stored_bytes = served.volume().stats().buffered_bytes;
    let what = match served.volume().description().journal {
        Some(_) => {
            "not closed in time; the journal has what the store does not: serve it again with this journal"
        }
        None => "not closed in time: as safe as a crash, what was flushed is in the store",
    };
    tracing::error!(volume = served.name, not_stored_bytes, "{what}");
}

fn say_what_is_left(served: &Served) {
    let stats = served.volume().stats();
    tracing::info!(
        volume = served.name,
        buffered_bytes = stats.buffered_bytes,
        uploads_in_flight = stats.uploads_in_flight,
        "closing"
    );
}
