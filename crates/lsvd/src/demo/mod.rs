//! `lsvd demo`: the whole promise in a few seconds, by the same commands and the same protocol that a user has.
//!
//! Creates a volume in a directory, serves it from a process of its own, writes through NBD, kills that process,
//! serves again and verifies. Knows the command line and the protocol, not the library: what it shows is what a user
//! gets. Invariants: 1. what was flushed must be there afterwards, and of what was not flushed a prefix (rule 1), or
//! the demo fails; 2. nothing is left behind unless the user keeps it.

mod pattern;
mod stage;

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};

use self::pattern::BLOCK_BYTES;
use self::stage::{Stage, Tally};
use crate::cli::Demo;
use crate::exit::Exit;
use crate::nbd_client::{Client, Request};
use crate::process::EndSignals;
use crate::{output, units};

const MIB: u64 = 1 << 20;
const BLOCKS_PER_MIB: u64 = MIB / BLOCK_BYTES;
const SIZE: &str = "1T";
/// The export takes flushes.
const FLAG_FLUSH: u16 = 1 << 2;

/// Random writes go to distinct blocks of an area in the middle of the volume: to 4,096 of its 2^18 blocks.
const RANDOM_AREA_FIRST_BLOCK: u64 = 1 << 27;
const RANDOM_AREA_BLOCKS: u64 = 1 << 18;
const RANDOM_WRITES: u64 = 4096;
/// Odd, so that multiples of it modulo a power of two do not meet.
const RANDOM_STRIDE: u64 = 0x9e37_79b9;
const RANDOM_DEPTH: usize = 32;

/// A MiB that is written, discarded and flushed.
const TRIMMED_OFFSET_BYTES: u64 = 1 << 36;

/// Unflushed writes, one after the other, and those that are in flight when the daemon is killed. Twice what a log
/// object holds, so that some have reached the bucket and some have not.
const UNFLUSHED_FIRST_BLOCK: u64 = 1 << 26;
const UNFLUSHED_WRITES: u64 = 4500;
const IN_FLIGHT_WRITES: u64 = 8;

const STREAM_DEPTH: usize = 8;
const STREAM: u64 = 1;
const RANDOM: u64 = 2;
const UNFLUSHED: u64 = 3;

/// Runs the command.
///
/// # Errors
/// If any step fails, or a byte is not what it must be.
pub(crate) async fn run(arguments: Demo) -> anyhow::Result<Exit> {
    let mut signals = EndSignals::catch()?;
    let stage = Arc::new(Stage::new(arguments.dir, arguments.keep)?);
    let play = {
        let stage = stage.clone();
        tokio::task::spawn_blocking(move || play(&stage, arguments.data / MIB, arguments.keep))
    };
    tokio::select! {
        played = play => {
            stage.clear();
            played.context("the demo broke off")??;
            Ok(Exit::Done)
        }
        _ = signals.next() => {
            stage.clear();
            Ok(Exit::Interrupted)
        }
    }
}

fn play(stage: &Stage, stream_mib: u64, keep: bool) -> anyhow::Result<()> {
    let begun = Instant::now();
    let bucket = stage.dir().join("bucket");
    std::fs::create_dir(&bucket)?;
    let url = format!("file://{}/demo", bucket.display());
    let listen = format!("unix:{}", stage.socket().display());
    let serve = ["serve", url.as_str(), "--listen", listen.as_str()];

    say("create", &format!("$ lsvd create {url} --size {SIZE}"))?;
    stage.run(&["create", &url, "--size", SIZE])?;
    say("serve", &format!("$ lsvd {}", serve.join(" ")))?;
    let (uri, took) = stage.start(&serve)?;
    more(&format!("{uri}   ready after {}", seconds(took)))?;

    let mut client = Client::connect(&stage.socket(), "demo").context("cannot connect to the daemon")?;
    let (size, flags) = (client.size_bytes(), client.flags());
    ensure!(size == 1 << 40 && flags & FLAG_FLUSH != 0, "the export has {size} bytes and flags {flags:#x}");
    write_stream(&mut client, stream_mib)?;
    write_random(&mut client)?;
    write_unflushed(&mut client)?;

    for request in unflushed(UNFLUSHED_WRITES, IN_FLIGHT_WRITES) {
        client.send(&request)?;
    }
    stage.kill()?;
    say(
        "kill -9",
        &format!(
            "with {IN_FLIGHT_WRITES} more writes in flight; nothing of the daemon is left but the bucket"
        ),
    )?;

    say("recover", &format!("$ lsvd {}", serve.join(" ")))?;
    let (_, took) = stage.start(&serve)?;
    more(&format!("serving again after {}: {}", seconds(took), recovered(&stage.log())))?;
    let mut client = Client::connect(&stage.socket(), "demo").context("cannot connect to the daemon")?;
    verify_flushed(&mut client, stream_mib)?;
    let survived = verify_unflushed(&mut client)?;
    client.disconnect()?;

    let status = stage.stop()?;
    ensure!(status.success(), "the daemon ended with {status}:\n{}", stage.log());
    say("close", "SIGTERM: closed cleanly")?;
    show_bucket(stage, stream_mib * MIB + (RANDOM_WRITES + survived) * BLOCK_BYTES)?;
    let left =
        if keep { format!("kept in {}", stage.dir().display()) } else { "nothing is left behind".into() };
    output::line(&format!(
        "\neverything that was flushed came back; {} in all, {left}",
        seconds(begun.elapsed())
    ))?;
    Ok(())
}

