//! Adopting a log of format 1: what an encoder that shares no code with this one wrote is read to the byte, goes on in
//! either format, and what can not be adopted is refused by name.
//!
//! On a directory, where the encoder and replayer of `xtask/scripts/seed.py` work too. The clock is the real one; nothing waits
//! for it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use lsvd_backend::{Bucket, StoreOptions};
use lsvd_format::v1::{Entry, Header};
use lsvd_format::{Epoch, Extent, ObjectIdentity, SequenceNumber, VolumeId, WriterId};
use lsvd_volume::{
    AdoptOptions, Adopted, CreateOptions, Error, ObjectFormat, OpenOptions, Volume, adopt, create, inspect,
};
use tempfile::TempDir;

use crate::common::{BLOCK, blocks, read};

/// A bucket in a directory, in which lsvd and the stranger meet.
pub(crate) struct Place {
    directory: TempDir,
    pub(crate) bucket: Bucket,
}

impl Place {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("db1")).unwrap();
        let url = format!("file://{}/db1", directory.path().display()).parse().unwrap();
        let bucket = Bucket::open(&url, &StoreOptions::default()).unwrap();
        Self { directory, bucket }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join("db1").join(name)
    }

    fn put(&self, name: &str, bytes: &[u8]) {
        let path = self.path(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }

    /// Runs the stranger, and gives the image that it wrote.
    fn stranger(&self, what: &str, flags: &[String]) -> Vec<u8> {
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../xtask/scripts/seed.py");
        let image = self.directory.path().join("image");
        let mut command = Command::new("/usr/bin/python3");
        let command = command.arg(script).arg(what).arg(self.path("")).arg(&image).args(flags);
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        std::fs::read(image).unwrap()
    }

    fn encode(&self, flags: &str) -> Vec<u8> {
        let flags: Vec<String> = flags.split_whitespace().map(str::to_owned).collect();
        self.stranger("encode", &flags)
    }

    pub(crate) fn replay(&self, size_bytes: u64) -> Vec<u8> {
        self.stranger("replay", &["--bytes".to_owned(), size_bytes.to_string()])
    }

    /// The files right in the volume's prefix, with their bytes.
    pub(crate) fn objects(&self) -> Vec<(String, Vec<u8>)> {
        let entries = std::fs::read_dir(self.path("")).unwrap().map(|entry| entry.unwrap());
        let files = entries.filter(|entry| entry.file_type().unwrap().is_file());
        let mut objects: Vec<_> = files
            .map(|file| (file.file_name().into_string().unwrap(), std::fs::read(file.path()).unwrap()))
            .collect();
        objects.sort();
        objects
    }

    async fn adopt(&self, size_bytes: u64) -> Result<Adopted, Error> {
        adopt(&self.bucket, &options(size_bytes)).await
    }

    async fn open(&self) -> Volume {
        self.open_with(|_| ()).await
    }

    pub(crate) async fn open_with(&self, change: impl FnOnce(&mut OpenOptions)) -> Volume {
        let mut options = OpenOptions { probe: false, ..OpenOptions::default() };
        change(&mut options);
        Volume::open(self.bucket.clone(), options).await.expect("it opens")
    }

    pub(crate) async fn open_single(&self) -> Volume {
        self.open_with(|options| options.unsafe_single_writer = true).await
    }
}

/// Adopting what a test has just written.
fn options(size_bytes: u64) -> AdoptOptions {
    AdoptOptions { quiet_for: Duration::ZERO, ..AdoptOptions::new(size_bytes) }
}

fn going_on_in_format_1(size_bytes: u64) -> AdoptOptions {
    let create = CreateOptions {
        log_format: ObjectFormat::V1,
        unsafe_single_writer: true,
        ..CreateOptions::new(size_bytes)
    };
    AdoptOptions { create, ..options(size_bytes) }
}

pub(crate) async fn image(volume: &Volume) -> Vec<u8> {
    read(volume, 0, volume.description().size_bytes).await.unwrap()
}

