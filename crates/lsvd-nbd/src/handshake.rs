//! From the greeting to the chosen export: fixed newstyle negotiation as a state machine over bytes.
//!
//! It knows no sockets and no time: whoever drives it appends to its input, sends its output, and gives up on clients
//! that take too long.
//!
//! 1. One call answers at most one option, so output is bounded by one answer.
//! 2. An option that is refused is consumed whole: the next one begins where it should.
//! 3. Nothing is allocated for an option before its length is known to be sane.

mod catalog;
mod option;
mod reply;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use bytes::{Buf, BytesMut};

pub(crate) use self::catalog::{Catalog, CatalogEntry};
use self::option::{InfoRequest, Malformed, MetaContextRequest, id, info};
use self::reply::{Refusal, error};
use crate::context::CONTEXTS_MAX;
use crate::transmission::Session;

/// Longest name, query or message that the protocol allows, in bytes.
pub(crate) const STRING_BYTES_MAX: usize = 4096;

/// Most data that an option may bring, in bytes: a name and a few dozen queries.
const OPTION_BYTES_MAX: u32 = 64 << 10;

/// An option beyond this is not worth reading to its end, in bytes.
const OPTION_BYTES_ABSURD: u32 = 16 << 20;

/// Options that one client may send: who haggles longer does not mean to connect.
const OPTIONS_MAX: u32 = 4096;

const OPTION_MAGIC: u64 = 0x4948_4156_454F_5054; // "IHAVEOPT"
const OPTION_HEAD_BYTES: usize = 16;
const CLIENT_FLAGS_BYTES: usize = 4;

const CLIENT_FIXED_NEWSTYLE: u32 = 1 << 0;
const CLIENT_NO_ZEROES: u32 = 1 << 1;

/// The context that every export has, and its number in replies.
const BASE_ALLOCATION: &[u8] = b"base:allocation";
pub(crate) const BASE_ALLOCATION_ID: u32 = 1;

/// The number in replies of an export's own context, by its place among the selected ones.
pub(crate) fn context_id(place: usize) -> u32 {
    BASE_ALLOCATION_ID + 1 + u32::try_from(place).expect("a few are selected at most")
}

/// What the driver does next.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Append to the input and call again.
    NeedInput,
    /// Send the output and call again.
    Answered,
    /// Ask the export which of these contexts it has, hand their names to [`Handshake::tell_contexts`], and call again.
    Contexts {
        /// Place of the export in the catalog.
        export: usize,
        /// What the client asks for, in the export's namespace; each once.
        queries: Vec<String>,
        /// They are whole names that the client wants to be told of from now on; otherwise they are listed.
        select: bool,
    },
    /// Send the output; what remains of the input is the transmission's.
    Chosen {
        /// Place of the export in the catalog.
        export: usize,
        /// What was agreed.
        session: Session,
    },
    /// Send the output and close.
    Closed(Ending),
}

/// Why a negotiation ended without an export.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Ending {
    /// The client said goodbye.
    #[error("the client ended the negotiation")]
    Aborted,
    /// The protocol has no answer for this but to close.
    #[error("{0}")]
    Refused(String),
    /// The client does not speak the protocol.
    #[error("not a valid client: {0}")]
    Violation(String),
}

#[derive(Debug)]
enum State {
    ClientFlags,
    OptionHead,
    OptionData { option: u32, length: u32 },
    Skip { option: u32, remaining: u32 },
}

/// Contexts that were selected.
#[derive(Clone, Copy, Debug)]
struct Selection {
    export: usize,
    base_allocation: bool,
    /// So many of the export's own.
    contexts: usize,
}

/// An option that waits for what the export says.
#[derive(Clone, Copy, Debug)]
struct Asked {
    option: u32,
    export: usize,
    base_allocation: bool,
}

