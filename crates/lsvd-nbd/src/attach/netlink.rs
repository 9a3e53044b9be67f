//! Messages to the kernel's NBD client and its answers, as bytes: generic netlink, and the family "nbd".
//!
//! Layouts are those of the kernel's uapi headers linux/netlink.h, linux/genetlink.h and linux/nbd-netlink.h; integers are
//! the machine's own. Knows no sockets. Invariant: any bytes are understood, passed over or an error, never a panic.

#![expect(clippy::host_endian_bytes, reason = "netlink has the machine's own byte order")]

use std::os::fd::{AsRawFd, BorrowedFd};

/// The family that knows the numbers of all others, and its number.
const CONTROL: u16 = 16;
const CONTROL_GET_FAMILY: u8 = 3;
const CONTROL_FAMILY_ID: u16 = 1;
const CONTROL_FAMILY_NAME: u16 = 2;

const CONNECT: u8 = 1;
const DISCONNECT: u8 = 2;
const RECONFIGURE: u8 = 3;
const STATUS: u8 = 5;

const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BLOCK_SIZE_BYTES: u16 = 3;
const TIMEOUT_SECONDS: u16 = 4;
const SERVER_FLAGS: u16 = 5;
const SOCKETS: u16 = 7;
const DEAD_CONNECTION_SECONDS: u16 = 8;
const DEVICE_LIST: u16 = 9;

/// Of an item of `SOCKETS` and of `DEVICE_LIST`, and what is in one.
const ITEM: u16 = 1;
const SOCKET_FD: u16 = 1;
const DEVICE_INDEX: u16 = 1;
const DEVICE_CONNECTED: u16 = 2;

/// An attribute that holds attributes.
const NESTED: u16 = 1 << 15;
const KIND: u16 = !(3 << 14);

const REQUEST_AND_ACK: u16 = 1 | 4;
const ERROR: u16 = 2;
const HEAD_LEN: usize = 16;
const GENERIC_HEAD_LEN: usize = 4;
const VERSION: u8 = 1;

/// What the kernel is asked to do with a device.
#[derive(Clone, Debug)]
pub(super) enum Command<'a> {
    /// Make it a client of these connections, which have shaken hands.
    Connect {
        index: u32,
        size_bytes: u64,
        block_size_bytes: u32,
        server_flags: u16,
        /// 0: a request may take for ever.
        timeout_seconds: u64,
        dead_connection_seconds: u64,
        sockets: Vec<BorrowedFd<'a>>,
    },
    /// Take these connections in the place of dead ones.
    Reconfigure { index: u32, sockets: Vec<BorrowedFd<'a>> },
    /// Have another size.
    Resize { index: u32, size_bytes: u64 },
    /// Let go of it.
    Disconnect { index: u32 },
    /// Say whether it is connected.
    Status { index: u32 },
}

/// The question for the number of the family `name`.
pub(super) fn get_family(name: &str, sequence: u32) -> Vec<u8> {
    let mut message = Message::new(CONTROL, CONTROL_GET_FAMILY, sequence);
    let mut text = name.as_bytes().to_vec();
    text.push(0);
    message.attribute(CONTROL_FAMILY_NAME, &text);
    message.finish()
}

impl Command<'_> {
    /// The message, for the family of this number.
    pub(super) fn encode(&self, family: u16, sequence: u32) -> Vec<u8> {
        let number = match self {
            Self::Connect { .. } => CONNECT,
            Self::Reconfigure { .. } | Self::Resize { .. } => RECONFIGURE,
            Self::Disconnect { .. } => DISCONNECT,
            Self::Status { .. } => STATUS,
        };
        let mut message = Message::new(family, number, sequence);
        match self {
            Self::Connect {
                index,
                size_bytes,
                block_size_bytes,
                server_flags,
                timeout_seconds,
                dead_connection_seconds,
                sockets,
            } => {
                message.attribute(INDEX, &index.to_ne_bytes());
                message.attribute(SIZE_BYTES, &size_bytes.to_ne_bytes());
                message.attribute(BLOCK_SIZE_BYTES, &u64::from(*block_size_bytes).to_ne_bytes());
                if *timeout_seconds > 0 {
                    message.attribute(TIMEOUT_SECONDS, &timeout_seconds.to_ne_bytes());
                }
                message.attribute(SERVER_FLAGS, &u64::from(*server_flags).to_ne_bytes());
                message.attribute(DEAD_CONNECTION_SECONDS, &dead_connection_seconds.to_ne_bytes());
                message.sockets(sockets);
            }
            Self::Reconfigure { index, sockets } => {
                message.attribute(INDEX, &index.to_ne_bytes());
                message.sockets(sockets);
            }
            Self::Resize { index, size_bytes } => {
                message.attribute(INDEX, &index.to_ne_bytes());
                message.attribute(SIZE_BYTES, &size_bytes.to_ne_bytes());
            }
            Self::Disconnect { index } | Self::Status { index } => {
                message.attribute(INDEX, &index.to_ne_bytes());
            }
        }
        message.finish()
    }
}