fn object(entries: &[(u64, u32)]) -> Vec<u8> {
    let entries = entries.iter().map(|&(address_bytes, size_bytes)| Entry { address_bytes, size_bytes });
    let header = Header { entries: entries.collect(), mark: None };
    let mut bytes = Vec::new();
    header.encode(&mut bytes);
    bytes.resize(usize::try_from(header.object_bytes()).unwrap(), 7);
    bytes
}

const SIZE: u64 = 256 * BLOCK;

/// A log of the seed's format in names of any width, from 0 or 1 on, with entries that overlap, with headers that are
/// full, empty, or have rubbish behind their end: each byte is read as the stranger says, and no object was touched.
#[tokio::test]
async fn what_the_seed_wrote_is_read_to_the_byte() {
    for (seed, digits, first, full) in
        [(1, 16, 1, 0), (2, 1, 0, 1), (3, 8, 1, 2), (4, 20, 0, 0), (5, 2, 1, 1)]
    {
        let place = Place::new();
        let flags = format!(
            "--seed {seed} --digits {digits} --first {first} --full {full} --objects 40 --blocks 256"
        );
        let expected = place.encode(&flags);
        let before = place.objects();
        let adopted = place.adopt(SIZE).await.unwrap();
        assert_eq!((adopted.objects, adopted.objects_archived), (40, 0));
        assert_eq!(
            (adopted.first_number, adopted.last_number, adopted.name_digits),
            (first, first + 39, digits)
        );
        let reader = Volume::open_read_only(place.bucket.clone(), OpenOptions::default()).await.unwrap();
        assert!(image(&reader).await == expected, "{flags}");
        let volume = place.open().await;
        assert_eq!(volume.description().recovery.objects_processed, 41, "and the fence");
        assert!(image(&volume).await == expected, "{flags}");
        for (name, bytes) in before {
            assert!(std::fs::read(place.path(&name)).unwrap() == bytes, "{name} was changed");
        }
    }
}

/// Rule 3: the log ends at its gap, as the seed's did; what lies beyond is archived byte for byte, and never deleted.
#[tokio::test]
async fn a_log_with_a_gap_is_read_up_to_it_and_the_rest_is_archived() {
    let place = Place::new();
    let expected = place.encode("--seed 6 --objects 30 --full 1 --blocks 256 --digits 4 --gap 21");
    let before = place.objects();
    let adopted = place.adopt(SIZE).await.unwrap();
    assert_eq!((adopted.objects, adopted.last_number, adopted.objects_archived), (20, 20, 9));
    assert_eq!(place.objects(), before[..20]);
    let archives: Vec<_> =
        std::fs::read_dir(place.path("archive")).unwrap().map(|entry| entry.unwrap()).collect();
    assert_eq!(archives.len(), 1);
    let reason = archives[0].file_name().into_string().unwrap();
    assert!(reason.ends_with("-epoch-0000000000000001-beyond-gap"), "{reason}");
    for (name, bytes) in &before[20..] {
        assert!(std::fs::read(archives[0].path().join(name)).unwrap() == *bytes, "{name}");
    }
    let volume = place.open().await;
    assert!(image(&volume).await == expected);
}

