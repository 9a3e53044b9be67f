//! Uploads: a sealed batch becomes a log object, and its outcome is certain before anybody hears of it (rule 2).
//!
//! Knows one object at a time; order is the engine's.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_engine::{Event, ObjectRecord, SealedBatch};
use lsvd_format::log_object::encode_frames;
use lsvd_format::{BLOCK_LEN, BlockOrdinal, names};

use crate::Error;
use crate::core::Core;
use crate::store::Put;

/// Wait between tries when the store has failed for longer than its own retries last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Puts the batch's object, however long it takes, and tells the engine.
pub(crate) async fn upload(core: Arc<Core>, batch: Arc<SealedBatch>) {
    let bytes = encode(&batch);
    let object_bytes = bytes.len() as u64;
    let number = batch.header.identity.number;
    let mut wait = RETRY_FIRST;
    loop {
        match core.store().put_log_object(&batch.header, bytes.clone()).await {
            Ok(Put::Mine) => break,
            Ok(Put::Theirs(theirs)) => {
                let epoch = Some(theirs.identity.epoch);
                return core.end(Error::Fenced { volume: core.store().label(), epoch });
            }
            // The number holds something that is nobody's log object. Nothing above it can be acknowledged.
            Err(error @ (Error::Corrupt { .. } | Error::Newer { .. })) => return core.end(error),
            Err(error) => {
                core.upload_fails(number, error.clone());
                let object = names::log_object(number);
                tracing::error!(%object, "an upload fails and is tried again in {} ms: {error}", wait.as_millis());
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
    core.upload_succeeded(number);
    drop(bytes);
    let record = ObjectRecord {
        identity: batch.header.identity,
        header_bytes: batch.header.header_bytes(),
        payload_blocks: batch.header.payload_blocks(),
    };
    // Before the engine's map points at the object, so that the next read finds it.
    core.fetcher().keep_written(&record, &batch.payload);
    core.wrote(object_bytes);
    core.event(Event::Uploaded { number });
}

/// The object's bytes: header and frames.
fn encode(batch: &SealedBatch) -> Bytes {
    let header = &batch.header;
    let object_len = usize::try_from(header.object_bytes()).expect("a batch is in memory");
    let mut bytes = Vec::with_capacity(object_len);
    header.encode(&mut bytes);
    let mut ordinal = BlockOrdinal(0);
    for piece in &batch.payload {
        encode_frames(&header.identity, ordinal, piece, &mut bytes);
        ordinal.0 += u32::try_from(piece.len() / BLOCK_LEN).expect("a payload has fewer than 2^32 blocks");
    }
    assert_eq!(bytes.len(), object_len, "the header counts its payload's blocks");
    Bytes::from(bytes)
}
