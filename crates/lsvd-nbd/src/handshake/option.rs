//! Options: their numbers, and their data ⇄ words. Arbitrary bytes are either understood or [`Malformed`].

use bytes::Buf;

use super::STRING_BYTES_MAX;

/// Numbers of options.
pub(super) mod id {
    pub(in super::super) const EXPORT_NAME: u32 = 1;
    pub(in super::super) const ABORT: u32 = 2;
    pub(in super::super) const LIST: u32 = 3;
    pub(in super::super) const STARTTLS: u32 = 5;
    pub(in super::super) const INFO: u32 = 6;
    pub(in super::super) const GO: u32 = 7;
    pub(in super::super) const STRUCTURED_REPLY: u32 = 8;
    pub(in super::super) const LIST_META_CONTEXT: u32 = 9;
    pub(in super::super) const SET_META_CONTEXT: u32 = 10;
    pub(in super::super) const EXTENDED_HEADERS: u32 = 11;
}

/// Numbers of information about an export.
pub(super) mod info {
    pub(in super::super) const EXPORT: u16 = 0;
    pub(in super::super) const NAME: u16 = 1;
    pub(in super::super) const DESCRIPTION: u16 = 2;
    pub(in super::super) const BLOCK_SIZE: u16 = 3;
}

/// The data of an option is not what the protocol says; why, for the client's person.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed(pub(super) &'static str);

const SHORT: Malformed = Malformed("the option ends too early");
const LONG: Malformed = Malformed("the option has bytes too many");

/// Data of INFO and GO.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InfoRequest<'a> {
    pub(super) export_name: &'a [u8],
    /// What is asked for, two bytes each.
    wanted: &'a [u8],
}

impl<'a> InfoRequest<'a> {
    pub(super) fn decode(mut data: &'a [u8]) -> Result<Self, Malformed> {
        let export_name = decode_string(&mut data)?;
        let count = usize::from(data.try_get_u16().map_err(|_| SHORT)?);
        let wanted = take(&mut data, count * 2)?;
        if !data.is_empty() {
            return Err(LONG);
        }
        Ok(Self { export_name, wanted })
    }

    pub(super) fn asks_for(&self, info: u16) -> bool {
        self.wanted.chunks_exact(2).any(|pair| pair == info.to_be_bytes())
    }
}

/// Data of LIST_META_CONTEXT and SET_META_CONTEXT.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct MetaContextRequest<'a> {
    pub(super) export_name: &'a [u8],
    pub(super) queries: Vec<&'a [u8]>,
}

impl<'a> MetaContextRequest<'a> {
    pub(super) fn decode(mut data: &'a [u8]) -> Result<Self, Malformed> {
        let export_name = decode_string(&mut data)?;
        let count = data.try_get_u32().map_err(|_| SHORT)?;
        // Not reserved by the count, which is the client's word; the data's end ends the loop.
        let mut queries = Vec::new();
        for _ in 0..count {
            queries.push(decode_string(&mut data)?);
        }
        if !data.is_empty() {
            return Err(LONG);
        }
        Ok(Self { export_name, queries })
    }
}

fn decode_string<'a>(data: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let length = data.try_get_u32().map_err(|_| SHORT)? as usize;
    if length > STRING_BYTES_MAX {
        return Err(Malformed("a string is longer than 4096 bytes"));
    }
    take(data, length)
}

fn take<'a>(data: &mut &'a [u8], length: usize) -> Result<&'a [u8], Malformed> {
    let (taken, rest) = data.split_at_checked(length).ok_or(SHORT)?;
    *data = rest;
    Ok(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn info_requests() {
        let data = b"\0\0\0\x03abc\0\x02\0\x01\0\x03";
        let request = InfoRequest::decode(data).unwrap();
        assert_eq!(request.export_name, b"abc");
        assert!(request.asks_for(info::NAME) && request.asks_for(info::BLOCK_SIZE));
        assert!(!request.asks_for(info::DESCRIPTION) && !request.asks_for(0x0100));
        for length in 0..data.len() {
            assert_eq!(InfoRequest::decode(&data[..length]), Err(SHORT), "{length}");
        }
        assert_eq!(InfoRequest::decode(b"\0\0\0\x03abc\0\x00\0"), Err(LONG));
        assert_eq!(InfoRequest::decode(b"\0\0\0\0\0\0").unwrap().export_name, b"");
        assert!(InfoRequest::decode(b"\xff\xff\xff\xffabc\0\0").is_err());
    }

    #[test]
    fn meta_context_requests() {
        let data = b"\0\0\0\x01x\0\0\0\x02\0\0\0\x05base:\0\0\0\0";
        let request = MetaContextRequest::decode(data).unwrap();
        assert_eq!(request, MetaContextRequest { export_name: b"x", queries: vec![b"base:", b""] });
        for length in 0..data.len() {
            assert_eq!(MetaContextRequest::decode(&data[..length]), Err(SHORT), "{length}");
        }
        assert_eq!(MetaContextRequest::decode(b"\0\0\0\0\0\0\0\0x"), Err(LONG));
        assert_eq!(MetaContextRequest::decode(b"\0\0\0\0\xff\xff\xff\xff"), Err(SHORT));
    }

    proptest! {
        /// Rule 10: what is decoded points into the data; nothing panics.
        #[test]
        fn arbitrary_data_is_understood_or_malformed(data in prop::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(request) = MetaContextRequest::decode(&data) {
                prop_assert!(request.queries.len() <= data.len() / 4);
            }
            if let Ok(request) = InfoRequest::decode(&data) {
                prop_assert_eq!(request.export_name.len() + request.wanted.len() + 6, data.len());
            }
        }
    }
}