/// The volume goes on in format 2 behind the old objects: writes, trims and zeroes are there after a crash, under names
/// of the old width, and the old objects are as they were.
#[tokio::test]
async fn an_adopted_volume_goes_on_in_format_2() {
    let place = Place::new();
    let mut expected = place.encode("--seed 7 --objects 10 --full 1 --blocks 256 --digits 8");
    let old = place.objects();
    place.adopt(SIZE).await.unwrap();
    for round in 0..3u8 {
        let volume = place.open().await;
        let at = usize::from(round) * 40 * 4096;
        volume.write(at as u64 + 1000, blocks(2, round + 1), false).await.unwrap();
        volume.trim(at as u64 + 8 * BLOCK, 3 * BLOCK, false).await.unwrap();
        volume.write_zeroes(at as u64 + 20 * BLOCK, 5000, true, false).await.unwrap();
        volume.flush().await.unwrap();
        expected[at + 1000..at + 1000 + 8192].fill(round + 1);
        expected[at + 8 * 4096..at + 11 * 4096].fill(0);
        expected[at + 20 * 4096..at + 20 * 4096 + 5000].fill(0);
        assert!(image(&volume).await == expected, "round {round}");
        if round == 1 {
            volume.close().await.unwrap();
        }
    }
    assert!(image(&place.open().await).await == expected);
    let now = place.objects();
    assert_eq!(now[..10], old);
    assert!(
        now.iter().all(|(name, _)| name.len() == 8),
        "{:?}",
        now.iter().map(|of| &of.0).collect::<Vec<_>>()
    );
    assert_eq!(&now[10].1[..11], b"lsvd-log-v2", "the fence");
    let info = inspect(&place.bucket).await.unwrap();
    let layout = info.log_layout.unwrap();
    assert_eq!((layout.prefix.as_str(), layout.name_digits, layout.append_format), ("", 8, ObjectFormat::V2));
}

/// A log in a folder, beside other objects that are none of its business.
#[tokio::test]
async fn a_log_has_its_own_prefix() {
    let place = Place::new();
    let expected = place.encode("--seed 8 --objects 10 --blocks 256 --digits 3");
    std::fs::create_dir_all(place.path("old/log")).unwrap();
    for (name, _) in place.objects() {
        std::fs::rename(place.path(&name), place.path(&format!("old/log/{name}"))).unwrap();
    }
    place.put("readme", b"not mine");
    place.put("old/log/x/001", b"not mine");
    place.put("07", b"not of the log");
    let options = AdoptOptions { log_prefix: "old/log/".to_owned(), ..options(SIZE) };
    let adopted = adopt(&place.bucket, &options).await.unwrap();
    assert_eq!((adopted.objects, adopted.objects_archived), (10, 0));
    let volume = place.open().await;
    volume.write(0, blocks(1, 9), true).await.unwrap();
    assert!(image(&volume).await[4096..] == expected[4096..]);
    assert!(place.path("old/log/00b").exists(), "the fence");
}

/// The volume goes on in the seed's format: whatever lsvd writes, the stranger reads to the byte, and the other way round.
#[tokio::test]
async fn an_adopted_volume_goes_on_in_format_1() {
    let place = Place::new();
    let mut expected = place.encode("--seed 9 --objects 10 --full 1 --blocks 256 --digits 2");
    adopt(&place.bucket, &going_on_in_format_1(SIZE)).await.unwrap();
    for round in 0..3u8 {
        let volume = place.open_single().await;
        let at = usize::from(round) * 40 * 4096;
        volume.write(at as u64 + 1000, blocks(2, round + 1), false).await.unwrap();
        volume.write_zeroes(at as u64 + 20 * BLOCK, 5000, true, true).await.unwrap();
        expected[at + 1000..at + 1000 + 8192].fill(round + 1);
        expected[at + 20 * 4096..at + 20 * 4096 + 5000].fill(0);
        assert!(image(&volume).await == expected, "round {round}");
        assert!(place.replay(SIZE) == expected, "round {round}");
        volume.close().await.unwrap();
    }
    // And something that is not lsvd appends an object of its own.
    let last = place.objects().last().unwrap().0.clone();
    let next = u64::from_str_radix(&last, 16).unwrap() + 1;
    place.put(&format!("{next:02x}"), &object(&[(12 * BLOCK, 8192)]));
    expected[12 * 4096..14 * 4096].fill(7);
    assert!(image(&place.open_single().await).await == expected);
    assert!(place.replay(SIZE) == expected);
}

