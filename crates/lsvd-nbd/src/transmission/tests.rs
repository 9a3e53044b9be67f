//! Requests and replies, byte by byte, and the gate's verdicts.

use bytes::{Buf, Bytes};
use proptest::prelude::*;

use super::request::{command, flag};
use super::*;
use crate::context::ContextExtent;
use crate::export::{ExportError, ExportErrorKind, ExtentStatus, ReadPiece, ZeroFlags};

const KIB: u64 = 1 << 10;
const PAYLOAD_MAX: u32 = 32 << 20;

fn session() -> Session {
    Session {
        size_bytes: 1 << 40,
        read_only: false,
        can_multi_conn: true,
        can_trim: true,
        fast_zero: true,
        structured: true,
        base_allocation: true,
        contexts: 0,
        payload_bytes_max: PAYLOAD_MAX,
    }
}

fn head(command: u16, flags: u16, offset_bytes: u64, length_bytes: u32) -> RequestHead {
    RequestHead { flags, command, cookie: 7, offset_bytes, length_bytes }
}

fn errno(head: RequestHead, session: &Session) -> Option<Errno> {
    admit(&head, session).err().map(|denial| denial.errno)
}

#[test]
fn a_request_head() {
    let bytes = b"\x25\x60\x95\x13\x00\x01\x00\x06cookie!!\x00\x00\x00\x00\x00\x01\x00\x00\xff\xff\xff\xff";
    let decoded = RequestHead::decode(bytes).unwrap();
    assert_eq!(
        decoded,
        RequestHead {
            flags: flag::FUA,
            command: command::WRITE_ZEROES,
            cookie: u64::from_be_bytes(*b"cookie!!"),
            offset_bytes: 65536,
            length_bytes: u32::MAX,
        }
    );
    assert_eq!(decoded.payload_bytes(), 0);
    let mut wrong = *bytes;
    wrong[3] ^= 1;
    assert!(RequestHead::decode(&wrong).is_err());
}

/// Where the next request begins does not depend on what is thought of this one.
#[test]
fn only_a_write_brings_a_payload() {
    for command in 0..20 {
        let payload = head(command, u16::MAX, u64::MAX, 4096).payload_bytes();
        assert_eq!(payload, if command == command::WRITE { 4096 } else { 0 });
    }
}

#[test]
fn what_is_well_formed_passes() {
    let session = session();
    for (head, expected) in [
        (head(0, 0, 512, 1), Command::Read { offset_bytes: 512, length_bytes: 1, unfragmented: false }),
        (
            head(0, 4, 0, PAYLOAD_MAX),
            Command::Read { offset_bytes: 0, length_bytes: PAYLOAD_MAX, unfragmented: true },
        ),
        (head(1, 1, 3, 5), Command::Write { offset_bytes: 3, length_bytes: 5, fua: true }),
        (head(2, 0, 0, 0), Command::Disconnect),
        (head(3, 1, 0, 0), Command::Flush),
        (head(4, 0, 0, u32::MAX), Command::Trim { offset_bytes: 0, length_bytes: u32::MAX, fua: false }),
        (head(5, 1, 0, u32::MAX), Command::Cache { offset_bytes: 0, length_bytes: u32::MAX }),
        (
            head(6, 0b1_0011, (1 << 40) - 1, 1),
            Command::WriteZeroes {
                offset_bytes: (1 << 40) - 1,
                length_bytes: 1,
                flags: ZeroFlags { fua: true, no_hole: true, fast: true },
            },
        ),
        (
            head(7, 8, 0, u32::MAX),
            Command::BlockStatus { offset_bytes: 0, length_bytes: u32::MAX, one_extent: true },
        ),
        (
            head(0, 0, 1 << 40, 0),
            Command::Read { offset_bytes: 1 << 40, length_bytes: 0, unfragmented: false },
        ),
    ] {
        assert_eq!(admit(&head, &session), Ok(expected), "{head:?}");
    }
}

/// The protocol: EINVAL for reads and trims, ENOSPC for what would write.
#[test]
fn ranges_beyond_the_end() {
    let session = session();
    for (command, expected) in [
        (command::READ, Errno::Invalid),
        (command::WRITE, Errno::NoSpace),
        (command::TRIM, Errno::Invalid),
        (command::CACHE, Errno::Invalid),
        (command::WRITE_ZEROES, Errno::NoSpace),
        (command::BLOCK_STATUS, Errno::Invalid),
    ] {
        for (offset_bytes, length_bytes) in
            [((1 << 40) - 1, 2), (1 << 40, 1), (u64::MAX, 1), (u64::MAX - 1, 4096)]
        {
            assert_eq!(
                errno(head(command, 0, offset_bytes, length_bytes), &session),
                Some(expected),
                "{command}"
            );
        }
        assert_eq!(errno(head(command, 0, (1 << 40) - 1, 1), &session), None, "{command}");
    }
}

