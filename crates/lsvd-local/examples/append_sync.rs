//! What a journal's disk asks for one record and its sync, by how the file is prepared: which way the journal goes is
//! decided by this.
//!
//!     cargo run --release -p lsvd-local --example append_sync -- DIR 1000
//!
//! 4 KiB are written and synced, one after the other, the ways in turns. Prints p50 and p99 in milliseconds.

use std::error::Error;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::fs::FallocateFlags;

const RECORD: usize = 4096;
/// The alignment that direct I/O asks for at most.
const ALIGN: usize = 4096;

/// How a file is made ready before records are written to it.
#[derive(Clone, Copy, Debug)]
enum Way {
    /// Not at all: it grows with each record.
    Grows,
    /// Its room is reserved: extents are there, and not written.
    Reserved,
    /// Its room is written with zeroes, and synced.
    Zeroed,
    /// The same, and the system's cache is passed by.
    ZeroedDirect,
}

const WAYS: [Way; 4] = [Way::Grows, Way::Reserved, Way::Zeroed, Way::ZeroedDirect];

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(directory), Some(rounds)) = (arguments.next(), arguments.next()) else {
        return Err("append_sync DIR ROUNDS".into());
    };
    let rounds: usize = rounds.parse()?;
    let mut files = Vec::new();
    for way in WAYS {
        files.push((way, prepare(Path::new(&directory), way, rounds * RECORD)?, Vec::new()));
    }
    let buffer = vec![7_u8; RECORD + ALIGN];
    let aligned = buffer.as_ptr().align_offset(ALIGN);
    let record = &buffer[aligned..aligned + RECORD];
    for round in 0..rounds {
        for (_, file, times) in &mut files {
            let begun = Instant::now();
            file.write_all_at(record, (round * RECORD) as u64)?;
            file.sync_data()?;
            times.push(begun.elapsed());
        }
    }
    println!("| file | p50, p99 (ms) |\n|---|---|");
    for (way, _, times) in &mut files {
        let (half, most) = percentiles(times);
        println!("| {way:?} | {half:.3}, {most:.3} |");
        std::fs::remove_file(Path::new(&directory).join(format!("{way:?}")))?;
    }
    Ok(())
}

fn prepare(directory: &Path, way: Way, length: usize) -> Result<File, Box<dyn Error>> {
    let path = directory.join(format!("{way:?}"));
    let file = File::create(&path)?;
    match way {
        Way::Grows => {}
        Way::Reserved => rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length as u64)?,
        Way::Zeroed | Way::ZeroedDirect => file.write_all_at(&vec![0; length], 0)?,
    }
    file.sync_all()?;
    let mut options = OpenOptions::new();
    if let Way::ZeroedDirect = way {
        options.custom_flags(rustix::fs::OFlags::DIRECT.bits() as i32);
    }
    Ok(options.write(true).open(&path)?)
}

/// p50 and p99, in milliseconds.
fn percentiles(times: &mut [Duration]) -> (f64, f64) {
    times.sort_unstable();
    let at = |percent: usize| times[(times.len() - 1) * percent / 100].as_secs_f64() * 1000.0;
    (at(50), at(99))
}
