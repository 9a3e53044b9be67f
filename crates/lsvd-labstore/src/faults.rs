//! How the store misbehaves: rules, which of them strikes a request, and how often each did.
//!
//! Knows verbs, keys and chance, and carries out nothing. Invariants: the first rule that fits strikes, and no other; a
//! rule with a count strikes exactly that often.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::numbers::Numbers;
use crate::request::Verb;

/// One way to misbehave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fault {
    /// 503 SlowDown; nothing is done. `ms`, rounded up to seconds, is its Retry-After; default 1 s.
    SlowDown,
    /// The connection is reset as soon as the request's head is there; nothing is done.
    Reset,
    /// No answer, until the client leaves; nothing is done. With `ms`: for that long, and then it is done and answered,
    /// also when the client has left, so that a request may take effect when nobody waits for it any more.
    Hang,
    /// The answer says its length and ends after half of it. GET and LIST only.
    Truncate,
    /// It is done, and the connection is reset instead of an answer.
    LoseAnswer,
    /// A LIST leaves out what was written within the last `ms`; default 5 s.
    StaleListing,
    /// 400 ExpiredToken; nothing is done. What is signed with the rule's `access_key` passes.
    ExpiredToken,
    /// A condition of a PUT is not looked at: it overwrites.
    IgnoreCondition,
}

impl Fault {
    fn fits(self, verb: Verb) -> bool {
        match self {
            Fault::Truncate => matches!(verb, Verb::Get | Verb::List),
            Fault::StaleListing => verb == Verb::List,
            Fault::IgnoreCondition => verb == Verb::Put,
            Fault::SlowDown | Fault::Reset | Fault::Hang | Fault::LoseAnswer | Fault::ExpiredToken => true,
        }
    }

    fn ms_default(self) -> Option<u64> {
        match self {
            Fault::SlowDown => Some(1_000),
            Fault::StaleListing => Some(5_000),
            _ => None,
        }
    }
}

/// When a fault strikes. As JSON: `{"fault": "slow-down", "verbs": ["PUT"], "key": "log/", "rate": 0.2, "count": 5}`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// What happens.
    pub fault: Fault,
    /// To which requests; empty: to all that it can happen to.
    #[serde(default)]
    pub verbs: Vec<Verb>,
    /// Only where the key (for a LIST its prefix) holds this. Default: empty, which all hold.
    #[serde(default)]
    pub key: String,
    /// The probability, from 0 to 1. Default 1.
    #[serde(default = "always")]
    pub rate: f64,
    /// How many requests that fit pass first. Default 0.
    #[serde(default)]
    pub skip: u64,
    /// How often it strikes; `None`: without end.
    #[serde(default)]
    pub count: Option<u64>,
    /// A time in milliseconds that says how; see the fault.
    #[serde(default)]
    pub ms: Option<u64>,
    /// Requests that are signed with this access key id pass.
    #[serde(default)]
    pub access_key: Option<String>,
    /// How often it struck. Said by the store, and passed over where it is told.
    #[serde(default, skip_deserializing)]
    pub struck: u64,
}

fn always() -> f64 {
    1.0
}

impl Rule {
    /// A rule that strikes always.
    pub fn new(fault: Fault) -> Rule {
        Rule {
            fault,
            verbs: Vec::new(),
            key: String::new(),
            rate: always(),
            skip: 0,
            count: None,
            ms: None,
            access_key: None,
            struck: 0,
        }
    }

    /// This verb, beside those that were named before.
    pub fn verb(mut self, verb: Verb) -> Rule {
        self.verbs.push(verb);
        self
    }

    /// Only keys that hold this.
    pub fn key(self, key: &str) -> Rule {
        Rule { key: key.to_owned(), ..self }
    }

    /// With this probability.
    pub fn rate(self, rate: f64) -> Rule {
        Rule { rate, ..self }
    }

    /// After this many requests.
    pub fn skip(self, skip: u64) -> Rule {
        Rule { skip, ..self }
    }

    /// So often and no more.
    pub fn count(self, count: u64) -> Rule {
        Rule { count: Some(count), ..self }
    }

    /// The fault's time, in milliseconds.
    pub fn ms(self, ms: u64) -> Rule {
        Rule { ms: Some(ms), ..self }
    }

    /// Not what is signed with this access key id.
    pub fn but_for_access_key(self, access_key: &str) -> Rule {
        Rule { access_key: Some(access_key.to_owned()), ..self }
    }