/// A volume of ours in format 1 from the start: random writes of any alignment, by three openings, replayed by the
/// stranger to the byte.
#[tokio::test]
async fn a_volume_created_in_format_1_is_replayed_by_the_stranger() {
    let place = Place::new();
    let options = CreateOptions {
        log_format: ObjectFormat::V1,
        unsafe_single_writer: true,
        ..CreateOptions::new(SIZE)
    };
    create(&place.bucket, &options).await.unwrap();
    let mut expected = vec![0; usize::try_from(SIZE).unwrap()];
    let mut random = 0x1234_5678_9abc_def0_u64;
    let mut next = |below: u64| {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (random >> 33) % below
    };
    for opening in 0..3 {
        let volume = place
            .open_with(|options| {
                options.unsafe_single_writer = true;
                options.batch_bytes_max = 64 * BLOCK;
            })
            .await;
        assert!(image(&volume).await == expected, "opening {opening}");
        for write in 0..150u64 {
            let length = 1 + next(5 * BLOCK);
            let at = next(SIZE - length);
            let fill = u8::try_from(1 + next(255)).unwrap();
            let range = usize::try_from(at).unwrap()..usize::try_from(at + length).unwrap();
            if write % 10 == 9 {
                volume.write_zeroes(at, length, write % 20 == 9, false).await.unwrap();
                expected[range].fill(0);
            } else {
                let data = vec![fill; range.len()];
                volume.write(at, data.into(), false).await.unwrap();
                expected[range].fill(fill);
            }
            if write % 37 == 0 {
                volume.flush().await.unwrap();
            }
        }
        volume.flush().await.unwrap();
        assert!(image(&volume).await == expected, "opening {opening}");
        assert!(place.replay(SIZE) == expected, "opening {opening}");
    }
    let names: Vec<u64> =
        place.objects().iter().map(|(name, _)| u64::from_str_radix(name, 16).unwrap()).collect();
    assert_eq!(names, (1..=names.len() as u64).collect::<Vec<_>>(), "no number is skipped");
}

/// As in the seed's thread: delete the objects that come after the one you noted, start again, and the disk is as it was
/// then. lsvd asks for a word that it was meant so.
#[tokio::test]
async fn deleting_the_newest_objects_by_hand_winds_the_volume_back() {
    for format in [ObjectFormat::V1, ObjectFormat::V2] {
        let place = Place::new();
        place.encode("--seed 10 --objects 5 --blocks 256 --digits 8");
        let mut options = going_on_in_format_1(SIZE);
        options.create.log_format = format;
        adopt(&place.bucket, &options).await.unwrap();
        let volume = place.open_single().await;
        volume.write(0, blocks(100, 1), true).await.unwrap();
        let noted = place.objects().last().unwrap().0.clone();
        let then = image(&volume).await;
        volume.close().await.unwrap();
        let volume = place.open_single().await;
        volume.write(50 * BLOCK, blocks(100, 2), true).await.unwrap();
        volume.write(7 * BLOCK, blocks(1, 3), true).await.unwrap();
        volume.close().await.unwrap();
        for (name, _) in place.objects().iter().filter(|(name, _)| *name > noted) {
            std::fs::remove_file(place.path(name)).unwrap();
        }
        let single = OpenOptions { unsafe_single_writer: true, probe: false, ..OpenOptions::default() };
        let error = Volume::open(place.bucket.clone(), single.clone()).await.unwrap_err().to_string();
        assert!(error.contains("--accept-shorter-log"), "{error}");
        let volume = Volume::open(place.bucket.clone(), OpenOptions { accept_shorter_log: true, ..single })
            .await
            .unwrap();
        assert!(image(&volume).await == then, "{format:?}");
        volume.write(0, blocks(1, 4), true).await.unwrap();
        volume.close().await.unwrap();
        let volume = place.open_single().await;
        assert!(image(&volume).await[4096..] == then[4096..], "{format:?}");
        if format == ObjectFormat::V1 {
            assert!(place.replay(SIZE) == image(&volume).await);
        }
    }
}

