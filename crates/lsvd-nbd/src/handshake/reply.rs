//! Words → bytes: the greeting and the answers to options. All numbers are big-endian.

use bytes::{BufMut, BytesMut};

use super::option::info;

const GREETING_MAGIC: u64 = 0x4E42_444D_4147_4943; // "NBDMAGIC"
const SERVER_FIXED_NEWSTYLE: u16 = 1 << 0;
const SERVER_NO_ZEROES: u16 = 1 << 1;

const REPLY_MAGIC: u64 = 0x0003_E889_0455_65A9;
const ACK: u32 = 1;
const SERVER: u32 = 2;
const INFO: u32 = 3;
const META_CONTEXT: u32 = 4;

/// Any alignment is accepted.
const BLOCK_SIZE_MIN: u32 = 1;

/// Kinds of refusals.
pub(super) mod error {
    pub(in super::super) const UNSUP: u32 = 0x8000_0001;
    pub(in super::super) const INVALID: u32 = 0x8000_0003;
    pub(in super::super) const UNKNOWN: u32 = 0x8000_0006;
    pub(in super::super) const SHUTDOWN: u32 = 0x8000_0007;
    pub(in super::super) const TOO_BIG: u32 = 0x8000_0009;
}

/// An option that is answered with an error; negotiation goes on.
#[derive(Debug)]
pub(super) struct Refusal {
    /// One of [`error`].
    pub(super) kind: u32,
    /// For the client's person.
    pub(super) message: String,
}

impl Refusal {
    pub(super) fn new(kind: u32, message: &str) -> Self {
        Self { kind, message: message.to_owned() }
    }
}

pub(super) fn greeting(output: &mut BytesMut) {
    output.put_u64(GREETING_MAGIC);
    output.put_u64(super::OPTION_MAGIC);
    output.put_u16(SERVER_FIXED_NEWSTYLE | SERVER_NO_ZEROES);
}

/// EXPORT_NAME's answer, the only one without a head.
pub(super) fn chosen_by_name(output: &mut BytesMut, size_bytes: u64, flags: u16, zeroes: bool) {
    output.put_u64(size_bytes);
    output.put_u16(flags);
    if zeroes {
        output.put_bytes(0, 124);
    }
}

pub(super) fn acknowledge(output: &mut BytesMut, option: u32) {
    head(output, option, ACK, 0);
}

pub(super) fn refuse(output: &mut BytesMut, option: u32, refusal: &Refusal) {
    head(output, option, refusal.kind, refusal.message.len());
    output.put_slice(refusal.message.as_bytes());
}

pub(super) fn server(output: &mut BytesMut, name: &str, description: &str) {
    head(output, super::option::id::LIST, SERVER, 4 + name.len() + description.len());
    output.put_u32(length_u32(name.len()));
    output.put_slice(name.as_bytes());
    output.put_slice(description.as_bytes());
}

pub(super) fn info_export(output: &mut BytesMut, option: u32, size_bytes: u64, flags: u16) {
    head(output, option, INFO, 12);
    output.put_u16(info::EXPORT);
    output.put_u64(size_bytes);
    output.put_u16(flags);
}

/// NAME and DESCRIPTION.
pub(super) fn info_text(output: &mut BytesMut, option: u32, info: u16, text: &str) {
    head(output, option, INFO, 2 + text.len());
    output.put_u16(info);
    output.put_slice(text.as_bytes());
}

pub(super) fn info_block_size(output: &mut BytesMut, option: u32, preferred: u32, payload_bytes_max: u32) {
    head(output, option, INFO, 14);
    output.put_u16(info::BLOCK_SIZE);
    output.put_u32(BLOCK_SIZE_MIN);
    output.put_u32(preferred);
    output.put_u32(payload_bytes_max);
}

pub(super) fn meta_context(output: &mut BytesMut, option: u32, context_id: u32, name: &[u8]) {
    head(output, option, META_CONTEXT, 4 + name.len());
    output.put_u32(context_id);
    output.put_slice(name);
}

fn head(output: &mut BytesMut, option: u32, kind: u32, length: usize) {
    output.put_u64(REPLY_MAGIC);
    output.put_u32(option);
    output.put_u32(kind);
    output.put_u32(length_u32(length));
}

fn length_u32(length: usize) -> u32 {
    u32::try_from(length).expect("names, descriptions and messages are a few KiB")
}