struct Message {
    bytes: Vec<u8>,
}

impl Message {
    fn new(family: u16, command: u8, sequence: u32) -> Self {
        let mut bytes = Vec::with_capacity(256);
        // The length comes at the end; the port is the kernel's to fill in.
        bytes.extend([0; 4]);
        bytes.extend(family.to_ne_bytes());
        bytes.extend(REQUEST_AND_ACK.to_ne_bytes());
        bytes.extend(sequence.to_ne_bytes());
        bytes.extend([0; 4]);
        bytes.extend([command, VERSION, 0, 0]);
        Self { bytes }
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.nested(kind, |message| message.bytes.extend_from_slice(value));
    }

    /// An attribute whose value `fill` appends.
    fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.bytes.len();
        self.bytes.extend([0; 2]);
        self.bytes.extend(kind.to_ne_bytes());
        fill(self);
        let length =
            u16::try_from(self.bytes.len() - start).expect("a few attributes are shorter than 64 KiB");
        self.bytes[start..start + 2].copy_from_slice(&length.to_ne_bytes());
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn sockets(&mut self, sockets: &[BorrowedFd]) {
        self.nested(SOCKETS | NESTED, |message| {
            for socket in sockets {
                message.nested(ITEM | NESTED, |message| {
                    message.attribute(SOCKET_FD, &socket.as_raw_fd().to_ne_bytes());
                });
            }
        });
    }

    fn finish(mut self) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).expect("a few attributes are shorter than 4 GiB");
        self.bytes[..4].copy_from_slice(&length.to_ne_bytes());
        self.bytes
    }
}

/// What the kernel said to one message.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer<'a> {
    /// Attributes; the outcome follows in a message of its own.
    Data(Attributes<'a>),
    /// Done.
    Done,
    /// Refused, with this errno.
    Refused(i32),
}

/// The answers to message `sequence` in what was received.
pub(super) fn answers(mut bytes: &[u8], sequence: u32) -> Vec<Answer<'_>> {
    let mut answers = Vec::new();
    while let (Some(length), Some(kind), Some(theirs)) =
        (u32_at(bytes, 0), u16_at(bytes, 4), u32_at(bytes, 8))
    {
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some(message) = bytes.get(..length).filter(|message| message.len() >= HEAD_LEN) else { break };
        if theirs == sequence {
            let body = &message[HEAD_LEN..];
            match (kind, u32_at(body, 0)) {
                (ERROR, Some(0)) => answers.push(Answer::Done),
                (ERROR, Some(code)) => answers.push(Answer::Refused(code.cast_signed().saturating_neg())),
                (ERROR, None) => {}
                _ => answers.push(Answer::Data(Attributes(body.get(GENERIC_HEAD_LEN..).unwrap_or_default()))),
            }
        }
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    answers
}

/// Attributes one behind the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Attributes<'a>(&'a [u8]);

impl<'a> Attributes<'a> {
    /// The value of the first attribute of this kind.
    fn get(self, kind: u16) -> Option<&'a [u8]> {
        let mut bytes = self.0;
        loop {
            let length = usize::from(u16_at(bytes, 0)?);
            let value = bytes.get(4..length)?;
            if u16_at(bytes, 2)? & KIND == kind {
                return Some(value);
            }
            bytes = bytes.get(length.next_multiple_of(4)..)?;
        }
    }

    /// The number of a family, in the answer to [`get_family`].
    pub(super) fn family(self) -> Option<u16> {
        u16_at(self.get(CONTROL_FAMILY_ID)?, 0)
    }

    /// Whether the device is connected, in the answer to [`Command::Status`].
    pub(super) fn is_connected(self, index: u32) -> Option<bool> {
        let device = Self(Self(self.get(DEVICE_LIST)?).get(ITEM)?);
        let told = u32_at(device.get(DEVICE_INDEX)?, 0)?;
        (told == index).then_some(*device.get(DEVICE_CONNECTED)?.first()? != 0)
    }
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_ne_bytes)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes)
}

#[cfg(all(test, target_endian = "little"))]
mod tests {
    use std::os::fd::AsFd;

    use proptest::prelude::*;

    use super::*;

