//! Names of a log of format 1: their order, their width, their gaps, and what is refused.

use proptest::prelude::*;

use super::*;

fn find(names: &[&str], first: Option<u64>) -> Result<FoundLog, String> {
    let named: Vec<(String, u64)> = names.iter().map(|name| ((*name).to_owned(), 12_288)).collect();
    find_log(&named, first)
}

fn numbers(found: &[Found]) -> Vec<u64> {
    found.iter().map(|found| found.number).collect()
}

#[test]
fn any_width_is_sorted_by_number() {
    for (names, width) in [
        (&["1", "10", "2", "3", "4", "5", "6", "7", "8", "9", "a", "b", "c", "d", "e", "f"][..], 1),
        (&["0001", "0002"], 4),
        (&["0000000000000001"], 16),
        (&["00000000000000000000", "00000000000000000001"], 20),
        (&["0", "1"], 1),
        (&["0fe", "0ff", "100"], 3),
        (&["fe", "ff", "100"], 2),
    ] {
        let first = u64::from_str_radix(names[0], 16).unwrap();
        let log = find(names, Some(first)).unwrap();
        assert_eq!(log.name_digits, width, "{names:?}");
        assert_eq!(numbers(&log.run), (first..first + names.len() as u64).collect::<Vec<_>>(), "{names:?}");
        assert!(log.beyond.is_empty());
    }
}

/// Rule 3: the log ends at its first gap; what lies beyond is known, to be archived.
#[test]
fn the_log_ends_at_its_first_gap() {
    let log = find(&["01", "02", "03", "05", "06", "09"], None).unwrap();
    assert_eq!((numbers(&log.run), numbers(&log.beyond)), (vec![1, 2, 3], vec![5, 6, 9]));
}

#[test]
fn names_that_can_not_be_are_refused_by_name() {
    for (names, first, words) in [
        (&[][..], None, "check the URL"),
        (&["1", "01", "2"], None, "'01' and '1' both are number 1"),
        (&["0a", "0A"], None, "'0A' has capital digits"),
        (&["11111111111111111"], None, "'11111111111111111' has capital digits, or more than 64 bits"),
        (&["8000000000000000"], None, "'8000000000000000' is a number above"),
        (&["0001", "0002", "beef0"], None, "begins"),
        (&["0001", "0002", "cafe", "3"], None, "'3' is not how the others would name number 3"),
        (&["07", "08"], None, "--first-number 7"),
        (&["07", "08"], Some(6), "begins with number 7 and not with 6"),
    ] {
        let found = find(names, first);
        if words == "begins" {
            // Longer names are as good as any: it is beyond the gap.
            assert_eq!(numbers(&found.unwrap().beyond), [0xb_eef0]);
            continue;
        }
        let error = found.unwrap_err();
        assert!(error.contains(words), "{names:?}: {error}");
    }
    assert!(find(&["07", "08"], Some(7)).is_ok());
}

#[test]
fn only_hex_digits_right_below_the_prefix_are_of_the_log() {
    let listed = |name: &str| Listed { name: name.to_owned(), object_bytes: 1, last_modified_unix_ms: 0 };
    for (prefix, name, is) in [
        ("", "01", true),
        ("", "0A", true),
        ("", "x/01", false),
        ("", "01.tmp", false),
        ("", "readme", false),
        ("x/", "x/01", true),
        ("x/", "x/", false),
        ("x/", "01", false),
        ("x/", "x/y/01", false),
    ] {
        assert_eq!(is_named(&listed(name), prefix), is, "{prefix} {name}");
    }
}

proptest! {
    /// Whatever the width and the gaps: run and rest are all that was there, the run is gapless, and the layout gives
    /// each object the name that it has.
    #[test]
    fn nothing_is_lost_and_names_are_found_again(
        first in 0u64..2,
        width in 1usize..20,
        steps in prop::collection::vec(prop_oneof![9 => Just(1u64), 1 => 2u64..5], 0..300),
    ) {
        let mut all = vec![first];
        steps.iter().for_each(|step| all.push(all[all.len() - 1] + step));
        let mut named: Vec<(String, u64)> = all.iter().map(|number| (v1_name(*number, width), *number)).collect();
        named.sort();
        let log = find_log(&named, None).unwrap();
        let found: Vec<u64> = numbers(&log.run).into_iter().chain(numbers(&log.beyond)).collect();
        prop_assert_eq!(&found, &all);
        let gapless = all.windows(2).take_while(|pair| pair[0] + 1 == pair[1]).count() + 1;
        prop_assert_eq!(log.run.len(), gapless);
        for found in log.run.iter().chain(&log.beyond) {
            prop_assert_eq!(found.object_bytes, found.number);
            prop_assert_eq!(&v1_name(found.number, log.name_digits.into()), &found.digits);
        }
        // The next name is as the old writer would have written it.
        let next = found[found.len() - 1] + 1;
        prop_assert_eq!(v1_name(next, log.name_digits.into()), v1_name(next, width));
    }
}