fn write_stream(client: &mut Client, stream_mib: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let requests = (0..stream_mib).map(|index| Request::Write {
        offset_bytes: index * MIB,
        data: pattern::blocks(index * BLOCKS_PER_MIB, BLOCKS_PER_MIB, STREAM),
        fua: false,
    });
    client.pipeline(requests, STREAM_DEPTH, |_, _| Ok(()))?;
    client.call(Request::Flush)?;
    let took = begun.elapsed();
    let words = format!("{stream_mib} MiB in requests of 1 MiB, then a flush");
    say("write", &figures(&words, took, &rate(stream_mib, took, "MiB/s")))?;
    Ok(())
}

fn write_random(client: &mut Client) -> anyhow::Result<()> {
    let begun = Instant::now();
    let requests = random_blocks().map(|block| Request::Write {
        offset_bytes: block * BLOCK_BYTES,
        data: pattern::blocks(block, 1, RANDOM),
        fua: false,
    });
    client.pipeline(requests, RANDOM_DEPTH, |_, _| Ok(()))?;
    let data = pattern::blocks(TRIMMED_OFFSET_BYTES / BLOCK_BYTES, BLOCKS_PER_MIB, RANDOM);
    client.call(Request::Write { offset_bytes: TRIMMED_OFFSET_BYTES, data, fua: false })?;
    client.call(Request::Trim { offset_bytes: TRIMMED_OFFSET_BYTES, length_bytes: 1 << 20 })?;
    client.call(Request::Flush)?;
    let took = begun.elapsed();
    let words = format!("{} random 4 KiB writes, then a flush", units::grouped(RANDOM_WRITES));
    more(&figures(&words, took, &rate(RANDOM_WRITES, took, "writes/s")))
}

fn write_unflushed(client: &mut Client) -> anyhow::Result<()> {
    client.pipeline(unflushed(0, UNFLUSHED_WRITES), 1, |_, _| Ok(()))?;
    more(&format!("{} 4 KiB writes one after the other, and no flush", units::grouped(UNFLUSHED_WRITES)))
}

fn random_blocks() -> impl Iterator<Item = u64> {
    (0..RANDOM_WRITES).map(|index| RANDOM_AREA_FIRST_BLOCK + index * RANDOM_STRIDE % RANDOM_AREA_BLOCKS)
}

fn unflushed(first: u64, count: u64) -> impl Iterator<Item = Request> {
    (first..first + count).map(|index| UNFLUSHED_FIRST_BLOCK + index).map(|block| Request::Write {
        offset_bytes: block * BLOCK_BYTES,
        data: pattern::blocks(block, 1, UNFLUSHED),
        fua: false,
    })
}

