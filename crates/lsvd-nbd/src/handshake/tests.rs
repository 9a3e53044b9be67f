//! The negotiation, byte by byte.

use bytes::BufMut;
use proptest::prelude::*;

use super::*;
use crate::export::ExportInfo;

const MIB: u64 = 1 << 20;
const REPLY_MAGIC: &[u8] = b"\x00\x03\xe8\x89\x04\x55\x65\xa9";
const ACK: u32 = 1;

fn catalog() -> Arc<Catalog> {
    let first = ExportInfo { description: "the first".into(), can_multi_conn: true, ..ExportInfo::new(MIB) };
    let second = ExportInfo {
        read_only: true,
        fast_zero: true,
        context_namespace: Some("own:"),
        ..ExportInfo::new(2 * MIB)
    };
    let entries = vec![
        CatalogEntry { name: "first".into(), info: first },
        CatalogEntry { name: "second".into(), info: second },
    ];
    Arc::new(Catalog::new(entries, Some(0), 32 << 20))
}

/// A handshake after the client's flags.
fn begun(flags: u32) -> Handshake {
    let mut handshake = Handshake::new(catalog());
    let (step, output) = feed(&mut handshake, &flags.to_be_bytes());
    assert_eq!((step, output.len()), (Step::NeedInput, 0));
    handshake
}

fn feed(handshake: &mut Handshake, input: &[u8]) -> (Step, Vec<u8>) {
    let (mut input, mut output) = (BytesMut::from(input), BytesMut::new());
    let step = handshake.advance(&mut input, &mut output);
    (step, output.to_vec())
}

fn option(number: u32, data: &[u8]) -> Vec<u8> {
    let mut bytes = b"IHAVEOPT".to_vec();
    bytes.put_u32(number);
    bytes.put_u32(data.len().try_into().unwrap());
    bytes.put_slice(data);
    bytes
}

fn string(text: &[u8]) -> Vec<u8> {
    let mut bytes = u32::try_from(text.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(text);
    bytes
}

fn info_data(name: &[u8], wanted: &[u16]) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.put_u16(wanted.len().try_into().unwrap());
    wanted.iter().for_each(|info| bytes.put_u16(*info));
    bytes
}

fn context_data(name: &[u8], queries: &[&[u8]]) -> Vec<u8> {
    let mut bytes = string(name);
    bytes.put_u32(queries.len().try_into().unwrap());
    queries.iter().for_each(|query| bytes.put_slice(&string(query)));
    bytes
}

/// The replies in `output`: option, kind, data.
fn replies(mut output: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let mut replies = Vec::new();
    while !output.is_empty() {
        assert_eq!(&output[..8], REPLY_MAGIC);
        output.advance(8);
        let (option, kind, length) = (output.get_u32(), output.get_u32(), output.get_u32() as usize);
        replies.push((option, kind, output[..length].to_vec()));
        output.advance(length);
    }
    replies
}

/// Sends one option and expects the negotiation to go on.
fn ask(handshake: &mut Handshake, number: u32, data: &[u8]) -> Vec<(u32, u32, Vec<u8>)> {
    let (step, output) = feed(handshake, &option(number, data));
    assert_eq!(step, Step::Answered);
    let replies = replies(&output);
    assert!(replies.iter().all(|reply| reply.0 == number), "{replies:?}");
    replies
}

fn refused(replies: &[(u32, u32, Vec<u8>)], kind: u32) {
    assert_eq!(replies.iter().map(|reply| reply.1).collect::<Vec<_>>(), [kind], "{replies:?}");
    assert!(!replies[0].2.is_empty(), "a refusal says why");
}

fn acknowledged(replies: &[(u32, u32, Vec<u8>)]) {
    assert_eq!(replies.len(), 1, "{replies:?}");
    assert_eq!((replies[0].1, replies[0].2.len()), (ACK, 0));
}

#[test]
fn the_greeting() {
    let mut output = BytesMut::new();
    Handshake::new(catalog()).greet(&mut output);
    assert_eq!(&output[..], b"NBDMAGICIHAVEOPT\x00\x03");
}

#[test]
fn export_name_with_and_without_zeroes() {
    for (flags, zeroes) in [(0, 124), (1, 124), (3, 0)] {
        let mut handshake = begun(flags);
        let (step, output) = feed(&mut handshake, &option(1, b"second"));
        assert!(matches!(step, Step::Chosen { export: 1, .. }), "{step:?}");
        // HAS_FLAGS, READ_ONLY, FLUSH, FUA, CACHE; a read-only export offers nothing that writes.
        let mut expected = b"\x00\x00\x00\x00\x00\x20\x00\x00\x04\x0f".to_vec();
        expected.resize(10 + zeroes, 0);
        assert_eq!(output, expected);
    }
}

