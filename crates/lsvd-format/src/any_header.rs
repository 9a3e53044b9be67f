//! A log object's header in whichever format the object is written.
//!
//! Knows only how to tell them apart: a log that was adopted mixes both. Whether a volume may hold format 1 at all
//! is its superblock's to say: 12 KiB of zeroes are a valid empty object of format 1.

use crate::{DecodeError, Epoch, log_object, v1};

/// The header of a log object of either format.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AnyHeader {
    /// Format 1: no identity, no checksum.
    V1(v1::Header),
    /// Format 2.
    V2(log_object::Header),
}

impl AnyHeader {
    /// Length of the whole object in bytes.
    pub fn object_bytes(&self) -> u64 {
        match self {
            Self::V1(header) => header.object_bytes(),
            Self::V2(header) => header.object_bytes(),
        }
    }

    /// The epoch that the object says it is of: of format 1 only a mark does.
    pub fn epoch(&self) -> Option<Epoch> {
        match self {
            Self::V1(header) => header.mark.map(|mark| mark.epoch),
            Self::V2(header) => Some(header.identity.epoch),
        }
    }

    /// When it was sealed, in milliseconds since 1970 by its writer's clock; format 1 does not say.
    pub fn sealed_unix_ms(&self) -> Option<u64> {
        match self {
            Self::V1(_) => None,
            Self::V2(header) => Some(header.sealed_unix_ms),
        }
    }
}

/// Reads a header of either format from the first bytes of an object.
///
/// # Errors
/// [`DecodeError::Short`] says how many bytes to read and try again with. What is of neither format is corrupt.
pub fn decode_any(bytes: &[u8]) -> Result<AnyHeader, DecodeError> {
    let magic_len = bytes.len().min(log_object::MAGIC.len());
    if bytes[..magic_len] == log_object::MAGIC[..magic_len] {
        return log_object::Header::decode(bytes).map(AnyHeader::V2);
    }
    match v1::Header::decode(bytes) {
        Ok(header) => Ok(AnyHeader::V1(header)),
        Err(DecodeError::Corrupt { offset_bytes, reason }) => {
            let reason = format!("neither format 2 (its magic is missing) nor format 1: {reason}");
            Err(DecodeError::Corrupt { offset_bytes, reason })
        }
        Err(other) => Err(other),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ObjectIdentity, SequenceNumber, VolumeId, WriterId};

    fn v2() -> log_object::Header {
        let identity = ObjectIdentity {
            volume: VolumeId([1; 16]),
            epoch: Epoch(1),
            writer: WriterId([2; 16]),
            number: SequenceNumber(1),
        };
        log_object::Header { identity, sealed_unix_ms: 0, journal: None, entries: Vec::new() }
    }

    #[test]
    fn each_object_says_what_it_is() {
        let mut bytes = Vec::new();
        v2().encode(&mut bytes);
        assert_eq!(decode_any(&bytes), Ok(AnyHeader::V2(v2())));
        let old = v1::Header { entries: vec![v1::Entry { address_bytes: 0, size_bytes: 4096 }], mark: None };
        let mut bytes = Vec::new();
        old.encode(&mut bytes);
        assert_eq!(decode_any(&bytes), Ok(AnyHeader::V1(old)));
    }

    #[test]
    fn what_is_of_neither_format_says_so() {
        let error = decode_any(b"<html>this is not a log object").unwrap_err();
        let DecodeError::Corrupt { offset_bytes: 0, reason } = error else { panic!("{error}") };
        assert!(reason.contains("magic is missing") && reason.contains("nor format 1"), "{reason}");
    }

    #[test]
    fn too_few_bytes_to_tell_are_short() {
        for bytes in [&b""[..], b"lsvd", b"lsvd-log-v2\n", b"\0", b"lsvx"] {
            assert!(matches!(decode_any(bytes), Err(DecodeError::Short { .. })), "{bytes:?}");
        }
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_do_not_panic(bytes: Vec<u8>) {
            let _ = decode_any(&bytes);
        }
    }
}
