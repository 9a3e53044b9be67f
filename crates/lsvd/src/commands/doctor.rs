//! `lsvd doctor`: examines a store, and a volume's orphans where there is a volume.
//!
//! Knows how findings are told, and the document of docs/json.md; what is asked, the libraries know. Invariants: a name
//! of a check or verdict, once in docs/json.md, keeps its meaning; what was made is removed also after a signal.

use lsvd_backend::doctor::{Check, Examination, Finding, Measured, Report, Verdict};
use lsvd_backend::{Bucket, BucketUrl};
use lsvd_volume::{OrphanKind, Survey};
use serde::Serialize;

use super::info::SCHEMA_VERSION;
use crate::cli::Doctor;
use crate::exit::{self, Exit};
use crate::process::EndSignals;
use crate::{output, store, units};

/// The check that takes a volume to be asked.
const ORPHANS: &str = "orphans";

#[derive(Serialize)]
struct DoctorJson {
    schema_version: u32,
    url: String,
    place: String,
    verdict: &'static str,
    exit_code: u8,
    findings: Vec<FindingJson>,
    measured: Option<MeasuredJson>,
    volume: Option<SurveyJson>,
    left_behind: Vec<String>,
}

#[derive(Serialize)]
struct FindingJson {
    check: &'static str,
    verdict: &'static str,
    asked: String,
    answered: String,
    advice: String,
}

#[derive(Serialize)]
struct MeasuredJson {
    put_median_us: u64,
    put_longest_us: u64,
    get_median_us: u64,
    get_longest_us: u64,
    list_median_us: u64,
    list_longest_us: u64,
    up_bytes_per_s: Option<u64>,
    down_bytes_per_s: Option<u64>,
    at_once: u64,
}

#[derive(Serialize)]
struct SurveyJson {
    objects: u64,
    bytes: u64,
    orphans: Vec<OrphansJson>,
}

#[derive(Serialize)]
struct OrphansJson {
    kind: &'static str,
    objects: u64,
    bytes: u64,
    newest_unix_ms: i64,
    names: Vec<String>,
}

/// Runs the command.
///
/// # Errors
/// If the store can not even be asked as it is configured. What is wrong with it makes the exit code alone.
pub(crate) async fn run(arguments: Doctor) -> anyhow::Result<Exit> {
    let (url, bucket, examination) =
        store::examination(&arguments.url, &arguments.store, arguments.patience.timeout)?;
    let mut signals = EndSignals::catch()?;
    let (report, orphans, survey) = tokio::select! {
        told = examine(&url, &bucket, &examination) => told,
        signal = signals.next() => return interrupted(signal, &examination, &mut signals).await,
    };
    let exit = exit_of(&report);
    let mut findings: Vec<FindingJson> = report.findings.iter().map(finding).collect();
    // Before what the examination says of itself.
    findings.insert(findings.len().saturating_sub(1), orphans);
    if arguments.json {
        output::json(&DoctorJson {
            schema_version: SCHEMA_VERSION,
            url: url.to_string(),
            place: report.place,
            verdict: worst(&findings),
            exit_code: exit as u8,
            findings,
            measured: report.measured.map(measured),
            volume: survey.map(survey_json),
            left_behind: report.left_behind,
        })?;
    } else {
        print(&report.place, &findings)?;
    }
    Ok(exit)
}

async fn examine(
    url: &BucketUrl,
    bucket: &Bucket,
    examination: &Examination,
) -> (Report, FindingJson, Option<Survey>) {
    let report = examination.run().await;
    let may_list = report.finding(Check::MayList).map(|finding| finding.verdict);
    let (orphans, survey) = match may_list {
        Some(Verdict::Good) => orphans(url, bucket).await,
        _ => (orphans_not_asked("it takes LIST, which fails"), None),
    };
    (report, orphans, survey)
}

/// Removes what was made so far, unless told a second time.
async fn interrupted(
    signal: &str,
    examination: &Examination,
    signals: &mut EndSignals,
) -> anyhow::Result<Exit> {
    tracing::info!("{signal}: removing what was made; another one ends at once");
    let left = tokio::select! {
        left = examination.clean_up() => left,
        _ = signals.next() => return Ok(Exit::Interrupted),
    };
    if !left.is_empty() {
        tracing::warn!("left behind: {}", left.join(", "));
    }
    Ok(Exit::Interrupted)
}

async fn orphans(url: &BucketUrl, bucket: &Bucket) -> (FindingJson, Option<Survey>) {
    if url.volume_name().is_err() {
        return (orphans_not_asked("the URL names no volume"), None);
    }
    let told = |verdict: Verdict, answered: String, advice: String| FindingJson {
        check: ORPHANS,
        verdict: verdict.name(),
        asked: "LIST of the whole volume, and its log".to_owned(),
        answered,
        advice,
    };
    match lsvd_volume::survey(bucket).await {
        Ok(survey) => {
            let finding = match survey.orphans.is_empty() {
                true => {
                    let objects = units::grouped(survey.objects);
                    let bytes = units::bytes_human(survey.bytes);
                    told(Verdict::Good, format!("none among {objects} objects with {bytes}"), String::new())
                }
                false => told(Verdict::Note, orphans_told(&survey), orphans_advice(&survey)),
            };
            (finding, Some(survey))
        }
        Err(lsvd_volume::Error::NotFound { .. }) => (orphans_not_asked("there is no volume here"), None),
        Err(error) => {
            let words = exit::words(&anyhow::Error::new(error));
            (told(Verdict::Unknown, words, "see `lsvd info` of this volume".to_owned()), None)
        }
    }
}