/// A negotiation with one client.
#[derive(Debug)]
pub(crate) struct Handshake {
    catalog: Arc<Catalog>,
    state: State,
    options_seen: u32,
    no_zeroes: bool,
    structured: bool,
    /// What was selected last.
    selected: Option<Selection>,
    /// Contexts that the export is asked for.
    asked: Option<Asked>,
    shutting_down: bool,
}

impl Handshake {
    pub(crate) fn new(catalog: Arc<Catalog>) -> Self {
        Self {
            catalog,
            state: State::ClientFlags,
            options_seen: 0,
            no_zeroes: false,
            structured: false,
            selected: None,
            asked: None,
            shutting_down: false,
        }
    }

    /// What the server sends first.
    pub(crate) fn greet(&self, output: &mut BytesMut) {
        reply::greeting(output);
    }

    /// From now on no export is to be had.
    pub(crate) fn shut_down(&mut self) {
        self.shutting_down = true;
    }

    /// Consumes at most one message of `input` and appends the answer to `output`.
    pub(crate) fn advance(&mut self, input: &mut BytesMut, output: &mut BytesMut) -> Step {
        loop {
            match self.state {
                State::ClientFlags => {
                    if input.len() < CLIENT_FLAGS_BYTES {
                        return Step::NeedInput;
                    }
                    let flags = input.get_u32();
                    if flags & !(CLIENT_FIXED_NEWSTYLE | CLIENT_NO_ZEROES) != 0 {
                        return violation(format!("unknown client flags {flags:#x}"));
                    }
                    self.no_zeroes = flags & CLIENT_NO_ZEROES != 0;
                    self.state = State::OptionHead;
                }
                State::OptionHead => {
                    if input.len() < OPTION_HEAD_BYTES {
                        return Step::NeedInput;
                    }
                    let magic = input.get_u64();
                    if magic != OPTION_MAGIC {
                        return violation(format!("an option begins with {magic:#018x}"));
                    }
                    let (option, length) = (input.get_u32(), input.get_u32());
                    self.options_seen += 1;
                    if self.options_seen > OPTIONS_MAX {
                        return violation(format!("more than {OPTIONS_MAX} options"));
                    }
                    if length > OPTION_BYTES_ABSURD {
                        return violation(format!("option {option} announces {length} bytes"));
                    }
                    self.state = if length <= OPTION_BYTES_MAX {
                        State::OptionData { option, length }
                    } else if option == id::EXPORT_NAME {
                        return Step::Closed(Ending::Refused(format!("an export name of {length} bytes")));
                    } else {
                        State::Skip { option, remaining: length }
                    };
                }
                State::OptionData { option, length } => {
                    let length = length as usize;
                    if input.len() < length {
                        return Step::NeedInput;
                    }
                    self.state = State::OptionHead;
                    let data = input.split_to(length);
                    return self.answer(option, &data, output);
                }
                State::Skip { option, remaining } => {
                    let skipped = input.len().min(remaining as usize);
                    input.advance(skipped);
                    let remaining = remaining - u32::try_from(skipped).expect("skipped is at most remaining");
                    if remaining > 0 {
                        self.state = State::Skip { option, remaining };
                        return Step::NeedInput;
                    }
                    self.state = State::OptionHead;
                    if option == id::ABORT {
                        return self.answer(option, &[], output);
                    }
                    if option == id::SET_META_CONTEXT {
                        self.selected = None;
                    }
                    let message = format!("an option may bring {OPTION_BYTES_MAX} bytes at most");
                    reply::refuse(output, option, &Refusal { kind: error::TOO_BIG, message });
                    return Step::Answered;
                }
            }
        }
    }

