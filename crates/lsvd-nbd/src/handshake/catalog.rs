//! The exports as one client is shown them, fixed for the length of its connection, so that INFO and GO agree.

use super::STRING_BYTES_MAX;
use crate::export::ExportInfo;

/// All exports.
#[derive(Debug)]
pub(crate) struct Catalog {
    entries: Vec<CatalogEntry>,
    default: Option<usize>,
    payload_bytes_max: u32,
}

/// One export.
#[derive(Debug)]
pub(crate) struct CatalogEntry {
    pub(crate) name: String,
    pub(crate) info: ExportInfo,
}

impl Catalog {
    /// `default` is a place in `entries`. Infos are made to fit what the protocol can say.
    pub(crate) fn new(
        mut entries: Vec<CatalogEntry>,
        default: Option<usize>,
        payload_bytes_max: u32,
    ) -> Self {
        for CatalogEntry { name, info } in &mut entries {
            debug_assert!(name.len() <= STRING_BYTES_MAX);
            let preferred = info.block_size_preferred.max(512);
            let largest = (payload_bytes_max / 2 + 1).next_power_of_two();
            info.block_size_preferred = preferred.checked_next_power_of_two().unwrap_or(largest).min(largest);
            info.description.truncate(info.description.floor_char_boundary(STRING_BYTES_MAX));
        }
        Self { entries, default, payload_bytes_max }
    }

    pub(crate) fn entries(&self) -> &[CatalogEntry] {
        &self.entries
    }

    pub(crate) fn payload_bytes_max(&self) -> u32 {
        self.payload_bytes_max
    }

    /// Place of the export of that name; the empty name is the default export's unless one has it for its own.
    pub(crate) fn find(&self, name: &[u8]) -> Option<usize> {
        let named = self.entries.iter().position(|entry| entry.name.as_bytes() == name);
        named.or(if name.is_empty() { self.default } else { None })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, info: ExportInfo) -> CatalogEntry {
        CatalogEntry { name: name.into(), info }
    }

    #[test]
    fn the_empty_name_is_the_default_export() {
        let entries = || vec![entry("a", ExportInfo::new(1)), entry("b", ExportInfo::new(2))];
        let catalog = Catalog::new(entries(), Some(1), 32 << 20);
        assert_eq!([catalog.find(b""), catalog.find(b"a"), catalog.find(b"c")], [Some(1), Some(0), None]);
        assert_eq!(Catalog::new(entries(), None, 32 << 20).find(b""), None);
    }

    /// The protocol wants a power of two from 512 that is no more than the largest payload.
    #[test]
    fn infos_are_made_to_fit() {
        for (told, expected) in [
            (0, 512),
            (4096, 4096),
            (5000, 8192),
            (1 << 25, 1 << 25),
            (1 << 26, 1 << 25),
            (u32::MAX, 1 << 25),
        ] {
            let info = ExportInfo { block_size_preferred: told, ..ExportInfo::new(1) };
            let catalog = Catalog::new(vec![entry("a", info)], None, 32 << 20);
            assert_eq!(catalog.entries()[0].info.block_size_preferred, expected, "{told}");
        }
        let info = ExportInfo { description: "ä".repeat(4000), ..ExportInfo::new(1) };
        let catalog = Catalog::new(vec![entry("a", info)], None, 3 << 20);
        assert_eq!(catalog.entries()[0].info.description.len(), 4096);
    }
}
