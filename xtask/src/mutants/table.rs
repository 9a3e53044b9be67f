//! What is broken on purpose: one change of the product's code each, the rule that it breaks, and a test that notices.
//!
//! Knows text; does nothing.

/// One change.
#[derive(Debug)]
pub(super) struct Mutant {
    pub(super) name: &'static str,
    /// Number of the rule in docs/architecture.md.
    pub(super) rule: u8,
    /// What is wrong then, for a person.
    pub(super) breaks: &'static str,
    pub(super) file: &'static str,
    /// Stands once in the file.
    pub(super) find: &'static str,
    pub(super) replace: &'static str,
    /// Package and name of a test that fails.
    pub(super) test: Option<(&'static str, &'static str)>,
}

const TAKEOVER: &str = "crates/lsvd-volume/src/takeover.rs";
const STORE: &str = "crates/lsvd-volume/src/store.rs";
const UPLOAD: &str = "crates/lsvd-volume/src/upload.rs";
const VOLUME: &str = "crates/lsvd-volume/src/volume.rs";
const ACCEPTANCE: &str = "crates/lsvd-volume/src/acceptance.rs";
const RECOVERY: &str = "crates/lsvd-volume/src/recovery.rs";
const ENGINE: &str = "crates/lsvd-engine/src/engine.rs";
const ENGINE_JOURNAL: &str = "crates/lsvd-engine/src/journal.rs";
const WRITER: &str = "crates/lsvd-local/src/journal/writer.rs";
const SCAN: &str = "crates/lsvd-local/src/journal/scan.rs";