    fn answer(&mut self, option: u32, data: &[u8], output: &mut BytesMut) -> Step {
        match option {
            id::ABORT => {
                reply::acknowledge(output, option);
                return Step::Closed(Ending::Aborted);
            }
            id::EXPORT_NAME => return self.choose_by_name(data, output),
            id::GO => match self.inform(option, data, output) {
                Ok(export) => return Step::Chosen { export, session: self.session(export) },
                Err(refusal) => reply::refuse(output, option, &refusal),
            },
            id::LIST_META_CONTEXT | id::SET_META_CONTEXT => match self.meta_context(option, data, output) {
                Ok(step) => return step,
                Err(refusal) => reply::refuse(output, option, &refusal),
            },
            _ => {
                if let Err(refusal) = self.answer_and_stay(option, data, output) {
                    reply::refuse(output, option, &refusal);
                }
            }
        }
        Step::Answered
    }

    fn answer_and_stay(&mut self, option: u32, data: &[u8], output: &mut BytesMut) -> Result<(), Refusal> {
        self.refuse_if_shutting_down()?;
        match option {
            id::LIST => {
                expect_no_data(data)?;
                for entry in self.catalog.entries() {
                    reply::server(output, &entry.name, &entry.info.description);
                }
                reply::acknowledge(output, option);
                Ok(())
            }
            id::INFO => self.inform(option, data, output).map(|_export| ()),
            id::STRUCTURED_REPLY => {
                expect_no_data(data)?;
                self.structured = true;
                reply::acknowledge(output, option);
                Ok(())
            }
            id::STARTTLS => Err(Refusal::new(error::UNSUP, "this server does not speak TLS")),
            id::EXTENDED_HEADERS => Err(Refusal::new(error::UNSUP, "this server has no extended headers")),
            _ => Err(Refusal::new(error::UNSUP, "this server does not know that option")),
        }
    }

    /// The oldest way to choose: there is no answer for a failure but to close.
    fn choose_by_name(&self, name: &[u8], output: &mut BytesMut) -> Step {
        if self.shutting_down {
            return Step::Closed(Ending::Refused("the server is shutting down".into()));
        }
        match self.catalog.find(name) {
            Some(export) => {
                let session = self.session(export);
                reply::chosen_by_name(output, session.size_bytes, session.flags(), !self.no_zeroes);
                Step::Chosen { export, session }
            }
            None => Step::Closed(Ending::Refused(unknown_export(name))),
        }
    }

    /// INFO and the first half of GO: all that was asked about one export.
    fn inform(&self, option: u32, data: &[u8], output: &mut BytesMut) -> Result<usize, Refusal> {
        self.refuse_if_shutting_down()?;
        let request = InfoRequest::decode(data)?;
        let export = self.find(request.export_name)?;
        let entry = &self.catalog.entries()[export];
        let session = self.session(export);
        reply::info_export(output, option, session.size_bytes, session.flags());
        if request.asks_for(info::NAME) {
            reply::info_text(output, option, info::NAME, &entry.name);
        }
        if request.asks_for(info::DESCRIPTION) && !entry.info.description.is_empty() {
            reply::info_text(output, option, info::DESCRIPTION, &entry.info.description);
        }
        if request.asks_for(info::BLOCK_SIZE) {
            let preferred = entry.info.block_size_preferred;
            reply::info_block_size(output, option, preferred, session.payload_bytes_max);
        }
        reply::acknowledge(output, option);
        Ok(export)
    }

    fn meta_context(&mut self, option: u32, data: &[u8], output: &mut BytesMut) -> Result<Step, Refusal> {
        let select = option == id::SET_META_CONTEXT;
        // A selection is replaced even by one that fails.
        if select {
            self.selected = None;
        }
        self.refuse_if_shutting_down()?;
        let request = MetaContextRequest::decode(data)?;
        if !self.structured {
            return Err(Refusal::new(error::INVALID, "metadata contexts need structured replies first"));
        }
        let export = self.find(request.export_name)?;
        let base_allocation = if select {
            // `base:` alone is a wildcard for listing only.
            request.queries.contains(&BASE_ALLOCATION)
        } else {
            let listed = |query: &&[u8]| *query == BASE_ALLOCATION || *query == b"base:";
            request.queries.is_empty() || request.queries.iter().any(listed)
        };
        let queries = self.further_queries(export, &request, select);
        if select && queries.len() > CONTEXTS_MAX {
            let message = format!("a connection has {CONTEXTS_MAX} contexts beside base:allocation at most");
            return Err(Refusal { kind: error::TOO_BIG, message });
        }
        self.asked = Some(Asked { option, export, base_allocation });
        if queries.is_empty() {
            self.tell_contexts(&[], output);
            return Ok(Step::Answered);
        }
        Ok(Step::Contexts { export, queries, select })
    }