#[test]
fn flags_where_they_do_not_belong() {
    let session = session();
    let allowed = |command| match command {
        command::READ => flag::FUA | flag::DF,
        command::WRITE_ZEROES => flag::FUA | flag::NO_HOLE | flag::FAST_ZERO,
        command::BLOCK_STATUS => flag::FUA | flag::REQ_ONE,
        _ => flag::FUA,
    };
    for command in [0, 1, 3, 4, 5, 6, 7] {
        let length = if command == command::FLUSH { 0 } else { 1 };
        for bit in 0..16 {
            let flags = 1 << bit;
            let expected = (flags & !allowed(command) != 0).then_some(Errno::Invalid);
            assert_eq!(errno(head(command, flags, 0, length), &session), expected, "{command} {flags:#x}");
        }
    }
    // What was not negotiated or offered is not there to be used.
    let simple = Session { structured: false, base_allocation: false, ..session.clone() };
    assert_eq!(errno(head(command::READ, flag::DF, 0, 1), &simple), Some(Errno::Invalid));
    let slow = Session { fast_zero: false, ..session };
    assert_eq!(errno(head(command::WRITE_ZEROES, flag::FAST_ZERO, 0, 1), &slow), Some(Errno::Invalid));
}

#[test]
fn a_read_only_export_refuses_what_writes() {
    let session = Session { read_only: true, ..session() };
    for command in [command::WRITE, command::TRIM, command::WRITE_ZEROES] {
        assert_eq!(errno(head(command, 0, 0, 1), &session), Some(Errno::Permission));
    }
    for command in [command::READ, command::CACHE, command::BLOCK_STATUS] {
        assert_eq!(errno(head(command, flag::FUA, 0, 1), &session), None);
    }
    assert_eq!(errno(head(command::FLUSH, 0, 0, 0), &session), None);
}

#[test]
fn odd_requests() {
    let session = session();
    for command in [8, 9, 255, u16::MAX] {
        assert_eq!(errno(head(command, 0, 0, 0), &session), Some(Errno::Invalid));
    }
    assert_eq!(errno(head(command::FLUSH, 0, 0, 1), &session), Some(Errno::Invalid));
    assert_eq!(errno(head(command::FLUSH, 0, 1, 0), &session), Some(Errno::Invalid));
    assert_eq!(errno(head(command::BLOCK_STATUS, 0, 0, 0), &session), Some(Errno::Invalid));
    let unselected = Session { base_allocation: false, ..session.clone() };
    assert_eq!(errno(head(command::BLOCK_STATUS, 0, 0, 1), &unselected), Some(Errno::Invalid));
    let no_trim = Session { can_trim: false, ..session.clone() };
    assert_eq!(errno(head(command::TRIM, 0, 0, 1), &no_trim), Some(Errno::Invalid));
    assert_eq!(no_trim.flags() & (1 << 5), 0);
    assert_eq!(errno(head(command::WRITE, 0, 0, PAYLOAD_MAX + 1), &session), Some(Errno::Invalid));
}

/// A structured read of any length is served in parts; what can not be split is refused.
#[test]
fn long_reads() {
    let (structured, simple) =
        (session(), Session { structured: false, base_allocation: false, ..session() });
    assert_eq!(errno(head(command::READ, 0, 0, u32::MAX), &structured), None);
    assert_eq!(errno(head(command::READ, flag::DF, 0, PAYLOAD_MAX + 1), &structured), Some(Errno::Overflow));
    assert_eq!(errno(head(command::READ, 0, 0, PAYLOAD_MAX + 1), &simple), Some(Errno::Invalid));
    assert_eq!(errno(head(command::READ, 0, 0, PAYLOAD_MAX), &simple), None);
}

