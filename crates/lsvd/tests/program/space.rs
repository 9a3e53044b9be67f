//! What a volume takes of its bucket: the options of checkpoints and collection, and what is said and done about it.

use crate::rig::{Rig, lsvd};

/// What can not be is refused before anything is opened, and says what can.
#[test]
fn options_that_can_not_be() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    let url = rig.url("db1");
    let before = rig.objects("db1", "superblock");
    for (options, words) in [
        (&["--delete-after", "60s"][..], "not longer than --io-timeout 60s"),
        (&["--io-timeout", "2s", "--delete-after", "1s"], "not longer than --io-timeout 2s"),
        (&["--gc-target", "1.0"], "1.05 to 100"),
        (&["--gc-target", "much"], "write it as 1.3, or off"),
        (&["--map-memory", "1MB"], "power of 1,024"),
    ] {
        let listen = format!("unix:{}", rig.path("s").display());
        let mut arguments = vec!["serve", &url, "--listen", &listen];
        arguments.extend(options);
        lsvd(&arguments).expect(2, &[words]);
    }
    assert_eq!(rig.objects("db1", "superblock"), before);
}

/// The defaults follow a longer --io-timeout, and what can be is taken.
#[test]
fn options_that_can_be() {
    let rig = Rig::new();
    rig.create("db1", "64M");
    for options in [
        &["--io-timeout", "10m"][..],
        &["--io-timeout", "1s", "--delete-after", "2s", "--gc-target", "off", "--map-memory", "0"],
        &["--gc-target", "1.05", "--checkpoint-interval", "10s", "--map-memory", "64M"],
    ] {
        rig.serve("db1", "s", options).stop().expect(0, &[]);
    }
}
