//! Settings of an S3 bucket under which removal removes nothing, or objects vanish that a volume needs.
//!
//! Knows the answers of GET `?versioning`, `?lifecycle` and `?object-lock`. Invariant: a setting that may not be read is
//! unknown, and one that the store has no request for was not asked; neither is "off".

use super::promises::unescaped;
use super::{Check, Examination, Verdict};
use crate::cloud::ask::Answered;
use crate::scrub::element;

/// Storage classes whose objects must be restored before they can be read.
const CLASSES_AWAY: [&str; 2] = ["GLACIER", "DEEP_ARCHIVE"];

impl Examination {
    pub(super) async fn settings(&self) {
        const CHECKS: [Check; 3] = [Check::Versioning, Check::Lifecycle, Check::ObjectLock];
        if self.s3.is_none() {
            return CHECKS.into_iter().for_each(|check| {
                self.not_asked(check, "only asked of S3: look in the store's own console")
            });
        }
        let versioning = ("versioning", "Versioning", "s3:GetBucketVersioning");
        if let Some(body) = self.setting(Check::Versioning, versioning, &[]).await {
            self.versioning(&body);
        }
        let lifecycle = ("lifecycle", "Lifecycle", "s3:GetLifecycleConfiguration");
        if let Some(body) = self.setting(Check::Lifecycle, lifecycle, &["NoSuchLifecycleConfiguration"]).await
        {
            self.lifecycle(&body);
        }
        let lock = ("object-lock", "ObjectLock", "s3:GetBucketObjectLockConfiguration");
        let none = ["ObjectLockConfigurationNotFoundError", "ObjectLockConfigurationNotFound"];
        if let Some(body) = self.setting(Check::ObjectLock, lock, &none).await {
            self.object_lock(&body);
        }
    }