pub(super) const MUTANTS: &[Mutant] = &[
    Mutant {
        name: "early-flush",
        rule: 1,
        breaks: "a flush is answered while what it covers is being uploaded",
        file: ENGINE,
        find: "if target < self.first_incomplete {",
        replace: "if target < self.next_number {",
        test: Some(("lsvd-engine", "a_flush_covers_what_completed_before_it")),
    },
    Mutant {
        name: "plain-fua",
        rule: 1,
        breaks: "FUA is answered like any write",
        file: ENGINE,
        find: "        if fua {\n            self.wait_durable(id);",
        replace: "        if false && fua {\n            self.wait_durable(id);",
        test: Some(("lsvd-volume", "what_completed_with_fua_is_there_after_a_crash")),
    },
    Mutant {
        name: "stale-base",
        rule: 1,
        breaks: "a write of part of a block does not wait for an earlier one to its block",
        file: ENGINE,
        find: "if before.any(|before| before.blocks().overlaps(blocks)) {",
        replace: "if false && before.any(|before| before.blocks().overlaps(blocks)) {",
        test: None,
    },
    Mutant {
        name: "base-behind-the-overlay",
        rule: 1,
        breaks: "a write of part of a block is merged with what the store has, not with what was accepted since",
        file: "crates/lsvd-engine/src/plan.rs",
        find: "    match overlay.get(block) {\n        Some(Buffered { content: Content::Data(bytes), .. })",
        replace: "    match overlay.get(block).filter(|_| false) {\n        Some(Buffered { content: Content::Data(bytes), .. })",
        test: None,
    },
    Mutant {
        name: "overlay-forgets",
        rule: 1,
        breaks: "what was written since is dropped from memory with the object that it replaces",
        file: ENGINE,
        find: "|buffered| buffered.number == number);",
        replace: "|_| true);",
        test: None,
    },
    Mutant {
        name: "unlogged-trim",
        rule: 1,
        breaks: "a trim is not in the log",
        file: "crates/lsvd-engine/src/batch.rs",
        find: "Content::Trim => entries.extend(encodable(extent).map(|extent| Entry::Trim { extent })),",
        replace: "Content::Trim => {}",
        test: None,
    },
    Mutant {
        name: "close-without-drain",
        rule: 1,
        breaks: "a volume is closed as clean before the store has everything",
        file: VOLUME,
        find: "            inner.core.request(Request::Drain).await?;\n            // A write that waited at the ceiling was let in by \
               that flush: it is to be stored, too.\n            while !inner.core.is_drained() {",
        replace: "            while false {",
        test: Some(("lsvd-volume", "a_write_that_waits_when_the_volume_closes_is_stored")),
    },
    Mutant {
        name: "failed-upload-counts",
        rule: 1,
        breaks: "an object whose upload failed is taken for stored",
        file: UPLOAD,
        find: "                core.upload_fails(number, error.clone());",
        replace: "                core.upload_fails(number, error.clone());\n                if number.0 > 0 { break; }",
        test: None,
    },
    Mutant {
        name: "anothers-is-mine",
        rule: 2,
        breaks: "\"already exists\" is taken for one's own object without looking whose it is",
        file: STORE,
        find: "                    Some(stored) if stored.identity == header.identity => return Ok(Put::Mine),\n                    \
               Some(stored) => return Ok(Put::Theirs(stored)),",
        replace: "                    Some(_) => return Ok(Put::Mine),",
        test: Some(("lsvd-volume", "anothers_object_at_my_number_fences_me")),
    },
    Mutant {
        name: "conflict-counts",
        rule: 2,
        breaks: "\"exists\" followed by \"not found\" is taken for stored",
        file: STORE,
        find: "                    Some(stored) => return Ok(Put::Theirs(stored)),\n                    None => \
               conflict.again().await?,\n                },\n            }\n        }\n    }\n\n    /// Moves a log object",
        replace: "                    Some(stored) => return Ok(Put::Theirs(stored)),\n                    None => return \
                  Ok(Put::Mine),\n                },\n            }\n        }\n    }\n\n    /// Moves a log object",
        test: Some(("lsvd-volume", "exists_and_then_not_found_is_put_again")),
    },
    Mutant {
        name: "number-twice",
        rule: 2,
        breaks: "a batch takes the number of the one before",
        file: ENGINE,
        find: "        self.next_number = self.next_number.next();",
        replace: "        if self.sealed.len() != 3 { self.next_number = self.next_number.next(); }",
        test: None,
    },
    Mutant {
        name: "archive-before-fence",
        rule: 3,
        breaks: "what lies beyond the first gap is archived before the fence has landed",
        file: TAKEOVER,
        find: "    let fence = land_fence(",
        replace: "    for stray in &strays {\n        let name = names::log_object(*stray);\n        let copy = names::archived(0, \
                  superblock.epoch, names::BEYOND_FENCE, &name);\n        let _ = store.archive_log_object(*stray, \
                  &copy).await;\n    }\n    let fence = land_fence(",
        test: Some(("lsvd-volume", "nothing_is_archived_before_the_fence")),
    },
    Mutant {
        name: "error-is-absence",
        rule: 4,
        breaks: "an object that can not be read ends the log",
        file: RECOVERY,
        find: "            Err(error) => return Err(error),\n        }\n    }\n    drop(headers);",
        replace: "            Err(_) => gap = true,\n        }\n    }\n    drop(headers);",
        test: Some(("lsvd-volume", "no_failure_shortens_the_log")),
    },
    Mutant {
        name: "missing-is-the-end",
        rule: 4,
        breaks: "an object that was listed and is not found ends the log",
        file: RECOVERY,
        find: "        return Err(store.corrupt(name, reason));\n    };",
        replace: "        let _ = reason;\n        return Ok(());\n    };",
        test: Some(("lsvd-volume", "listed_and_then_missing_is_an_error")),
    },
    Mutant {
        name: "short-read",
        rule: 5,
        breaks: "a GET that returned fewer bytes is taken as it is",
        file: "crates/lsvd-backend/src/bucket.rs",
        find: "Ok((bytes, _)) if bytes.len() as u64 == expected_bytes => return Ok(Some(bytes)),",
        replace: "Ok((bytes, _)) if bytes.len() as u64 <= expected_bytes => return Ok(Some(bytes)),",
        test: Some(("lsvd-backend", "short_answers_are_noticed")),
    },
    Mutant {
        name: "unverified-block",
        rule: 5,
        breaks: "a block's checksum is not compared",
        file: "crates/lsvd-format/src/log_object/frame.rs",
        find: "        if stored != computed {",
        replace: "        if false && stored != computed {",
        test: Some(("lsvd-volume", "a_flipped_bit_is_an_error_and_never_cached")),
    },
    Mutant {
        name: "torn-record",
        rule: 5,
        breaks: "a record of the journal is replayed without its checksum",
        file: SCAN,
        find: "let whole = got == data.len() && header.verify_payload(&data).is_ok();",
        replace: "let whole = got == data.len();",
        test: Some(("lsvd-local", "what_was_synced_survives_every_crash")),
    },
    Mutant {
        name: "lost-record-is-the-end",
        rule: 4,
        breaks: "a record that was synced and is gone is taken for a torn tail",
        file: SCAN,
        find: "        if last >= promised {",
        replace: "        if true || last >= promised {",
        test: Some(("lsvd-local", "damage_is_no_end")),
    },
    Mutant {
        name: "ack-before-sync",
        rule: 1,
        breaks: "a flush is answered before the journal's disk has its records",
        file: ENGINE_JOURNAL,
        find: "        if self.last <= self.held {",
        replace: "        if true || self.last <= self.held {",
        test: Some(("lsvd-engine", "a_flush_waits_for_the_journal_and_not_for_the_store")),
    },
    Mutant {
        name: "no-sync",
        rule: 1,
        breaks: "the journal's files are never synced",
        file: WRITER,
        find: "            self.files.sync(&name).map_err(failed(\"sync\", &name))?;\n        }\n        if std::mem::take",
        replace: "            let _ = name;\n        }\n        if std::mem::take",
        test: Some(("lsvd-local", "what_was_synced_survives_every_crash")),
    },
    Mutant {
        name: "sync-again",
        rule: 1,
        breaks: "a sync that failed is made again, and succeeds without the bytes",
        file: WRITER,
        find: "        // Until it has succeeded.\n        self.failed = true;",
        replace: "        self.failed = false;",
        test: Some(("lsvd-local", "a_failed_sync_is_for_good")),
    },
    Mutant {
        name: "early-release",
        rule: 1,
        breaks: "the journal lets go of records that are being uploaded",
        file: ENGINE,
        find: "        let journal = self.journal.as_ref().map(Journal::position);\n",
        replace: "        let journal = self.journal.as_ref().map(Journal::position);\n        if let Some(position) = journal {\n            \
                  self.actions.push_back(Action::ReleaseJournal { record: position.record });\n        }\n",
        test: Some(("lsvd-engine", "objects_name_their_last_record")),
    },
    Mutant {
        name: "position-too-far",
        rule: 1,
        breaks: "an object claims a record that comes after it",
        file: ENGINE_JOURNAL,
        find: "JournalPosition { journal: self.id, record: self.last }",
        replace: "JournalPosition { journal: self.id, record: self.last + 1 }",
        test: Some(("lsvd-engine", "objects_name_their_last_record")),
    },
    Mutant {
        name: "journal-not-named",
        rule: 1,
        breaks: "the superblock does not name the journal in use, so that it is opened without",
        file: ACCEPTANCE,
        find: "    if superblock.journal != Some(accepted.journal.id()) {",
        replace: "    if false && superblock.journal != Some(accepted.journal.id()) {",
        test: Some(("lsvd-volume", "a_volume_without_its_journal_is_refused")),
    },
    Mutant {
        name: "copied-journal",
        rule: 1,
        breaks: "a copy of a journal is replayed over what was written since",
        file: ACCEPTANCE,
        find: "had_last.is_some_and(|epoch| last.epoch <= epoch)",
        replace: "had_last.is_none_or(|epoch| last.epoch <= epoch) || true",
        test: Some(("lsvd-volume", "a_copy_of_a_journal_is_refused")),
    },
    Mutant {
        name: "passed-over-journal",
        rule: 1,
        breaks: "a journal is replayed that somebody without it wrote past",
        file: ACCEPTANCE,
        find: "    Ok((in_use && is_known).then(|| in_log.map_or(0, |position| position.record)))",
        replace: "    let _ = (in_use, is_known);\n    Ok(Some(in_log.map_or(0, |position| position.record)))",
        test: Some(("lsvd-volume", "a_journal_that_was_written_past_is_refused")),
    },
    Mutant {
        name: "no-list-after-superblock",
        rule: 9,
        breaks: "a re-created superblock number is taken for the highest one",
        file: TAKEOVER,
        find: "        if store.superblock_numbers(Some(number)).await?.is_empty() {",
        replace: "        if true {",
        test: Some(("lsvd-volume", "a_pruned_number_raises_no_epoch")),
    },
    Mutant {
        name: "no-list-after-fence",
        rule: 9,
        breaks: "a newcomer does not look for a newer one when its fence has landed",
        file: TAKEOVER,
        find: "    if let Some(newest) = newer.last() {\n        return Err(Error::Fenced",
        replace: "    if let Some(newest) = newer.last().filter(|_| false) {\n        return Err(Error::Fenced",
        test: Some(("lsvd-volume", "a_loser_archives_nothing")),
    },
    Mutant {
        name: "older-epoch-goes-on",
        rule: 9,
        breaks: "a newcomer that slept fences the log of its successor",
        file: TAKEOVER,
        find: "        Some((_, epoch)) if epoch > superblock.epoch => {",
        replace: "        Some((_, epoch)) if false && epoch > superblock.epoch => {",
        test: Some(("lsvd-volume", "a_stalled_opening_leaves_the_log_of_its_successor_alone")),
    },
    Mutant {
        name: "no-fence",
        rule: 9,
        breaks: "a newcomer writes on without a fence",
        file: TAKEOVER,
        find: "        let stored = match store.put_log_object(&header, bytes.into()).await? {\n            Put::Mine => header,",
        replace: "        let looked = match store.read_log_header(number).await? {\n            None => { let _ = bytes; Put::Mine }\n            \
                  Some(theirs) => Put::Theirs(theirs),\n        };\n        let stored = match looked {\n            Put::Mine => header,",
        test: Some(("lsvd-volume", "a_second_opening_fences_the_first")),
    },
    Mutant {
        name: "window-not-skipped",
        rule: 9,
        breaks: "numbers go on right behind the fence, where the old writer's objects still land",
        file: TAKEOVER,
        find: "        let next = SequenceNumber(number.0.saturating_add(superblock.window));",
        replace: "        let next = SequenceNumber(number.0.saturating_add(1));",
        test: None,
    },
    Mutant {
        name: "window-ignored",
        rule: 9,
        breaks: "a writer creates numbers beyond its window",
        file: ENGINE,
        find: "self.asked < self.sealed.len().min(self.window()) {",
        replace: "self.asked < self.sealed.len() {",
        test: Some(("lsvd-engine", "window")),
    },
    Mutant {
        name: "ceiling-ignored",
        rule: 10,
        breaks: "writes are let in beyond the ceiling of memory",
        file: ENGINE,
        find: "            if !fits {",
        replace: "            if false && !fits {",
        test: Some(("lsvd-engine", "at_the_ceiling_mutations_wait_in_order")),
    },
];
