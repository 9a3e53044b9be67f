//! Whether a checkpoint belongs to the log that lies beside it: rule 8's stamp, compared with the object that is stored.
//!
//! The object's header says whose it is. Where that is damaged (which is no absence, rule 4) other bytes that only the
//! same object can have say so as well: a block of its payload, whose checksum is seeded with the identity, or the object
//! behind it, if the same opening wrote it. What neither shows is not guessed. Knows one object; what follows, recovery
//! knows.

use lsvd_backend::Bucket;
use lsvd_engine::{ObjectRecord, Prefix};
use lsvd_format::checkpoint::CheckpointStamp;
use lsvd_format::log_object::{decode_frames, frames_range};
use lsvd_format::{AnyHeader, BlockOrdinal, ObjectFormat, SequenceNumber, VolumeId};

use crate::Error;
use crate::store::{ListedLog, VERIFY_TRIES, VolumeStore};

/// What the log has at a checkpoint's number.
#[derive(Debug)]
pub(crate) enum Own {
    /// The object that the checkpoint was made of, or none where none has to be.
    Same,
    /// Another one, or none where one has to be: said in the log.
    Other,
    /// What can not be read as anybody's.
    Damaged(Error),
}

/// Compares a checkpoint's stamp with the log (rule 8). `own` is what was listed under its number: nothing if it is
/// deleted, which it may be if the checkpoint is the `oldest` one, as only what is above that stays for sure. `prefix` is
/// what the checkpoint holds.
///
/// # Errors
/// The store's.
pub(crate) async fn compare(
    store: &VolumeStore,
    (volume, stamp): (VolumeId, CheckpointStamp),
    prefix: &Prefix,
    own: Option<ListedLog>,
    oldest: bool,
) -> Result<Own, Error> {
    let name = store.log_name(stamp.as_of);
    let header = match own {
        Some(entry) => store.read_log_header(entry.number).await,
        None => Ok(None),
    };
    match header {
        // In format 1 nothing says whose it is.
        Ok(Some(AnyHeader::V1(_))) => Ok(Own::Same),
        Ok(Some(AnyHeader::V2(header))) => {
            if (header.identity.epoch, header.identity.writer) == (stamp.epoch, stamp.writer) {
                return Ok(Own::Same);
            }
            tracing::error!(volume = %store.label(), object = %name, "it is not the object that a checkpoint was made of");
            Ok(Own::Other)
        }
        Ok(None) if oldest => Ok(Own::Same),
        Ok(None) => {
            tracing::error!(volume = %store.label(), object = %name, "it is missing, though a checkpoint was made of it");
            Ok(Own::Other)
        }
        Err(damage @ (Error::Corrupt { .. } | Error::Newer { .. })) => {
            let record = prefix.objects().find(stamp.as_of).map(|index| prefix.objects().get(index));
            let shown = match record {
                Some(record) if has_a_block_of(store.bucket(), &name, record).await => Some("a block of it"),
                _ if is_followed(store, (volume, stamp), prefix.log().next).await => {
                    Some("the object behind it")
                }
                _ => None,
            };
            match shown {
                Some(shown) => {
                    tracing::error!(
                        "{damage}; {shown} shows that it is the one that a checkpoint was made of, which has all that it \
                         said; blocks of it that are damaged fail when they are read"
                    );
                    Ok(Own::Same)
                }
                None => Ok(Own::Damaged(damage)),
            }
        }
        Err(error) => Err(error),
    }
}

/// Whether the first or the last block that an object should have is there, and its own.
async fn has_a_block_of(bucket: &Bucket, name: &str, record: ObjectRecord) -> bool {
    let last = u32::try_from(record.payload_blocks.saturating_sub(1)).unwrap_or(u32::MAX);
    if record.payload_blocks == 0 || record.format == ObjectFormat::V1 {
        return false;
    }
    for ordinal in [0, last].map(BlockOrdinal) {
        for _ in 0..VERIFY_TRIES {
            let range = frames_range(record.header_bytes, ordinal, 1);
            // What can not be read shows nothing.
            let Ok(Some(frame)) = bucket.read_range(name, range).await else { break };
            if decode_frames(&record.identity, ordinal, &frame).is_ok() {
                return true;
            }
        }
    }
    false
}

/// Whether the opening that wrote a checkpoint's object wrote the next one, too: it had its own before that.
async fn is_followed(
    store: &VolumeStore,
    (volume, stamp): (VolumeId, CheckpointStamp),
    next: SequenceNumber,
) -> bool {
    match store.read_log_header(next).await {
        Ok(Some(AnyHeader::V2(header))) => {
            let of = header.identity;
            (of.volume, of.epoch, of.writer) == (volume, stamp.epoch, stamp.writer)
        }
        _ => false,
    }
}