/// Rule 5: an object that is not of format 1 is named, with what is wrong, and nothing is written.
#[tokio::test]
async fn an_object_that_is_not_of_format_1_is_named() {
    let sound = object(&[(0, 8192)]);
    let unaligned = {
        let mut bytes = sound.clone();
        bytes[6..8].copy_from_slice(&512u16.to_be_bytes());
        bytes
    };
    let too_long = [&sound[..], b"x"].concat();
    let (volume, writer) = (VolumeId([1; 16]), WriterId([2; 16]));
    let identity = ObjectIdentity { volume, epoch: Epoch(1), writer, number: SequenceNumber(2) };
    let format_2 = crate::common::object(identity, Extent::new(0, 1), 1);
    for (bytes, words) in [
        (&b"hello"[..], "5 bytes where at least 12288 are needed"),
        (&sound[..sound.len() - 1], "20479 bytes where its header says 20480"),
        (&too_long, "20481 bytes where its header says 20480"),
        (&unaligned, "address 512 is not a multiple of 4096"),
        (&format_2, "it is of format 2"),
        (&[0xff; 20_000], "not a multiple of 4096"),
    ] {
        let place = Place::new();
        place.put("1", &sound);
        place.put("2", bytes);
        place.put("3", &sound);
        place.put("5", b"what lies beyond a gap may be anything");
        match place.adopt(SIZE).await.unwrap_err() {
            Error::Corrupt { object, reason, .. } => {
                assert_eq!(object, "2");
                assert!(reason.contains(words), "{reason}");
            }
            other => panic!("{other}"),
        }
        assert_eq!(place.objects().len(), 4);
        assert!(!place.path("superblock").exists() && !place.path("archive").exists());
    }
}

#[tokio::test]
async fn a_size_below_what_was_written_is_refused_with_the_least_that_fits() {
    let place = Place::new();
    place.put("1", &object(&[(0, 4096), (40 * BLOCK, 8192), (8192, 4096)]));
    let error = place.adopt(41 * BLOCK).await.unwrap_err();
    assert!(matches!(error, Error::Invalid(_)), "{error}");
    assert!(error.to_string().contains(&format!("the least size that fits is {}", 42 * BLOCK)), "{error}");
    assert_eq!(place.adopt(42 * BLOCK).await.unwrap().written_end_bytes, 42 * BLOCK);
}

#[tokio::test]
async fn duplicate_numbers_are_refused() {
    let place = Place::new();
    for name in ["01", "02", "1"] {
        place.put(name, &object(&[(0, 4096)]));
    }
    let error = place.adopt(SIZE).await.unwrap_err().to_string();
    assert!(error.contains("'01' and '1' both are number 1"), "{error}");
}

/// A writer that is still at work would go on with numbers that are no longer its own.
#[tokio::test]
async fn a_log_that_was_written_lately_is_refused() {
    let place = Place::new();
    place.put("1", &object(&[(0, 4096)]));
    let lately = AdoptOptions::new(SIZE);
    let error = adopt(&place.bucket, &lately).await.unwrap_err();
    assert!(matches!(error, Error::LogGrowing { .. }), "{error}");
    assert!(error.to_string().contains("'1' was stored"), "{error}");
    let an_hour_ago = std::time::SystemTime::now() - Duration::from_secs(3600);
    std::fs::File::options().write(true).open(place.path("1")).unwrap().set_modified(an_hour_ago).unwrap();
    adopt(&place.bucket, &lately).await.unwrap();
}

/// Adopts while `meanwhile` happens: after the log was listed, before anything is written.
async fn adopt_while(place: &Place, meanwhile: impl Fn() + Send + Sync + 'static) -> Result<Adopted, Error> {
    let mut options = options(SIZE);
    let random = options.create.environment.random.clone();
    options.create.environment.random = Arc::new(move || {
        meanwhile();
        random()
    });
    adopt(&place.bucket, &options).await
}