fn verify_flushed(client: &mut Client, stream_mib: u64) -> anyhow::Result<()> {
    let begun = Instant::now();
    let mut wrong = None;
    let mut check = |request: &Request, data: Vec<u8>, generation| {
        if let Request::Read { offset_bytes, .. } = request {
            wrong = wrong.or(pattern::first_difference(&data, offset_bytes / BLOCK_BYTES, generation));
        }
        Ok(())
    };
    let stream =
        (0..stream_mib).map(|index| Request::Read { offset_bytes: index * MIB, length_bytes: 1 << 20 });
    client.pipeline(stream, STREAM_DEPTH, |request, data| check(request, data, STREAM))?;
    let took = begun.elapsed();
    let random =
        random_blocks().map(|block| Request::Read { offset_bytes: block * BLOCK_BYTES, length_bytes: 4096 });
    client.pipeline(random, RANDOM_DEPTH, |request, data| check(request, data, RANDOM))?;
    let trimmed = client.call(Request::Read { offset_bytes: TRIMMED_OFFSET_BYTES, length_bytes: 1 << 20 })?;
    ensure!(trimmed.iter().all(|byte| *byte == 0), "what was discarded came back");
    if let Some(block) = wrong {
        bail!("block {block} was flushed and is not what was written");
    }
    let words = format!("{stream_mib} MiB read back, every byte as written");
    say("verify", &figures(&words, took, &rate(stream_mib, took, "MiB/s")))?;
    more(&format!("{} random blocks read back, every byte as written", units::grouped(RANDOM_WRITES)))
}

/// Rule 1: what survived of the unflushed writes, each completed before the next was submitted, is a prefix of them.
fn verify_unflushed(client: &mut Client) -> anyhow::Result<u64> {
    let mut survived = vec![false; usize::try_from(UNFLUSHED_WRITES + IN_FLIGHT_WRITES)?];
    for (index, present) in (0..).zip(survived.iter_mut()) {
        let block = UNFLUSHED_FIRST_BLOCK + index;
        let data = client.call(Request::Read { offset_bytes: block * BLOCK_BYTES, length_bytes: 4096 })?;
        *present = pattern::first_difference(&data, block, UNFLUSHED).is_none();
        ensure!(*present || data.iter().all(|byte| *byte == 0), "block {block} is neither old nor new");
    }
    // Writes that were in flight together have no order among themselves, but all others were completed before them.
    let ordered = usize::try_from(UNFLUSHED_WRITES)?;
    let prefix = survived[..ordered].iter().take_while(|present| **present).count();
    let beyond = prefix < ordered && survived[prefix..].contains(&true);
    ensure!(!beyond, "the unflushed write {prefix} was lost although a later one survived");
    let all = survived.iter().filter(|present| **present).count() as u64;
    more(&format!(
        "of {} unflushed writes the first {} survived, none after: a prefix",
        units::grouped(UNFLUSHED_WRITES + IN_FLIGHT_WRITES),
        units::grouped(all)
    ))?;
    Ok(all)
}

/// What the daemon's log says about its recovery.
fn recovered(log: &str) -> String {
    let number = |name: &str| {
        let events = log.lines().filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok());
        let mut numbers = events.filter_map(|event| event.get(name).and_then(serde_json::Value::as_u64));
        numbers.next_back().map_or_else(|| "?".to_owned(), units::grouped)
    };
    format!("{} log objects processed, {} archived", number("objects_processed"), number("objects_archived"))
}

fn show_bucket(stage: &Stage, live_bytes: u64) -> anyhow::Result<()> {
    let folders = stage::folders(&stage.dir().join("bucket/demo"))?;
    let row = |(folder, tally): (&String, &Tally)| {
        vec![folder.clone(), units::grouped(tally.objects), units::bytes_human(tally.bytes)]
    };
    let rows: Vec<Vec<String>> = folders.iter().map(row).collect();
    let total = folders.values().map(|tally| tally.bytes).sum();
    say(
        "bucket",
        &format!(
            "a device of {SIZE} takes {}; {} of it is data",
            units::bytes_human(total),
            units::bytes_human(live_bytes)
        ),
    )?;
    output::table(&["folder", "objects", "bytes"], &rows)?;
    Ok(())
}

fn say(step: &str, words: &str) -> anyhow::Result<()> {
    Ok(output::line(&format!("{step:<9}{words}"))?)
}

fn more(words: &str) -> anyhow::Result<()> {
    say("", words)
}

fn figures(words: &str, took: Duration, rate: &str) -> String {
    format!("{words:<52}{:>8}  {rate:>16}", seconds(took))
}

fn seconds(took: Duration) -> String {
    format!("{:.2} s", took.as_secs_f64())
}

fn rate(count: u64, took: Duration, unit: &str) -> String {
    let per_second = u128::from(count) * 1_000_000 / took.as_micros().max(1);
    format!("{} {unit}", units::grouped(u64::try_from(per_second).unwrap_or(u64::MAX)))
}