#[test]
fn an_unknown_export_name_closes() {
    let (step, output) = feed(&mut begun(3), &option(1, b"third\n"));
    assert_eq!(step, Step::Closed(Ending::Refused("there is no export \"third\\n\"".into())));
    assert!(output.is_empty());
}

#[test]
fn go_tells_all_that_was_asked_and_the_export_always() {
    let mut handshake = begun(3);
    let (step, output) = feed(&mut handshake, &option(7, &info_data(b"", &[3, 1, 2, 99])));
    let Step::Chosen { export: 0, session } = step else { panic!("{step:?}") };
    assert!(!session.structured && session.selected() == 0);
    let kinds: Vec<_> = replies(&output).into_iter().map(|(_, kind, data)| (kind, data)).collect();
    assert_eq!(
        kinds,
        [
            // FLUSH, FUA, TRIM, WRITE_ZEROES, CAN_MULTI_CONN, CACHE.
            (3, b"\x00\x00\x00\x00\x00\x00\x00\x10\x00\x00\x05\x6d".to_vec()),
            (3, b"\x00\x01first".to_vec()),
            (3, b"\x00\x02the first".to_vec()),
            (3, b"\x00\x03\x00\x00\x00\x01\x00\x00\x10\x00\x02\x00\x00\x00".to_vec()),
            (ACK, vec![]),
        ]
    );
}

#[test]
fn info_answers_as_go_does_and_stays() {
    let mut handshake = begun(3);
    let told = ask(&mut handshake, 6, &info_data(b"second", &[1]));
    assert_eq!(told.last().map(|reply| reply.1), Some(ACK));
    let (step, output) = feed(&mut handshake, &option(7, &info_data(b"second", &[1])));
    assert!(matches!(step, Step::Chosen { export: 1, .. }));
    let strip = |replies: Vec<(u32, u32, Vec<u8>)>| -> Vec<_> {
        replies.into_iter().map(|(_, kind, data)| (kind, data)).collect()
    };
    assert_eq!(strip(replies(&output)), strip(told));
}

#[test]
fn a_failed_go_leaves_the_negotiation_open() {
    let mut handshake = begun(3);
    refused(&ask(&mut handshake, 7, &info_data(b"third", &[])), error::UNKNOWN);
    refused(&ask(&mut handshake, 7, b"\x00\x00\x00\x09short\x00\x00"), error::INVALID);
    refused(&ask(&mut handshake, 6, b""), error::INVALID);
    let (step, _) = feed(&mut handshake, &option(7, &info_data(b"first", &[])));
    assert!(matches!(step, Step::Chosen { export: 0, .. }));
}

#[test]
fn list_names_the_exports() {
    let mut handshake = begun(3);
    let replies = ask(&mut handshake, 3, b"");
    assert_eq!(
        replies,
        [
            (3, 2, b"\x00\x00\x00\x05firstthe first".to_vec()),
            (3, 2, b"\x00\x00\x00\x06second".to_vec()),
            (3, ACK, vec![]),
        ]
    );
    refused(&ask(&mut handshake, 3, b"x"), error::INVALID);
}

#[test]
fn abort_is_acknowledged_whatever_it_brings() {
    for data in [&b""[..], b"bye"] {
        let (step, output) = feed(&mut begun(3), &option(2, data));
        assert_eq!(step, Step::Closed(Ending::Aborted));
        acknowledged(&replies(&output));
    }
}

#[test]
fn structured_replies_switch_df_on() {
    let mut handshake = begun(3);
    refused(&ask(&mut handshake, 8, b"x"), error::INVALID);
    acknowledged(&ask(&mut handshake, 8, b""));
    let told = ask(&mut handshake, 6, &info_data(b"", &[]));
    assert_eq!(told[0].2[10..], [0x05, 0x6d | 0x80]);
}

#[test]
fn options_that_are_not_offered_are_refused_and_consumed() {
    let mut handshake = begun(3);
    for number in [4, 5, 11, 12, 0, u32::MAX] {
        refused(&ask(&mut handshake, number, b""), error::UNSUP);
        refused(&ask(&mut handshake, number, b"some data"), error::UNSUP);
    }
    assert_eq!(ask(&mut handshake, 3, b"").len(), 3);
}