    /// Words of hexadecimal digits, for people.
    fn hex(bytes: &[u8]) -> String {
        let words =
            bytes.chunks(4).map(|word| word.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
        words.collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn the_question_for_a_family_is_laid_out_as_the_kernel_reads_it() {
        assert_eq!(
            hex(&get_family("nbd", 7)),
            // length, family and flags, sequence, port, command and version; length and kind, "nbd\0"
            "1c000000 10000500 07000000 00000000 03010000 08000200 6e626400"
        );
    }

    #[test]
    fn commands_are_laid_out_as_the_kernel_reads_them() {
        let file = std::fs::File::open("/dev/null").unwrap();
        let fd = hex(&file.as_raw_fd().to_ne_bytes());
        let connect = Command::Connect {
            index: 3,
            size_bytes: 1 << 40,
            block_size_bytes: 4096,
            server_flags: 0x16d,
            timeout_seconds: 0,
            dead_connection_seconds: 300,
            sockets: vec![file.as_fd(), file.as_fd()],
        };
        let expected = format!(
            "68000000 1b000500 01000000 00000000 01010000 \
             08000100 03000000 0c000200 00000000 00010000 0c000300 00100000 00000000 \
             0c000500 6d010000 00000000 0c000800 2c010000 00000000 \
             1c000780 0c000180 08000100 {fd} 0c000180 08000100 {fd}"
        );
        assert_eq!(hex(&connect.encode(27, 1)), expected);
        let reconfigure = Command::Reconfigure { index: 3, sockets: vec![file.as_fd()] };
        let expected = format!(
            "2c000000 1b000500 02000000 00000000 03010000 08000100 03000000 10000780 0c000180 08000100 {fd}"
        );
        assert_eq!(hex(&reconfigure.encode(27, 2)), expected);
        let expected =
            "28000000 1b000500 02000000 00000000 03010000 08000100 03000000 0c000200 00000000 00010000";
        assert_eq!(hex(&Command::Resize { index: 3, size_bytes: 1 << 40 }.encode(27, 2)), expected);
        let expected = "1c000000 1b000500 03000000 00000000 02010000 08000100 03000000";
        assert_eq!(hex(&Command::Disconnect { index: 3 }.encode(27, 3)), expected);
    }

    #[test]
    fn a_timeout_is_told_only_if_there_is_one() {
        let connect = |timeout_seconds| {
            let connect = Command::Connect {
                index: 0,
                size_bytes: 4096,
                block_size_bytes: 512,
                server_flags: 1,
                timeout_seconds,
                dead_connection_seconds: 1,
                sockets: Vec::new(),
            };
            hex(&connect.encode(27, 1))
        };
        assert!(connect(90).contains("0c000400 5a000000 00000000"));
        assert!(!connect(0).contains("0c000400"));
    }

    fn bytes(hex: &str) -> Vec<u8> {
        let digits: Vec<u8> = hex.bytes().filter(u8::is_ascii_hexdigit).collect();
        let byte = |pair: &[u8]| u8::from_str_radix(&String::from_utf8_lossy(pair), 16).expect("two digits");
        digits.chunks(2).map(byte).collect()
    }

    #[test]
    fn what_the_kernel_says_is_understood() {
        // The family's name, number and version.
        let family = bytes(
            "2c000000 10000000 05000000 11110000 01020000 08000200 6e626400 06000100 24000000 08000300 01000000",
        );
        let [Answer::Data(told)] = answers(&family, 5)[..] else { panic!("one answer") };
        assert_eq!(told.family(), Some(36));
        assert_eq!(answers(&family, 6), []);
        let status = bytes(
            "2c000000 24000000 05000000 11110000 05010000 18000980 \
             14000180 08000100 00000000 05000200 01000000 \
             24000000 02000000 05000000 11110000 00000000 14000000 24000500 05000000 11110000",
        );
        let [Answer::Data(told), Answer::Done] = answers(&status, 5)[..] else {
            panic!("{:?}", answers(&status, 5))
        };
        assert_eq!((told.is_connected(0), told.is_connected(1)), (Some(true), None));
        let refused =
            bytes("24000000 02000000 05000000 11110000 f0ffffff 14000000 24000500 05000000 11110000");
        assert_eq!(answers(&refused, 5), [Answer::Refused(16)]);
    }

    proptest! {
        #[test]
        fn any_bytes_are_understood_or_passed_over(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let sequence = u32_at(&bytes, 8).unwrap_or(0);
            for answer in answers(&bytes, sequence) {
                if let Answer::Data(told) = answer {
                    let _ = (told.family(), told.is_connected(0));
                }
            }
        }
    }
}
