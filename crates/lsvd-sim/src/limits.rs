//! What a run leaves out of its seed: how a failing one is made small, and a part of the command that plays it again.
//!
//! Knows the names of what can be left out. A limit changes no draw of what is left.

use std::fmt;
use std::str::FromStr;

use crate::happenings::HAPPENINGS;
use crate::scene::Settings;
use crate::weather::{SsdWeather, Weather};

/// What can be left out besides the happenings of `happenings`: of the weather, and of the plot.
const PARTS: [&str; 17] = [
    "slow", "fails", "silent", "late", "conflict", "damage", "outage", "ssd", "second", "doom", "ambush",
    "look", "resize", "snapshot", "rollback", "clone", "remove",
];

/// Ceilings and omissions; none by default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Openings before the last two.
    pub takeovers: Option<u64>,
    /// Clients of a process.
    pub clients: Option<u64>,
    /// Requests of a client.
    pub requests: Option<u64>,
    pub(crate) without: Vec<&'static str>,
}

impl Limits {
    /// Names of all that can be left out.
    pub fn parts() -> impl Iterator<Item = &'static str> {
        PARTS.into_iter().chain(HAPPENINGS.iter().map(|happening| happening.name))
    }

    /// The same without one thing more.
    #[must_use]
    pub fn and_without(mut self, part: &'static str) -> Self {
        if !self.without.contains(&part) {
            self.without.push(part);
        }
        self
    }

    /// Whether something is left out.
    pub fn leaves_out(&self, part: &str) -> bool {
        self.without.contains(&part)
    }

    pub(crate) fn bound(&self, settings: &mut Settings) {
        let bound =
            |value: &mut u64, most: Option<u64>| *value = most.map_or(*value, |most| most.min(*value));
        bound(&mut settings.takeovers, self.takeovers);
        bound(&mut settings.clients_max, self.clients);
        bound(&mut settings.requests_max, self.requests);
    }

    pub(crate) fn clear(&self, weather: &mut Weather) {
        let rates = [
            ("slow", &mut weather.slow),
            ("fails", &mut weather.fails),
            ("silent", &mut weather.silent),
            ("late", &mut weather.lands_late),
            ("conflict", &mut weather.conflict),
            ("damage", &mut weather.damaged),
        ];
        rates.into_iter().filter(|(part, _)| self.leaves_out(part)).for_each(|(_, rate)| *rate = 0);
        if self.leaves_out("outage") {
            weather.outages_ms.clear();
        }
    }

    pub(crate) fn clear_ssd(&self, weather: &mut SsdWeather) {
        if self.leaves_out("ssd") {
            *weather = SsdWeather::calm();
        }
    }
}

impl fmt::Display for Limits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers = [("takeovers", self.takeovers), ("clients", self.clients), ("requests", self.requests)];
        let numbers = numbers.into_iter().filter_map(|(name, most)| Some(format!("{name}={}", most?)));
        let without = self.without.join("+");
        let without = (!without.is_empty()).then(|| format!("without={without}"));
        f.write_str(&numbers.chain(without).collect::<Vec<_>>().join(","))
    }
}

impl FromStr for Limits {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut limits = Self::default();
        for limit in text.split(',').filter(|limit| !limit.is_empty()) {
            let (name, value) = limit.split_once('=').ok_or_else(|| format!("'{limit}' is no NAME=VALUE"))?;
            let number = || value.parse().map(Some).map_err(|_| format!("'{value}' is no number"));
            match name {
                "takeovers" => limits.takeovers = number()?,
                "clients" => limits.clients = number()?.map(|most: u64| most.max(1)),
                "requests" => limits.requests = number()?.map(|most: u64| most.max(1)),
                "without" => {
                    for part in value.split('+') {
                        let known = || Self::parts().collect::<Vec<_>>().join(", ");
                        let found = Self::parts().find(|known| *known == part);
                        let part =
                            found.ok_or_else(|| format!("unknown part '{part}'; known are {}", known()))?;
                        limits = limits.and_without(part);
                    }
                }
                _ => {
                    return Err(format!(
                        "unknown limit '{name}'; known are takeovers, clients, requests, without"
                    ));
                }
            }
        }
        Ok(limits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read_as_they_are_printed() {
        for text in ["", "takeovers=2", "takeovers=2,clients=1,requests=5,without=slow+ambush+kill"] {
            assert_eq!(text.parse::<Limits>().unwrap().to_string(), text);
        }
        assert!("without=rain".parse::<Limits>().unwrap_err().contains("outage"));
        assert!("hosts=1".parse::<Limits>().is_err() && "takeovers".parse::<Limits>().is_err());
    }
}