    /// Whether it strikes this request; counts.
    fn strikes(&mut self, verb: Verb, key: &str, signer: &str, numbers: &Numbers) -> bool {
        if self.access_key.as_deref().is_some_and(|access_key| access_key == signer) {
            return false;
        }
        let chosen = self.verbs.is_empty() || self.verbs.contains(&verb);
        if !chosen || !self.fault.fits(verb) || !key.contains(&self.key) || self.count == Some(0) {
            return false;
        }
        if self.skip > 0 {
            self.skip -= 1;
            return false;
        }
        if self.rate < 1.0 && numbers.fraction() >= self.rate {
            return false;
        }
        self.count = self.count.map(|count| count - 1);
        self.struck += 1;
        true
    }
}

/// A fault that strikes a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Strike {
    pub(crate) fault: Fault,
    pub(crate) time: Option<Duration>,
}

/// The rules in force.
#[derive(Debug)]
pub(crate) struct Faults {
    rules: Mutex<Vec<Rule>>,
    numbers: Numbers,
}

impl Faults {
    pub(crate) fn new(seed: u64, rules: Vec<Rule>) -> Self {
        Faults { rules: Mutex::new(rules), numbers: Numbers::new(seed) }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Rule>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn add(&self, rules: impl IntoIterator<Item = Rule>) {
        self.lock().extend(rules);
    }

    pub(crate) fn clear(&self) {
        self.lock().clear();
    }

    pub(crate) fn rules(&self) -> Vec<Rule> {
        self.lock().clone()
    }

    /// What strikes this request, if anything does. `signer` is the access key id that signed it, if one did.
    pub(crate) fn draw(&self, verb: Verb, key: &str, signer: &str) -> Option<Strike> {
        let mut rules = self.lock();
        let rule = rules
            .iter_mut()
            .find_map(|rule| rule.strikes(verb, key, signer, &self.numbers).then_some(rule))?;
        let time = rule.ms.or(rule.fault.ms_default()).map(Duration::from_millis);
        Some(Strike { fault: rule.fault, time })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn struck(faults: &Faults, verb: Verb, key: &str, times: usize) -> usize {
        (0..times).filter(|_| faults.draw(verb, key, "").is_some()).count()
    }

    #[test]
    fn rules_choose_by_verb_key_and_count() {
        let rule = Rule::new(Fault::Reset).verb(Verb::Put).key("log/").skip(2).count(3);
        let faults = Faults::new(1, vec![rule]);
        assert_eq!(struck(&faults, Verb::Get, "log/1", 10), 0);
        assert_eq!(struck(&faults, Verb::Put, "superblock/1", 10), 0);
        assert_eq!(struck(&faults, Verb::Put, "log/1", 2), 0);
        assert_eq!(struck(&faults, Verb::Put, "log/1", 10), 3);
        assert_eq!(faults.rules()[0].struck, 3);
        faults.clear();
        assert_eq!(faults.draw(Verb::Put, "log/1", ""), None);
    }

    #[test]
    fn rates_are_met_and_repeat() {
        let run = |seed| {
            let faults = Faults::new(seed, vec![Rule::new(Fault::SlowDown).rate(0.2)]);
            (0..1_000).map(|_| faults.draw(Verb::Get, "k", "").is_some()).collect::<Vec<_>>()
        };
        let drawn = run(7);
        assert_eq!(drawn, run(7));
        let hits = drawn.iter().filter(|hit| **hit).count();
        assert!((150..250).contains(&hits), "{hits}");
    }

    #[test]
    fn faults_happen_only_where_they_can() {
        let rules = [Fault::Truncate, Fault::StaleListing, Fault::IgnoreCondition].map(Rule::new);
        let faults = Faults::new(1, rules.into());
        let of = |verb| faults.draw(verb, "k", "").map(|strike| strike.fault);
        assert_eq!(of(Verb::Get), Some(Fault::Truncate));
        assert_eq!(of(Verb::Put), Some(Fault::IgnoreCondition));
        assert_eq!(of(Verb::Delete), None);
    }

    #[test]
    fn rules_are_read_from_json() {
        let rule: Rule = serde_json::from_str(r#"{"fault":"hang","verbs":["LIST"],"ms":20}"#).unwrap();
        assert_eq!(rule, Rule::new(Fault::Hang).verb(Verb::List).ms(20));
        for bad in [r#"{"fault":"x"}"#, r#"{"fault":"hang","verb":"PUT"}"#, "{}", "7"] {
            assert!(serde_json::from_str::<Rule>(bad).is_err(), "{bad}");
        }
    }
}