    /// The body of a setting, or a finding that says why there is none.
    async fn setting(
        &self,
        check: Check,
        (query, root, right): (&'static str, &str, &str),
        codes_none: &[&str],
    ) -> Option<String> {
        let s3 = self.s3.as_ref()?;
        let answered = match self.ask(s3, &[(query, "")]).await {
            Ok(answered) => answered,
            Err(why) => {
                self.tell(check, Verdict::Unknown, why, "");
                return None;
            }
        };
        let code = answered.code();
        // Servers differ in the name of the root (moto: GetBucketVersioningResponse), and some answer with a listing.
        let has_root = answered.body.contains(root) && !answered.body.contains("<ListBucketResult");
        match answered.status {
            200 if has_root => return Some(answered.body),
            _ if codes_none.contains(&code.as_str()) => self.good(check, "none"),
            401 | 403 => {
                let advice = format!(
                    "it takes {right}, which nothing else of lsvd needs; ask whoever owns the bucket"
                );
                self.tell(check, Verdict::Unknown, answered.said(), advice);
            }
            200 | 204 | 400 | 404 | 405 | 501 => self.no_such_request(check, &answered),
            _ => self.tell(check, Verdict::Unknown, answered.said(), ""),
        }
        None
    }

    fn no_such_request(&self, check: Check, answered: &Answered) {
        let said = match answered.status {
            200 | 204 => "it answers something else".to_owned(),
            _ => answered.said(),
        };
        self.not_asked(check, &format!("this store has no such request: {said}"));
    }

    pub(super) fn versioning(&self, body: &str) {
        let check = Check::Versioning;
        match element(body, "Status").map(str::trim) {
            Some("Enabled") => {
                let advice = "what lsvd deletes stays as an old version and is paid for: switch versioning off, or let a \
                              rule with NoncurrentVersionExpiration remove old versions. As a guard against deletion by \
                              mistake it is fine";
                self.tell(check, Verdict::Warning, "enabled", advice);
            }
            Some("Suspended") => {
                let advice = "versions of before stay and are paid for until somebody removes them";
                self.tell(check, Verdict::Note, "suspended", advice);
            }
            Some(other) => {
                self.tell(check, Verdict::Unknown, format!("'{}'", crate::scrub::words(other)), "")
            }
            None => self.good(check, "off"),
        }
    }

    pub(super) fn lifecycle(&self, body: &str) {
        let check = Check::Lifecycle;
        let rules: Vec<Rule> = body
            .split("<Rule>")
            .skip(1)
            .filter_map(|rest| rest.split_once("</Rule>"))
            .map(|(rule, _)| Rule::read(rule))
            .filter(|rule| rule.enabled && rule.may_meet(&self.prefix))
            .collect();
        let told = |rules: &[&Rule]| {
            let told: Vec<String> = rules.iter().map(|rule| rule.told()).collect();
            told.join("; ")
        };
        let deadly: Vec<&Rule> = rules.iter().filter(|rule| rule.expires || rule.moves_away).collect();
        let costly: Vec<&Rule> = rules.iter().filter(|rule| rule.moves && !rule.moves_away).collect();
        if !deadly.is_empty() {
            let advice = "these rules remove or put away objects that the volume needs, by age alone: DATA WILL BE LOST. \
                          Exempt the prefix, or switch them off, before anything is stored";
            self.tell(check, Verdict::Fault, told(&deadly), advice);
        } else if !costly.is_empty() {
            let advice =
                "reads of objects that were moved cost more, and so may their removal before a minimum time";
            self.tell(check, Verdict::Note, told(&costly), advice);
        } else {
            self.good(check, format!("no rule touches current objects here ({} looked at)", rules.len()));
        }
    }

    pub(super) fn object_lock(&self, body: &str) {
        let check = Check::ObjectLock;
        if element(body, "ObjectLockEnabled").map(str::trim) != Some("Enabled") {
            return self.good(check, "off");
        }
        match element(body, "DefaultRetention") {
            Some(retention) => {
                let mode = element(retention, "Mode").unwrap_or("?");
                let time = match (element(retention, "Days"), element(retention, "Years")) {
                    (Some(days), _) => format!("{days} days"),
                    (None, Some(years)) => format!("{years} years"),
                    (None, None) => "a time".to_owned(),
                };
                let answered = crate::scrub::words(&format!("every new object is held for {time} ({mode})"));
                let advice = "what lsvd deletes stays as a held version and is paid for until then; nobody can remove \
                              it. Use a bucket without a default retention, unless that is the purpose";
                self.tell(check, Verdict::Warning, answered, advice);
            }
            None => {
                let advice = "versions that somebody holds can not be removed; none is by default";
                self.tell(check, Verdict::Note, "enabled, without a default retention", advice);
            }
        }
    }
}

/// A lifecycle rule, as far as it is of interest.
struct Rule {
    id: String,
    enabled: bool,
    prefix: String,
    /// It takes a tag to meet it, and no object of a volume has tags.
    tagged: bool,
    expires: bool,
    moves: bool,
    /// To a class from which objects must be restored.
    moves_away: bool,
    what: String,
}

impl Rule {
    fn read(rule: &str) -> Rule {
        // What is said of old versions and of unfinished uploads concerns no current object.
        let expiration = element(rule, "Expiration");
        let expires = expiration
            .is_some_and(|expiration| element(expiration, "Days").or(element(expiration, "Date")).is_some());
        let moves: Vec<&str> = rule
            .split("<Transition>")
            .skip(1)
            .filter_map(|rest| rest.split_once("</Transition>"))
            .map(|(transition, _)| transition)
            .collect();
        let classes: Vec<&str> =
            moves.iter().filter_map(|transition| element(transition, "StorageClass")).collect();
        let after = |action: &str| match (element(action, "Days"), element(action, "Date")) {
            (Some(days), _) => format!("after {days} days"),
            (None, Some(date)) => format!("on {date}"),
            (None, None) => "at some time".to_owned(),
        };
        let mut what: Vec<String> = Vec::new();
        if let Some(expiration) = expiration.filter(|_| expires) {
            what.push(format!("removes {}", after(expiration)));
        }
        what.extend(moves.iter().map(|transition| {
            format!("moves to {} {}", element(transition, "StorageClass").unwrap_or("?"), after(transition))
        }));
        Rule {
            id: element(rule, "ID").map(unescaped).unwrap_or_default(),
            enabled: element(rule, "Status").map(str::trim) == Some("Enabled"),
            prefix: element(rule, "Prefix").map(unescaped).unwrap_or_default(),
            tagged: rule.contains("<Tag>"),
            expires,
            moves: !moves.is_empty(),
            moves_away: classes.iter().any(|class| CLASSES_AWAY.contains(class)),
            what: what.join(" and "),
        }
    }

    /// Whether it can meet objects below `prefix`: one of the two begins with the other.
    fn may_meet(&self, prefix: &str) -> bool {
        let ours = if prefix.is_empty() { String::new() } else { format!("{prefix}/") };
        !self.tagged && (ours.starts_with(&self.prefix) || self.prefix.starts_with(&ours))
    }

    fn told(&self) -> String {
        crate::scrub::words(&format!("rule '{}' on '{}*' {}", self.id, self.prefix, self.what))
    }
}
