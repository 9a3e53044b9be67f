//! `lsvd top`: what volumes do at this moment, from what their daemons counted between two looks.
//!
//! Knows terminals and pipes: a picture that is drawn anew for people, a line for each volume and interval in a pipe. What the
//! numbers mean, `rates` knows. Daemons that come and go are no error.

mod rates;

use std::collections::BTreeMap;
use std::time::Instant;

use tokio::time::{MissedTickBehavior, interval};

use self::rates::Rates;
use super::status::{self, DaemonJson};
use crate::cli::{ControlPlace, Top};
use crate::control::daemon::VolumeStatus;
use crate::exit::Exit;
use crate::output;

/// Puts the cursor into the upper left corner; each line then erases what was behind it, and the last what is below.
const HOME: &str = "\x1b[H";
const REST_OF_LINE: &str = "\x1b[K\n";
const REST_OF_SCREEN: &str = "\x1b[J";
const CLEAR: &str = "\x1b[2J";

/// What stays the same while a volume is open: process, volume, epoch.
type Key = (u32, String, u64);

/// All volumes at one moment.
struct Look {
    at: Instant,
    volumes: BTreeMap<Key, VolumeStatus>,
}

/// Runs the command.
///
/// # Errors
/// If the one volume that was asked for is not served at the beginning, or the socket that was named can not be asked.
pub(crate) async fn run(arguments: Top) -> anyhow::Result<Exit> {
    let at = ControlPlace { control: arguments.control.clone(), no_control: false };
    let mut before = match &arguments.url {
        None => look(status::ask_all(&at).await?),
        Some(url) => look(vec![status::ask_one(&at, url, &arguments.store, arguments.patience).await?]),
    };
    // From now on by its identity: the store is asked no more.
    let only = arguments.url.as_ref().and_then(|_| before.volumes.keys().next().map(|key| key.1.clone()));
    let for_people = output::is_for_people();
    let mut ticks = interval(arguments.interval);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks.tick().await;
    let mut done = 0;
    if for_people {
        output::text(CLEAR)?;
    } else {
        output::line(&Rates::HEADS.join("\t"))?;
    }
    while arguments.iterations.is_none_or(|iterations| done < iterations) {
        ticks.tick().await;
        let mut now = look(status::ask_all(&at).await?);
        if let Some(only) = &only {
            now.volumes.retain(|key, _| key.1 == *only);
        }
        tell(&before, &now, for_people)?;
        before = now;
        done += 1;
    }
    Ok(Exit::Done)
}

fn look(daemons: Vec<DaemonJson>) -> Look {
    let volumes = daemons.into_iter().flat_map(|daemon| {
        let pid = daemon.status.pid;
        daemon
            .status
            .volumes
            .into_iter()
            .map(move |volume| ((pid, volume.volume_id.clone(), volume.epoch), volume))
    });
    Look { at: Instant::now(), volumes: volumes.collect() }
}

fn tell(before: &Look, now: &Look, for_people: bool) -> std::io::Result<()> {
    let seconds = (now.at - before.at).as_secs_f64();
    // One that was not there before has no rates yet.
    let rates = now.volumes.iter().filter_map(|(key, volume)| {
        let before = before.volumes.get(key)?;
        Some((volume, Rates::between(before, volume, seconds)))
    });
    if !for_people {
        for (volume, rates) in rates {
            output::line(&rates.cells(volume).join("\t"))?;
        }
        return Ok(());
    }
    let mut text = String::from(HOME);
    let mut lines = vec![format!("lsvd top: {} volumes, the last {seconds:.1} s", now.volumes.len())];
    for (volume, rates) in rates {
        lines.push(String::new());
        lines.extend(rates.picture(volume));
    }
    for line in lines {
        text.push_str(&line);
        text.push_str(REST_OF_LINE);
    }
    text.push_str(REST_OF_SCREEN);
    output::text(&text)
}