#[test]
fn metadata_contexts_need_structured_replies() {
    let mut handshake = begun(3);
    for number in [9, 10] {
        refused(&ask(&mut handshake, number, &context_data(b"first", &[])), error::INVALID);
    }
}

#[test]
fn metadata_contexts_are_listed() {
    let mut handshake = begun(3);
    acknowledged(&ask(&mut handshake, 8, b""));
    let queries: [(&[&[u8]], bool); 7] = [
        (&[], true),
        (&[b"base:"], true),
        (&[b"base:allocation"], true),
        (&[b"qemu:dirty-bitmap:x", b"base:allocation", b"base:allocation"], true),
        (&[b"base:other"], false),
        (&[b"qemu:"], false),
        (&[b"no colon", b""], false),
    ];
    for (queries, found) in queries {
        let replies = ask(&mut handshake, 9, &context_data(b"", queries));
        let names: Vec<_> = replies.iter().filter(|reply| reply.1 == 4).map(|reply| &reply.2[..]).collect();
        assert_eq!(names, if found { vec![&b"\0\0\0\0base:allocation"[..]] } else { vec![] }, "{queries:?}");
        assert_eq!(replies.last().map(|reply| reply.1), Some(ACK));
    }
    refused(&ask(&mut handshake, 9, &context_data(b"third", &[])), error::UNKNOWN);
    refused(&ask(&mut handshake, 9, b"\0\0\0\0\0\0\0\x01"), error::INVALID);
}

/// Does the session that GO leads to have block status?
fn block_status_after(handshake: &mut Handshake, name: &[u8]) -> bool {
    match feed(handshake, &option(7, &info_data(name, &[]))).0 {
        Step::Chosen { session, .. } => session.base_allocation,
        step => panic!("{step:?}"),
    }
}

#[test]
fn a_metadata_context_is_selected_for_its_export_only() {
    let select = |name: &[u8], queries: &[&[u8]]| {
        let mut handshake = begun(3);
        acknowledged(&ask(&mut handshake, 8, b""));
        let replies = ask(&mut handshake, 10, &context_data(name, queries));
        (replies.len() == 2, handshake)
    };
    let (selected, mut handshake) = select(b"first", &[b"base:allocation", b"x:y"]);
    assert!(selected && block_status_after(&mut handshake, b"first"));
    // The default export by its own name is the same export.
    let (selected, mut handshake) = select(b"", &[b"base:allocation"]);
    assert!(selected && block_status_after(&mut handshake, b"first"));
    let (selected, mut handshake) = select(b"second", &[b"base:allocation"]);
    assert!(selected && !block_status_after(&mut handshake, b"first"));
    // The wildcard lists, it does not select; and no query selects nothing.
    for queries in [&[&b"base:"[..]][..], &[]] {
        let (selected, mut handshake) = select(b"first", queries);
        assert!(!selected && !block_status_after(&mut handshake, b"first"));
    }
}

#[test]
fn a_selection_that_fails_undoes_the_one_before() {
    for failing in [context_data(b"third", &[b"base:allocation"]), b"junk".to_vec(), vec![0; 100_000]] {
        let mut handshake = begun(3);
        acknowledged(&ask(&mut handshake, 8, b""));
        ask(&mut handshake, 10, &context_data(b"first", &[b"base:allocation"]));
        assert_eq!(ask(&mut handshake, 10, &failing).len(), 1);
        assert!(!block_status_after(&mut handshake, b"first"));
    }
}

/// Asks about contexts of the second export; what it is asked is as expected, and `names` are there.
fn contexts(number: u32, queries: &[&[u8]], asked: &[&str], names: &[&str]) -> (Handshake, Vec<u8>) {
    let mut handshake = begun(3);
    acknowledged(&ask(&mut handshake, 8, b""));
    let (step, output) = feed(&mut handshake, &option(number, &context_data(b"second", queries)));
    if asked.is_empty() {
        assert_eq!(step, Step::Answered, "{queries:?}");
        return (handshake, output);
    }
    let queries = asked.iter().map(|&query| query.to_owned()).collect();
    assert_eq!((step, output), (Step::Contexts { export: 1, queries, select: number == 10 }, Vec::new()));
    let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
    let mut output = BytesMut::new();
    handshake.tell_contexts(&names, &mut output);
    (handshake, output.to_vec())
}