proptest! {
    /// The gate's promises to all behind it.
    #[test]
    fn what_passes_is_in_range(
        command in 0..10_u16,
        flags in prop_oneof![Just(0_u16), Just(1), 0..32_u16, any::<u16>()],
        offset_bytes in prop_oneof![0..10_000_u64, any::<u64>()],
        length_bytes in prop_oneof![0..10_000_u32, any::<u32>()],
        size_bytes in prop_oneof![0..10_000_u64, any::<u64>()],
        read_only in any::<bool>(),
    ) {
        let session = Session { size_bytes, read_only, ..session() };
        let inside = offset_bytes.checked_add(length_bytes.into()).is_some_and(|end| end <= size_bytes);
        match admit(&head(command, flags, offset_bytes, length_bytes), &session) {
            Ok(Command::Write { .. } | Command::Trim { .. } | Command::WriteZeroes { .. }) => {
                prop_assert!(inside && !read_only);
            }
            Ok(Command::Read { .. } | Command::Cache { .. } | Command::BlockStatus { .. }) => prop_assert!(inside),
            Ok(Command::Flush | Command::Disconnect) | Err(_) => {}
        }
    }
}

/// What an answer is on the wire.
fn sent(session: &Session, answer: Answer) -> Vec<u8> {
    let mut outbox = Outbox::default();
    put_answer(&mut outbox, session, u64::from_be_bytes(*b"cookie!!"), answer);
    let mut bytes = vec![0; outbox.remaining()];
    outbox.copy_to_slice(&mut bytes);
    bytes
}

fn data(bytes: &'static [u8]) -> ReadPiece {
    ReadPiece::Data(Bytes::from_static(bytes))
}

fn read(pieces: Vec<ReadPiece>, unfragmented: bool) -> Answer {
    Answer::Read { offset_bytes: 0x1000, pieces, last: true, unfragmented }
}

#[test]
fn simple_replies() {
    let simple = Session { structured: false, base_allocation: false, ..session() };
    assert_eq!(sent(&simple, Answer::Done), b"\x67\x44\x66\x98\0\0\0\0cookie!!");
    // What brings no data stays simple where structured replies were negotiated: it is shorter.
    assert_eq!(sent(&session(), Answer::Done), b"\x67\x44\x66\x98\0\0\0\0cookie!!");
    let error = Answer::Error { errno: Errno::NoSpace, message: "full".into() };
    assert_eq!(sent(&simple, error), b"\x67\x44\x66\x98\0\0\0\x1ccookie!!");
    let pieces = vec![data(b"ab"), ReadPiece::Hole(3), data(b"c")];
    assert_eq!(sent(&simple, read(pieces, false)), b"\x67\x44\x66\x98\0\0\0\0cookie!!ab\0\0\0c");
}

#[test]
fn structured_reads() {
    let pieces =
        || vec![data(b"ab"), data(b""), data(b"c"), ReadPiece::Hole(3), ReadPiece::Hole(2), data(b"d")];
    assert_eq!(
        sent(&session(), read(pieces(), false)),
        [
            &b"\x66\x8e\x33\xef\x00\x00\x00\x01cookie!!\x00\x00\x00\x0b\0\0\0\0\0\0\x10\x00abc"[..],
            b"\x66\x8e\x33\xef\x00\x00\x00\x02cookie!!\x00\x00\x00\x0c\0\0\0\0\0\0\x10\x03\0\0\0\x05",
            b"\x66\x8e\x33\xef\x00\x01\x00\x01cookie!!\x00\x00\x00\x09\0\0\0\0\0\0\x10\x08d",
        ]
        .concat()
    );
    assert_eq!(
        sent(&session(), read(pieces(), true)),
        b"\x66\x8e\x33\xef\x00\x01\x00\x01cookie!!\x00\x00\x00\x11\0\0\0\0\0\0\x10\x00abc\0\0\0\0\0d"
    );
    // All holes are one chunk, unfragmented or not.
    let hole = b"\x66\x8e\x33\xef\x00\x01\x00\x02cookie!!\x00\x00\x00\x0c\0\0\0\0\0\0\x10\x00\0\0\x20\x00";
    for unfragmented in [false, true] {
        let holes = vec![ReadPiece::Hole(4 * KIB), ReadPiece::Hole(4 * KIB)];
        assert_eq!(sent(&session(), read(holes, unfragmented)), hole);
        assert_eq!(
            sent(&session(), read(vec![], unfragmented)),
            b"\x66\x8e\x33\xef\x00\x01\x00\x00cookie!!\x00\x00\x00\x00"
        );
    }
    // A part that is not the last one is not marked as done.
    let part = Answer::Read { offset_bytes: 0, pieces: vec![data(b"x")], last: false, unfragmented: false };
    assert_eq!(sent(&session(), part)[4..8], [0, 0, 0, 1]);
}

