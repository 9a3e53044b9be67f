//! What clients of an open volume saw: does each sector behave like one register?
//!
//! Knows nothing of crashes. Values are unique, so the test of Gibbons and Korach ("Testing shared memories", 1997)
//! is exact for each sector: a value's zone runs from the first answer to the last submission among its write and
//! its reads. Two forward zones that overlap, or a backward one inside a forward one, can not be ordered. Zeroes have
//! many possible writers; for them only the existence of an allowed one is asked.

use std::collections::BTreeMap;

use super::Violation;
use super::units::Units;
use crate::history::{Generation, NEVER, Outcome, Request, Tick};
use crate::sector::Value;

/// Pairs of units of which reads showed that the first came before the second.
pub(super) type Shown = Vec<(usize, usize)>;

/// A read of one sector.
struct Look {
    submit: Tick,
    done: Tick,
    value: Value,
}

/// Judges the reads of a generation, and gives what they show of the order of its writes.
pub(super) fn judge(generation: &Generation, base: &[Value], units: &Units) -> Result<Shown, Violation> {
    let mut looks: BTreeMap<u32, Vec<Look>> = BTreeMap::new();
    for op in &generation.ops {
        if let (Request::Read { first, values }, Outcome::Done(done)) = (&op.request, op.outcome) {
            for (sector, value) in (*first..).zip(values) {
                looks.entry(sector).or_default().push(Look { submit: op.submit, done, value: *value });
            }
        }
    }
    let mut shown = Shown::new();
    for (sector, looks) in &looks {
        judge_sector(generation.epoch, *sector, looks, base[*sector as usize], units, &mut shown)?;
    }
    shown.sort_unstable();
    shown.dedup();
    Ok(shown)
}

/// From the first answer to the last submission of all that touched one value.
struct Zone {
    first_done: Tick,
    last_submit: Tick,
    what: String,
}

fn judge_sector(
    epoch: u64,
    sector: u32,
    looks: &[Look],
    base: Value,
    units: &Units,
    shown: &mut Shown,
) -> Result<(), Violation> {
    let mut zones: BTreeMap<usize, Zone> = units
        .covering(sector)
        .map(|unit| {
            let it = &units.all[unit];
            (unit, Zone { first_done: it.done, last_submit: it.submit, what: it.name() })
        })
        .collect();
    let mut base_zone = Zone { first_done: 0, last_submit: 0, what: "what was found at opening".to_owned() };
    for look in looks {
        let unit = match look.value {
            Value::Zero => {
                judge_zero(epoch, sector, look, base, units)?;
                continue;
            }
            value if value == base => None,
            Value::Write(id) => {
                let foreign = || {
                    let what = format!("write {id}, which was never asked there in epoch {epoch}");
                    Violation::new(
                        1,
                        format!("a read of sector {sector} at tick {} gave {what}", look.submit),
                    )
                };
                Some(units.writer(sector, id).ok_or_else(foreign)?)
            }
        };
        let zone = unit.map_or(&mut base_zone, |unit| zones.get_mut(&unit).expect("what covers has a zone"));
        zone.first_done = zone.first_done.min(look.done);
        zone.last_submit = zone.last_submit.max(look.submit);
        if let Some(unit) = unit {
            judge_seen(epoch, sector, look, unit, units)?;
            show(sector, look, unit, units, shown);
        }
    }
    let mut zones: Vec<Zone> = zones.into_values().filter(|zone| zone.first_done != NEVER).collect();
    zones.push(base_zone);
    judge_zones(epoch, sector, &mut zones)
}

fn judge_seen(epoch: u64, sector: u32, look: &Look, unit: usize, units: &Units) -> Result<(), Violation> {
    let it = &units.all[unit];
    let trouble = if it.submit > look.done {
        "before it was asked"
    } else if it.refused {
        "although it was answered with an error"
    } else {
        return Ok(());
    };
    let what = format!(
        "a read of sector {sector} at tick {} in epoch {epoch} gave {} {trouble}",
        look.submit,
        it.name()
    );
    Err(Violation::new(1, what))
}

/// A read that gave `unit` comes after what was done before the read, and before what was asked after it: so does
/// `unit` itself.
fn show(sector: u32, look: &Look, unit: usize, units: &Units, shown: &mut Shown) {
    for other in units.covering(sector).filter(|other| *other != unit) {
        if units.all[other].done < look.submit {
            shown.push((other, unit));
        }
        if look.done < units.all[other].submit {
            shown.push((unit, other));
        }
    }
}

fn judge_zero(epoch: u64, sector: u32, look: &Look, base: Value, units: &Units) -> Result<(), Violation> {
    // Overwritten for certain: something else was submitted after it was done, and was done before the read.
    let gone = |done: Tick| {
        units
            .covering(sector)
            .map(|unit| &units.all[unit])
            .any(|u| u.id != 0 && done < u.submit && u.done < look.submit)
    };
    let from_base = base == Value::Zero && !gone(0);
    let from_unit = units
        .covering(sector)
        .map(|unit| &units.all[unit])
        .any(|unit| unit.id == 0 && !unit.refused && unit.submit < look.done && !gone(unit.done));
    if from_base || from_unit {
        return Ok(());
    }
    let what = format!(
        "a read of sector {sector} at tick {} in epoch {epoch} gave zeroes that were overwritten",
        look.submit
    );
    Err(Violation::new(1, what))
}

fn judge_zones(epoch: u64, sector: u32, zones: &mut [Zone]) -> Result<(), Violation> {
    let clash = |a: &Zone, b: &Zone| {
        let what = format!(
            "in epoch {epoch} reads of sector {sector} went back and forth between {} and {}",
            a.what, b.what
        );
        Err(Violation::new(1, what))
    };
    zones.sort_by_key(|zone| zone.first_done.min(zone.last_submit));
    let mut forward: Option<&Zone> = None;
    for zone in zones.iter() {
        let is_forward = zone.first_done < zone.last_submit;
        if let Some(open) = forward {
            let inside = zone.first_done.max(zone.last_submit) < open.last_submit;
            if inside || (is_forward && zone.first_done < open.last_submit) {
                return clash(open, zone);
            }
        }
        if is_forward {
            forward = Some(zone);
        }
    }
    Ok(())
}