/// Rule 3: an object that came while the log was looked at is no part of what was looked at: nothing is adopted or moved.
#[tokio::test]
async fn what_comes_while_the_log_is_looked_at_is_noticed() {
    let place = Place::new();
    for name in ["1", "2", "5"] {
        place.put(name, &object(&[(0, 4096)]));
    }
    let third = place.path("3");
    let error = adopt_while(&place, move || std::fs::write(&third, object(&[(0, 4096)])).unwrap()).await;
    let error = error.unwrap_err();
    assert!(matches!(error, Error::LogGrowing { .. }) && error.to_string().contains("'3'"), "{error}");
    assert!(place.path("5").exists());
    assert_eq!(place.adopt(SIZE).await.unwrap().objects_archived, 1);
}

/// Rule 3: of two that adopt one log, the later one moved what lay beyond the gap though it was the other's by then.
#[tokio::test]
async fn an_adoption_that_was_overtaken_moves_nothing() {
    let (place, other) = (Place::new(), Place::new());
    for place in [&place, &other] {
        for name in ["1", "2", "5"] {
            place.put(name, &object(&[(0, 4096)]));
        }
    }
    other.adopt(SIZE).await.unwrap();
    let superblocks =
        || std::fs::read_dir(other.path("superblock")).unwrap().map(|entry| entry.unwrap().path());
    let theirs: Vec<_> = superblocks()
        .map(|path| (path.file_name().unwrap().to_owned(), std::fs::read(path).unwrap()))
        .collect();
    assert_eq!(theirs.len(), 1);
    let folder = place.path("superblock");
    let overtaken = adopt_while(&place, move || {
        std::fs::create_dir_all(&folder).unwrap();
        for (name, bytes) in &theirs {
            std::fs::write(folder.join(name), bytes).unwrap();
        }
    });
    assert!(matches!(overtaken.await, Err(Error::Exists { .. })));
    assert!(place.path("5").exists(), "an object of the other's volume was moved");
}

#[tokio::test]
async fn what_is_a_volume_already_is_not_adopted() {
    let place = Place::new();
    place.put("1", &object(&[(0, 4096)]));
    place.adopt(SIZE).await.unwrap();
    assert!(matches!(place.adopt(SIZE).await, Err(Error::Exists { .. })));
    let empty = Place::new();
    assert!(empty.adopt(SIZE).await.unwrap_err().to_string().contains("check the URL"));
}

/// A new volume of format 1 is not made over an old log.
#[tokio::test]
async fn a_volume_of_format_1_is_not_created_over_a_log() {
    let place = Place::new();
    place.put("07", &object(&[(0, 4096)]));
    let options = CreateOptions {
        log_format: ObjectFormat::V1,
        unsafe_single_writer: true,
        ..CreateOptions::new(SIZE)
    };
    let error = create(&place.bucket, &options).await.unwrap_err().to_string();
    assert!(error.contains("'07'") && error.contains("adopt"), "{error}");
}

/// Format 1 has no identity: its user has to vouch that there is one writer, when it is made and each time that it is
/// opened.
#[tokio::test]
async fn format_1_needs_a_word_for_a_single_writer() {
    let place = Place::new();
    place.put("1", &object(&[(0, 4096)]));
    let mut unvouched = going_on_in_format_1(SIZE);
    unvouched.create.unsafe_single_writer = false;
    let error = adopt(&place.bucket, &unvouched).await.unwrap_err().to_string();
    assert!(error.contains("--unsafe-single-writer"), "{error}");
    let error = create(&Place::new().bucket, &unvouched.create).await.unwrap_err().to_string();
    assert!(error.contains("--unsafe-single-writer"), "{error}");
    adopt(&place.bucket, &going_on_in_format_1(SIZE)).await.unwrap();
    let opened = Volume::open(place.bucket.clone(), OpenOptions::default()).await;
    assert!(matches!(opened, Err(Error::UnsafeStore { .. })), "{opened:?}");
}