#[test]
fn structured_errors_say_why() {
    let error = Answer::Error { errno: Errno::Shutdown, message: "fenced".into() };
    assert_eq!(
        sent(&session(), error),
        b"\x66\x8e\x33\xef\x00\x01\x80\x01cookie!!\x00\x00\x00\x0c\0\0\0\x6c\x00\x06fenced"
    );
    let long = Answer::Error { errno: Errno::Io, message: "ä".repeat(3000) };
    assert_eq!(sent(&session(), long).len(), 20 + 6 + 1024);
}

fn extent(length_bytes: u64, hole: bool, zero: bool) -> ExtentStatus {
    ExtentStatus { length_bytes, hole, zero }
}

/// The descriptors of an answer to BLOCK_STATUS.
fn descriptors(extents: Vec<ExtentStatus>, length_bytes: u32, one_extent: bool) -> Vec<(u32, u32)> {
    let extents = extents.iter().map(allocation).collect();
    let told = vec![Told { context_id: 1, extents }];
    let bytes = sent(&session(), Answer::BlockStatus { told, length_bytes, one_extent });
    let mut bytes = &bytes[..];
    assert_eq!(&bytes[..16], b"\x66\x8e\x33\xef\x00\x01\x00\x05cookie!!");
    bytes.advance(16);
    assert_eq!(bytes.get_u32() as usize, bytes.len());
    assert_eq!(bytes.get_u32(), 1);
    let mut descriptors = Vec::new();
    while bytes.has_remaining() {
        descriptors.push((bytes.get_u32(), bytes.get_u32()));
    }
    descriptors
}

#[test]
fn block_status() {
    let extents = || {
        vec![
            extent(4096, false, false),
            extent(4096, true, true),
            extent(4096, true, true),
            extent(1, false, true),
        ]
    };
    assert_eq!(descriptors(extents(), 12289, false), [(4096, 0), (8192, 3), (1, 2)]);
    assert_eq!(descriptors(extents(), 12289, true), [(4096, 0)]);
    // Nothing beyond what was asked for.
    assert_eq!(descriptors(extents(), 10000, false), [(4096, 0), (5904, 3)]);
    assert_eq!(descriptors(vec![extent(u64::MAX, true, false)], u32::MAX, false), [(u32::MAX, 1)]);
    let many: Vec<_> = (0..100_000).map(|index| extent(512, index % 2 == 0, false)).collect();
    assert_eq!(descriptors(many, u32::MAX, false).len(), BLOCK_STATUS_EXTENTS_MAX);
}

/// One chunk for each context, each as long as it is, and the last one ends the reply.
#[test]
fn block_status_of_several_contexts() {
    let session = Session { contexts: 1, ..session() };
    let told = vec![
        Told { context_id: 1, extents: vec![allocation(&extent(8192, true, true))] },
        Told { context_id: 2, extents: vec![ContextExtent { length_bytes: 4096, flags: 0x10 }] },
    ];
    let answer = Answer::BlockStatus { told, length_bytes: 1 << 20, one_extent: false };
    assert_eq!(
        sent(&session, answer),
        [
            &b"\x66\x8e\x33\xef\x00\x00\x00\x05cookie!!\x00\x00\x00\x0c\0\0\0\x01\0\0\x20\0\0\0\0\x03"[..],
            b"\x66\x8e\x33\xef\x00\x01\x00\x05cookie!!\x00\x00\x00\x0c\0\0\0\x02\0\0\x10\0\0\0\0\x10",
        ]
        .concat()
    );
}

/// The protocol reserves EOVERFLOW for reads and ENOTSUP for fast zeroes.
#[test]
fn errors_of_exports() {
    for (kind, reading, fast_zero, expected) in [
        (ExportErrorKind::Permission, false, false, Errno::Permission),
        (ExportErrorKind::Io, true, false, Errno::Io),
        (ExportErrorKind::NoMemory, false, false, Errno::NoMemory),
        (ExportErrorKind::Invalid, false, false, Errno::Invalid),
        (ExportErrorKind::NoSpace, false, false, Errno::NoSpace),
        (ExportErrorKind::Overflow, true, false, Errno::Overflow),
        (ExportErrorKind::Overflow, false, false, Errno::Invalid),
        (ExportErrorKind::NotSupported, false, true, Errno::NotSupported),
        (ExportErrorKind::NotSupported, false, false, Errno::Invalid),
        (ExportErrorKind::Shutdown, false, false, Errno::Shutdown),
    ] {
        let answer = Answer::failed(ExportError::new(kind, "why"), reading, fast_zero);
        assert_eq!(answer, Answer::Error { errno: expected, message: "why".into() });
    }
}