/// The numbers and names that were told.
fn told(output: &[u8]) -> Vec<(u32, String)> {
    let replies = replies(output);
    assert_eq!(replies.last().map(|reply| reply.1), Some(ACK));
    let told = replies.iter().filter(|reply| reply.1 == 4);
    told.map(|(_, _, data)| ((&data[..4]).get_u32(), String::from_utf8_lossy(&data[4..]).into_owned()))
        .collect()
}

#[test]
fn an_export_is_asked_for_its_own_contexts() {
    let name = |number: u32, name: &str| (number, name.to_owned());
    let (base, a, b) = ("base:allocation", "own:a", "own:b");
    for queries in [&[][..], &[&b"own:"[..], b"base:"]] {
        let (_, output) = contexts(9, queries, &["own:"], &[a, b]);
        assert_eq!(told(&output), [name(0, base), name(0, a), name(0, b)]);
    }
    // Of other namespaces, and of what is no text, it hears nothing.
    let (_, output) = contexts(9, &[b"qemu:x", b"own", b"own:\xff", b"base:"], &[], &[]);
    assert_eq!(told(&output), [name(0, base)]);
    let queries: &[&[u8]] = &[b"own:a", b"base:allocation", b"own:no", b"own:", b"own:a", b"own:b"];
    let (mut handshake, output) = contexts(10, queries, &["own:a", "own:no", "own:b"], &[a, b]);
    assert_eq!(told(&output), [name(1, base), name(2, a), name(3, b)]);
    let Step::Chosen { session, .. } = feed(&mut handshake, &option(7, &info_data(b"second", &[]))).0 else {
        panic!("it is there");
    };
    assert_eq!((session.base_allocation, session.contexts), (true, 2));
}

#[test]
fn contexts_of_an_export_alone_and_of_the_last_selection_alone() {
    let (mut handshake, output) = contexts(10, &[b"own:a"], &["own:a"], &["own:a"]);
    assert_eq!(told(&output), [(2, "own:a".to_owned())]);
    let session =
        |handshake: &mut Handshake, name: &[u8]| match feed(handshake, &option(7, &info_data(name, &[]))).0 {
            Step::Chosen { session, .. } => session,
            step => panic!("{step:?}"),
        };
    assert_eq!(session(&mut handshake, b"first").selected(), 0);
    let (mut handshake, _) = contexts(10, &[b"own:a"], &["own:a"], &["own:a"]);
    assert!(!session(&mut handshake, b"second").base_allocation);
    let (mut handshake, _) = contexts(10, &[b"own:a"], &["own:a"], &["own:a"]);
    ask(&mut handshake, 10, &context_data(b"second", &[b"base:allocation"]));
    let last = session(&mut handshake, b"second");
    assert_eq!((last.base_allocation, last.contexts), (true, 0));
}

/// Rule 10: the answer of a request grows with each context.
#[test]
fn too_many_contexts_are_refused() {
    let mut handshake = begun(3);
    acknowledged(&ask(&mut handshake, 8, b""));
    let queries: &[&[u8]] = &[b"own:a", b"own:b", b"own:c", b"own:d"];
    refused(&ask(&mut handshake, 10, &context_data(b"second", queries)), error::TOO_BIG);
    assert!(!block_status_after(&mut handshake, b"second"));
}

#[test]
fn unknown_client_flags_close() {
    for flags in [4_u32, 0x8000_0001, u32::MAX] {
        let (step, output) = feed(&mut Handshake::new(catalog()), &flags.to_be_bytes());
        assert!(matches!(step, Step::Closed(Ending::Violation(_))), "{step:?}");
        assert!(output.is_empty());
    }
}

#[test]
fn bad_option_magic_closes() {
    let (step, _) = feed(&mut begun(3), b"IHAVENOTHING    ");
    assert!(matches!(step, Step::Closed(Ending::Violation(_))), "{step:?}");
}

/// Bytes are refused before they are buffered, and what follows them is understood.
#[test]
fn too_long_options_are_skipped_or_close() {
    let mut handshake = begun(3);
    let long = option(6, &vec![7; OPTION_BYTES_MAX as usize + 1]);
    for part in long[..long.len() - 1].chunks(1000) {
        assert_eq!(feed(&mut handshake, part), (Step::NeedInput, vec![]));
    }
    let (step, output) = feed(&mut handshake, &long[long.len() - 1..]);
    assert_eq!(step, Step::Answered);
    refused(&replies(&output), error::TOO_BIG);
    assert_eq!(ask(&mut handshake, 3, b"").len(), 3);

    let absurd = [&b"IHAVEOPT\0\0\0\x06"[..], &(OPTION_BYTES_ABSURD + 1).to_be_bytes()].concat();
    assert!(matches!(feed(&mut handshake, &absurd).0, Step::Closed(Ending::Violation(_))));
    let long_name = [&b"IHAVEOPT\0\0\0\x01"[..], &(OPTION_BYTES_MAX + 1).to_be_bytes()].concat();
    assert!(matches!(feed(&mut begun(3), &long_name).0, Step::Closed(Ending::Refused(_))));
}

