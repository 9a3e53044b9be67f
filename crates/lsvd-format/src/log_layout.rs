//! Where a log of format 1 lies, how its objects are named, and in which format it goes on.
//!
//! A volume whose superblock has no layout keeps its log in `log/`, in names of 16 digits, in format 2 alone. Knows
//! texts and numbers; not what is in the bucket. Invariants: 1. a number has one name, and a name is at most one
//! number's; 2. a layout never changes while its volume lives.

use serde::{Deserialize, Serialize};

use crate::v1::{parse_v1_name, v1_name};
use crate::{NUMBER_MAX, SequenceNumber, names};

/// The format of a log object.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "u8", into = "u8")]
pub enum ObjectFormat {
    /// The seed's: no identity, no checksum.
    V1,
    /// Ours.
    #[default]
    V2,
}

impl From<ObjectFormat> for u8 {
    fn from(format: ObjectFormat) -> Self {
        match format {
            ObjectFormat::V1 => 1,
            ObjectFormat::V2 => 2,
        }
    }
}

impl TryFrom<u8> for ObjectFormat {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        match number {
            1 => Ok(Self::V1),
            2 => Ok(Self::V2),
            other => Err(format!("log objects of format {other} are not known")),
        }
    }
}

/// The layout of a log that has, or may have, objects of format 1.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct LogLayout {
    /// What the names of the log's objects begin with, relative to the volume's prefix: empty, or folders, each with
    /// its slash.
    pub prefix: String,
    /// Hex digits of a name at least: smaller numbers are padded with zeroes. From 1, which pads nothing.
    pub name_digits: u8,
    /// The format of new objects: where it is 2, the log began in format 1 and goes on in format 2.
    pub append_format: ObjectFormat,
}

impl LogLayout {
    /// The name of a log object, relative to the volume's prefix.
    pub fn name(&self, number: SequenceNumber) -> String {
        format!("{}{}", self.prefix, v1_name(number.0, self.name_digits.into()))
    }

    /// The number in a log object's name. A name that this log would not give its number is somebody else's.
    pub fn parse(&self, name: &str) -> Option<SequenceNumber> {
        let digits = name.strip_prefix(&self.prefix)?;
        let (number, _) = parse_v1_name(digits).filter(|(number, _)| *number <= NUMBER_MAX)?;
        (v1_name(number, self.name_digits.into()) == digits).then_some(SequenceNumber(number))
    }

    /// Whether the values are possible ones.
    ///
    /// # Errors
    /// The field and its value, for a person.
    pub fn validate(&self) -> Result<(), String> {
        if self.name_digits == 0 {
            return Err("log_layout: a name has at least one digit".to_owned());
        }
        validate_prefix(&self.prefix)
    }
}

/// Whether a log may have this prefix.
///
/// # Errors
/// What is wrong with it, for a person.
pub fn validate_prefix(prefix: &str) -> Result<(), String> {
    let taken =
        [names::SUPERBLOCK_FOLDER, names::CHECKPOINT_FOLDER, names::ARCHIVE_FOLDER, names::PROBE_FOLDER];
    if taken.iter().any(|folder| prefix.starts_with(folder)) {
        return Err(format!("the log's prefix {prefix:?} is the folder of something else of the volume"));
    }
    let plain = |folder: &str| {
        let byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
        !folder.is_empty() && folder.bytes().all(byte) && !folder.bytes().all(|byte| byte == b'.')
    };
    let folders = prefix.strip_suffix('/').map(|folders| folders.split('/').all(plain));
    if prefix.is_empty() || folders == Some(true) {
        return Ok(());
    }
    Err(format!(
        "the log's prefix {prefix:?} is neither empty nor folders of letters, digits, '-', '_' and '.', each with its slash"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layout(prefix: &str, name_digits: u8) -> LogLayout {
        LogLayout { prefix: prefix.to_owned(), name_digits, append_format: ObjectFormat::V2 }
    }

    /// Rule 2: one number, one name, whatever the width.
    #[test]
    fn a_number_has_one_name() {
        for (prefix, digits) in [("", 1), ("", 4), ("", 8), ("old/log/", 16), ("", 20)] {
            let layout = layout(prefix, digits);
            assert_eq!(layout.validate(), Ok(()));
            for number in [0, 1, 9, 10, 0xffff, 0x1_0000, 0xdead_beef, NUMBER_MAX] {
                let name = layout.name(SequenceNumber(number));
                assert_eq!(layout.parse(&name), Some(SequenceNumber(number)), "{name}");
                assert_eq!(layout.parse(&format!("0{name}")), None, "0{name}");
            }
        }
        assert_eq!(layout("", 4).name(SequenceNumber(0xab)), "00ab");
        assert_eq!(layout("x/", 1).name(SequenceNumber(0xab)), "x/ab");
    }

    #[test]
    fn names_of_others_do_not_parse() {
        for name in
            ["", "1", "001", "00001", "00AB", "+001", "00ab.tmp", "a/00ab", "superblock/0000000000000001"]
        {
            assert_eq!(layout("", 4).parse(name), None, "{name}");
        }
        assert_eq!(layout("x/", 4).parse("00ab"), None);
        assert_eq!(layout("", 1).parse("8000000000000000"), None);
    }

    #[test]
    fn prefixes_that_can_not_be() {
        for prefix in
            ["x", "/", "/x/", "x//", "../", "x/../", "a b/", "superblock/", "archive/x/", "probe/", "é/"]
        {
            assert!(validate_prefix(prefix).is_err(), "{prefix}");
        }
        for prefix in ["", "log/", "a.b/c-d/", "0/"] {
            assert_eq!(validate_prefix(prefix), Ok(()), "{prefix}");
        }
        assert!(layout("", 0).validate().is_err());
    }
}
