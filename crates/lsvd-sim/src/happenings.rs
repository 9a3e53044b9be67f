//! What befalls a process or its host between two takeovers: a table, to which later steps add their own.
//!
//! One row is one kind of event of the plot. Whoever gives the volume a background job (a checkpoint, a round of garbage
//! collection, a snapshot) adds a row that has the process's volume do it; the oracle needs to know of it only if it
//! changes what a client may see. Knows processes and hosts; when a round is due, the script knows.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::sleep;

use crate::process::Process;
use crate::rng::Rng;
use crate::scene::Scene;

/// A kind of event.
pub(crate) struct Happening {
    /// For `--limit without=`.
    pub(crate) name: &'static str,
    /// How often, of a thousand times.
    per_mille: u64,
    befall: fn(&Arc<Process>, &mut Rng),
}

/// What may befall a process that is not stalled. In the rest of the thousand it is left alone, and the next one takes
/// over from a living one.
pub(crate) const HAPPENINGS: &[Happening] = &[
    Happening { name: "kill", per_mille: 230, befall: |process, _| process.kill() },
    Happening { name: "stall", per_mille: 230, befall: stall },
    Happening { name: "close", per_mille: 80, befall: |process, _| process.close() },
    Happening {
        name: "power",
        per_mille: 90,
        befall: |process, _| on_host(process, |host| host.lose_power()),
    },
    Happening {
        name: "lost-ssd",
        per_mille: 30,
        befall: |process, _| on_host(process, |host| host.lose_ssd()),
    },
    Happening { name: "cut", per_mille: 90, befall: cut },
    Happening {
        name: "full",
        per_mille: 30,
        befall: |process, _| on_host(process, |host| host.set_full(true)),
    },
    Happening {
        name: "room",
        per_mille: 30,
        befall: |process, _| on_host(process, |host| host.set_full(false)),
    },
    Happening { name: "rot", per_mille: 60, befall: |process, rng| process.damage_checkpoint(rng) },
];

/// Draws what befalls a process, or nothing.
pub(crate) fn befall(scene: &Scene, process: &Arc<Process>, rng: &mut Rng) {
    let mut drawn = rng.between(0, 999);
    for happening in HAPPENINGS {
        if drawn < happening.per_mille {
            if !scene.limits.leaves_out(happening.name) {
                (happening.befall)(process, rng);
            }
            return;
        }
        drawn -= happening.per_mille;
    }
}

fn stall(process: &Arc<Process>, rng: &mut Rng) {
    process.set_stalled(true);
    if rng.chance(600) {
        // Up to more than an hour.
        let (process, after) = (Arc::clone(process), Duration::from_millis(rng.spread(100, 4_000_000)));
        tokio::spawn(async move {
            sleep(after).await;
            process.set_stalled(false);
        });
    }
}

/// In the midst of what its journal does.
fn cut(process: &Arc<Process>, rng: &mut Rng) {
    let (operations, power) = (rng.spread(1, 30), rng.chance(600));
    on_host(process, |host| host.cut_after(operations, power));
}

fn on_host(process: &Process, act: impl FnOnce(&crate::host::Host)) {
    if let Some(host) = &process.role.host {
        act(host);
    }
}