    /// What the export has to be asked about: what lies in its namespace.
    fn further_queries(&self, export: usize, request: &MetaContextRequest, select: bool) -> Vec<String> {
        let Some(namespace) = self.catalog.entries()[export].info.context_namespace else {
            return Vec::new();
        };
        if request.queries.is_empty() && !select {
            return vec![namespace.to_owned()];
        }
        let mut further: Vec<String> = Vec::new();
        let texts = request.queries.iter().filter_map(|query| std::str::from_utf8(query).ok());
        for query in texts.filter(|query| query.starts_with(namespace)) {
            // What ends with a colon stands for others: a wildcard, for listing only.
            let wildcard = select && query.ends_with(':');
            if !wildcard && further.iter().all(|known| known != query) {
                further.push(query.to_owned());
            }
        }
        further
    }

    /// Answers what [`Step::Contexts`] asked: the names of those that there are.
    pub(crate) fn tell_contexts(&mut self, names: &[String], output: &mut BytesMut) {
        let Some(Asked { option, export, base_allocation }) = self.asked.take() else { return };
        let select = option == id::SET_META_CONTEXT;
        let number = |number: u32| if select { number } else { 0 };
        if base_allocation {
            reply::meta_context(output, option, number(BASE_ALLOCATION_ID), BASE_ALLOCATION);
        }
        for (place, name) in names.iter().enumerate() {
            reply::meta_context(output, option, number(context_id(place)), name.as_bytes());
        }
        if select {
            self.selected = Some(Selection { export, base_allocation, contexts: names.len() });
        }
        reply::acknowledge(output, option);
    }

    fn session(&self, export: usize) -> Session {
        let entry = &self.catalog.entries()[export];
        let selected = self.selected.filter(|selected| self.structured && selected.export == export);
        Session {
            size_bytes: entry.info.size_bytes,
            read_only: entry.info.read_only,
            can_multi_conn: entry.info.can_multi_conn,
            can_trim: entry.info.can_trim,
            fast_zero: entry.info.fast_zero,
            structured: self.structured,
            base_allocation: selected.is_some_and(|selected| selected.base_allocation),
            contexts: selected.map_or(0, |selected| selected.contexts),
            payload_bytes_max: self.catalog.payload_bytes_max(),
        }
    }

    fn find(&self, name: &[u8]) -> Result<usize, Refusal> {
        self.catalog.find(name).ok_or_else(|| Refusal { kind: error::UNKNOWN, message: unknown_export(name) })
    }

    fn refuse_if_shutting_down(&self) -> Result<(), Refusal> {
        if self.shutting_down {
            return Err(Refusal::new(error::SHUTDOWN, "the server is shutting down"));
        }
        Ok(())
    }
}

fn violation(what: String) -> Step {
    Step::Closed(Ending::Violation(what))
}

fn unknown_export(name: &[u8]) -> String {
    if name.is_empty() {
        return "there is no default export: name one".into();
    }
    // The name is a stranger's: escaped, and not longer than a person reads.
    let shown: String = String::from_utf8_lossy(name).chars().take(64).collect();
    format!("there is no export {shown:?}")
}

fn expect_no_data(data: &[u8]) -> Result<(), Refusal> {
    if data.is_empty() { Ok(()) } else { Err(Refusal::new(error::INVALID, "this option brings no data")) }
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::new(error::INVALID, malformed.0)
    }
}
