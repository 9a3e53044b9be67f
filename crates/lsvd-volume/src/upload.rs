//! Uploads: a sealed batch becomes a log object, and its outcome is certain before anybody hears of it (rule 2).
//!
//! Knows one object at a time; order is the engine's. Invariant: a payload is not copied: it is sent from the buffers in
//! which it came, so that an upload that hangs holds no more memory than the write buffer's ceiling counts (rule 10).

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use lsvd_backend::PutPayload;
use lsvd_engine::{Event, ObjectRecord, SealedBatch};
use lsvd_format::log_object::{Entry, FRAME_HEAD_BYTES, Header, encode_frame_heads};
use lsvd_format::{AnyHeader, BLOCK_LEN, BlockOrdinal, ObjectFormat, v1};

use crate::Error;
use crate::core::Core;
use crate::store::Put;

/// Wait between tries when the store has failed for longer than its own retries last.
const RETRY_FIRST: Duration = Duration::from_millis(500);
const RETRY_MAX: Duration = Duration::from_secs(5);

/// Puts the batch's object, however long it takes, and tells the engine.
pub(crate) async fn upload(core: Arc<Core>, batch: Arc<SealedBatch>) {
    let header = header(&batch);
    let object = encode(&header, &batch);
    let object_bytes = object.content_length() as u64;
    let number = batch.header.identity.number;
    let mut wait = RETRY_FIRST;
    loop {
        match core.store().put_log_object(number, &header, object.clone()).await {
            Ok(Put::Mine) => break,
            Ok(Put::Theirs(theirs)) => {
                return core.end(Error::Fenced { volume: core.store().label(), epoch: theirs.epoch() });
            }
            // The number holds something that is nobody's log object. Nothing above it can be acknowledged.
            Err(error @ (Error::Corrupt { .. } | Error::Newer { .. })) => return core.end(error),
            Err(error) => {
                core.upload_fails(number, error.clone());
                let object = core.store().log_name(number);
                tracing::error!(%object, "an upload fails and is tried again in {} ms: {error}", wait.as_millis());
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(RETRY_MAX);
            }
        }
    }
    core.upload_succeeded(number);
    drop(object);
    let record = ObjectRecord {
        identity: batch.header.identity,
        format: batch.format,
        header_bytes: match &header {
            AnyHeader::V1(_) => v1::HEADER_BYTES,
            AnyHeader::V2(header) => header.header_bytes(),
        },
        payload_blocks: batch.header.payload_blocks(),
    };
    // Before the engine's map points at the object, so that the next read finds it.
    // What was collected is rather what nobody uses.
    if !batch.header.entries.iter().any(|entry| matches!(entry, Entry::Relocation { .. })) {
        core.fetcher().keep_written(&record, &batch.payload);
    }
    core.wrote(object_bytes);
    core.event(Event::Uploaded { number });
}

/// The header in the format that the object is to have.
fn header(batch: &SealedBatch) -> AnyHeader {
    match batch.format {
        ObjectFormat::V1 => {
            let entries = batch.header.entries.iter().map(|entry| match entry {
                Entry::Data { extent } => v1::Entry {
                    address_bytes: extent.start.offset_bytes(),
                    size_bytes: u32::try_from(extent.count.bytes()).expect("a batch has less than 4 GiB"),
                },
                other => unreachable!("an object of format 1 is to hold {other:?}"),
            });
            AnyHeader::V1(v1::Header { entries: entries.collect(), mark: None })
        }
        ObjectFormat::V2 => AnyHeader::V2(batch.header.clone()),
    }
}

/// The object's bytes: the header, then the payload where it lies, in format 2 each block behind its frame's head.
fn encode(header: &AnyHeader, batch: &SealedBatch) -> PutPayload {
    let object: PutPayload = match header {
        AnyHeader::V1(header) => {
            let mut header_bytes = Vec::new();
            header.encode(&mut header_bytes);
            std::iter::once(Bytes::from(header_bytes)).chain(batch.payload.iter().cloned()).collect()
        }
        AnyHeader::V2(header) => frames(header, batch),
    };
    assert_eq!(
        object.content_length() as u64,
        header.object_bytes(),
        "the header counts its payload's blocks"
    );
    object
}

fn frames(header: &Header, batch: &SealedBatch) -> PutPayload {
    let head_len = usize::try_from(FRAME_HEAD_BYTES).expect("a few bytes");
    let blocks = usize::try_from(header.payload_blocks()).expect("a batch is in memory");
    let mut header_bytes = Vec::new();
    header.encode(&mut header_bytes);
    let mut heads = Vec::with_capacity(blocks * head_len);
    let mut ordinal = BlockOrdinal(0);
    for piece in &batch.payload {
        encode_frame_heads(&header.identity, ordinal, piece, &mut heads);
        ordinal.0 += u32::try_from(piece.len() / BLOCK_LEN).expect("a payload has fewer than 2^32 blocks");
    }
    let mut heads = Bytes::from(heads);
    let mut pieces = Vec::with_capacity(1 + 2 * blocks);
    pieces.push(Bytes::from(header_bytes));
    for piece in &batch.payload {
        let mut piece = piece.clone();
        while !piece.is_empty() {
            pieces.push(heads.split_to(head_len));
            pieces.push(piece.split_to(BLOCK_LEN));
        }
    }
    pieces.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use lsvd_format::log_object::encode_frames;
    use lsvd_format::{Epoch, Extent, ObjectIdentity, SequenceNumber, VolumeId, WriterId};

    use super::*;

    /// Rule 10: an upload holds the buffers that the write buffer's ceiling counts, and no copy of them. A copy of each
    /// of sixteen hanging uploads once was as much memory again as `--buffer` allows.
    #[test]
    fn a_payload_is_sent_from_the_buffers_that_it_came_in() {
        let identity = ObjectIdentity {
            volume: VolumeId([1; 16]),
            epoch: Epoch(2),
            number: SequenceNumber(3),
            writer: WriterId([4; 16]),
        };
        let payload: Vec<Bytes> =
            [1, 3, 2].map(|blocks: u8| Bytes::from(vec![blocks; usize::from(blocks) * BLOCK_LEN])).into();
        let entries = vec![Entry::Data { extent: Extent::new(0, 6) }];
        let header = Header { identity, sealed_unix_ms: 5, journal: None, entries };
        let mut expected = Vec::new();
        header.encode(&mut expected);
        encode_frames(&identity, BlockOrdinal(0), &payload.concat(), &mut expected);

        let format = ObjectFormat::V2;
        let batch =
            SealedBatch { header, format, payload: payload.clone(), held_bytes: 6 << 12, for_flush: false };
        let object = encode(&super::header(&batch), &batch);
        let blocks: Vec<*const u8> =
            object.iter().filter(|piece| piece.len() == BLOCK_LEN).map(|piece| piece.as_ptr()).collect();
        let places: Vec<*const u8> =
            payload.iter().flat_map(|piece| piece.chunks(BLOCK_LEN)).map(<[u8]>::as_ptr).collect();
        assert_eq!(blocks, places);
        assert_eq!(Bytes::from(object), expected);
    }
}