fn orphans_not_asked(why: &str) -> FindingJson {
    FindingJson {
        check: ORPHANS,
        verdict: Verdict::NotAsked.name(),
        asked: "LIST of the whole volume, and its log".to_owned(),
        answered: why.to_owned(),
        advice: String::new(),
    }
}

fn kind_name(kind: OrphanKind) -> &'static str {
    match kind {
        OrphanKind::Probe => "probe",
        OrphanKind::Archived => "archived",
        OrphanKind::Stray => "stray",
        OrphanKind::Checkpoint => "checkpoint",
        OrphanKind::Unknown => "unknown",
    }
}

fn orphans_told(survey: &Survey) -> String {
    let told = survey.orphans.iter().map(|orphans| {
        let newest = units::utc(u64::try_from(orphans.newest_unix_ms).unwrap_or(0));
        format!(
            "{} {} with {}, the newest of {newest}: {}{}",
            units::grouped(orphans.objects),
            kind_name(orphans.kind),
            units::bytes_human(orphans.bytes),
            orphans.names.join(", "),
            if orphans.objects > orphans.names.len() as u64 { ", …" } else { "" }
        )
    });
    told.collect::<Vec<_>>().join("; ")
}

fn orphans_advice(survey: &Survey) -> String {
    let advice = survey.orphans.iter().map(|orphans| match orphans.kind {
        OrphanKind::Probe => "probe: may be removed, unless a daemon is being started just now",
        OrphanKind::Archived => {
            "archived: what a crashed writer had not been told to be durable; remove it when nobody misses writes"
        }
        OrphanKind::Stray => {
            "stray: beyond the end of the log; leave it: a writer may be at work, and the next take-over archives it"
        }
        OrphanKind::Checkpoint => "checkpoint: left over by a writer that crashed; the next daemon deletes them",
        OrphanKind::Unknown => "unknown: no lsvd wrote it under this name; find out whose it is",
    });
    advice.collect::<Vec<_>>().join("; ")
}

/// What the caller can do about it: nothing, as all is well (0); make or name the bucket (6); vouch for a single writer
/// (7); mend the store or choose another (3).
fn exit_of(report: &Report) -> Exit {
    let faults = || report.findings.iter().filter(|finding| finding.verdict == Verdict::Fault);
    let about_creates =
        |finding: &Finding| matches!(finding.check, Check::CreateOnly | Check::CreateOnlyInARace);
    match () {
        () if report.bucket_is_missing => Exit::Existence,
        () if faults().next().is_none() => Exit::Done,
        () if faults().all(about_creates) => Exit::UnsafeStore,
        () => Exit::Store,
    }
}

fn worst(findings: &[FindingJson]) -> &'static str {
    [Verdict::Fault, Verdict::Warning, Verdict::Unknown]
        .into_iter()
        .map(Verdict::name)
        .find(|name| findings.iter().any(|finding| finding.verdict == *name))
        .unwrap_or(Verdict::Good.name())
}

fn finding(finding: &Finding) -> FindingJson {
    FindingJson {
        check: finding.check.name(),
        verdict: finding.verdict.name(),
        asked: finding.asked.to_owned(),
        answered: finding.answered.clone(),
        advice: finding.advice.clone(),
    }
}

fn measured(measured: Measured) -> MeasuredJson {
    MeasuredJson {
        put_median_us: measured.put.median_us,
        put_longest_us: measured.put.longest_us,
        get_median_us: measured.get.median_us,
        get_longest_us: measured.get.longest_us,
        list_median_us: measured.list.median_us,
        list_longest_us: measured.list.longest_us,
        up_bytes_per_s: measured.up_bytes_per_s,
        down_bytes_per_s: measured.down_bytes_per_s,
        at_once: measured.at_once,
    }
}

fn survey_json(survey: Survey) -> SurveyJson {
    let orphans = survey.orphans.into_iter().map(|orphans| OrphansJson {
        kind: kind_name(orphans.kind),
        objects: orphans.objects,
        bytes: orphans.bytes,
        newest_unix_ms: orphans.newest_unix_ms,
        names: orphans.names,
    });
    SurveyJson { objects: survey.objects, bytes: survey.bytes, orphans: orphans.collect() }
}

fn print(place: &str, findings: &[FindingJson]) -> anyhow::Result<()> {
    if !output::is_for_people() {
        let row = |finding: &FindingJson| {
            let texts = [finding.check, finding.verdict, &finding.asked, &finding.answered, &finding.advice];
            texts.map(str::to_owned).to_vec()
        };
        let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
        return Ok(output::table(&["check", "verdict", "asked", "answered", "advice"], &rows)?);
    }
    let row = |finding: &FindingJson| {
        let verdict = match finding.verdict {
            // What must not be overlooked in forty lines.
            "fault" | "warning" => finding.verdict.to_uppercase(),
            verdict => verdict.to_owned(),
        };
        let words = format!("{}: {}", finding.asked, finding.answered);
        let words =
            if finding.advice.is_empty() { words } else { format!("{words}\n→ {}", finding.advice) };
        vec![finding.check.to_owned(), verdict, words]
    };
    let rows: Vec<Vec<String>> = findings.iter().map(row).collect();
    output::line(place)?;
    output::table(&["check", "verdict", "asked: answered → what it means and what to do"], &rows)?;
    let count = |name: &str| findings.iter().filter(|finding| finding.verdict == name).count();
    let (faults, warnings) = (count("fault"), count("warning"));
    Ok(output::line(&format!("{faults} faults, {warnings} warnings"))?)
}