#[test]
fn endless_haggling_closes() {
    let mut handshake = begun(3);
    for _ in 0..OPTIONS_MAX {
        ask(&mut handshake, 99, b"");
    }
    assert!(matches!(feed(&mut handshake, &option(99, b"")).0, Step::Closed(Ending::Violation(_))));
}

#[test]
fn at_shutdown_only_goodbye_is_accepted() {
    let mut handshake = begun(3);
    handshake.shut_down();
    for (number, data) in
        [(3, vec![]), (6, info_data(b"", &[])), (7, info_data(b"", &[])), (8, vec![]), (99, vec![])]
    {
        refused(&ask(&mut handshake, number, &data), error::SHUTDOWN);
    }
    assert_eq!(feed(&mut handshake, &option(2, b"")).0, Step::Closed(Ending::Aborted));
    let mut handshake = begun(3);
    handshake.shut_down();
    assert!(matches!(feed(&mut handshake, &option(1, b"first")).0, Step::Closed(Ending::Refused(_))));
}

/// Runs all of `input`, split where `cuts` say, to the first step that ends the negotiation.
fn run(input: &[u8], cuts: &[usize]) -> (Vec<u8>, Option<Step>) {
    let mut handshake = Handshake::new(catalog());
    let (mut buffer, mut output) = (BytesMut::new(), BytesMut::new());
    let mut rest = input;
    let mut cuts = cuts.iter().cycle();
    loop {
        match handshake.advance(&mut buffer, &mut output) {
            Step::Answered => {}
            Step::Contexts { queries, .. } => handshake.tell_contexts(&queries, &mut output),
            Step::NeedInput if rest.is_empty() => return (output.to_vec(), None),
            Step::NeedInput => {
                let count = cuts.next().map_or(rest.len(), |cut| (*cut).clamp(1, rest.len()));
                buffer.extend_from_slice(&rest[..count]);
                rest = &rest[count..];
            }
            step => return (output.to_vec(), Some(step)),
        }
    }
}

fn options() -> impl Strategy<Value = Vec<u8>> {
    let name = prop::sample::select(vec![&b""[..], b"first", b"second", b"third"]);
    let query = prop::sample::select(vec![&b"base:"[..], b"base:allocation", b"own:x", b"x:", b""]);
    let one = prop_oneof![
        4 => (prop::sample::select(vec![3_u32, 5, 8, 11, 99]), prop::collection::vec(any::<u8>(), 0..3))
            .prop_map(|(number, data)| option(number, &data)),
        4 => (prop::sample::select(vec![6_u32, 9, 10]), name.clone(), prop::collection::vec(query, 0..3))
            .prop_map(|(number, name, queries)| match number {
                6 => option(6, &info_data(name, &[1, 3])),
                number => option(number, &context_data(name, &queries)),
            }),
        1 => (0..13_u32, prop::collection::vec(any::<u8>(), 0..40))
            .prop_map(|(number, data)| option(number, &data)),
        1 => name.prop_map(|name| option(7, &info_data(name, &[]))),
    ];
    prop::collection::vec(one, 0..12).prop_map(|options| options.concat())
}

proptest! {
    /// Where the stream is cut makes no difference.
    #[test]
    fn cuts_do_not_matter(options in options(), cuts in prop::collection::vec(1..30_usize, 1..8)) {
        let input = [&3_u32.to_be_bytes()[..], &options].concat();
        prop_assert_eq!(run(&input, &cuts), run(&input, &[]));
    }

    /// Garbage in any place neither panics nor loops.
    #[test]
    fn garbage_is_survived(
        options in options(),
        place in any::<prop::sample::Index>(),
        garbage in prop::collection::vec(any::<u8>(), 1..40),
    ) {
        let mut input = [&3_u32.to_be_bytes()[..], &options].concat();
        let place = place.index(input.len());
        input.splice(place.., garbage);
        run(&input, &[]);
    }
}
