//! The plot: panels of lines over time, one under the other, as an SVG of a few KiB.
//!
//! Knows samples and no outage but its two ends. Draws with what SVG has and nothing else.

use super::Sample;

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 44.0;
const PANEL: f64 = 104.0;
const GAP: f64 = 36.0;
/// So many points to a line at most: each is the highest of its span, so that no peak is hidden.
const POINTS: usize = 210;

struct Panel {
    title: &'static str,
    lines: &'static [Line],
}

struct Line {
    name: &'static str,
    colour: &'static str,
    of: fn(&Sample) -> f64,
}

const PANELS: &[Panel] = &[
    Panel {
        title: "client (MiB/s)",
        lines: &[
            Line { name: "writes", colour: "#c2410c", of: |s| s.write_mib_per_s },
            Line { name: "reads", colour: "#1d4ed8", of: |s| s.read_mib_per_s },
        ],
    },
    Panel {
        title: "flushes answered (a second)",
        lines: &[Line { name: "flushes", colour: "#0f766e", of: |s| s.flushes }],
    },
    Panel {
        title: "memory (MiB)",
        lines: &[
            Line { name: "the daemon's", colour: "#6d28d9", of: |s| s.memory_mib },
            Line { name: "accepted and not stored", colour: "#be185d", of: |s| s.buffered_mib },
        ],
    },
    Panel {
        title: "requests at the store",
        lines: &[Line { name: "in flight", colour: "#334155", of: |s| s.in_flight }],
    },
];

/// Draws `samples`; the store was away between the two seconds.
pub(super) fn svg(title: &str, samples: &[Sample], (from, to): (f64, f64)) -> String {
    let end = samples.last().map_or(1.0, |sample| sample.second).max(to);
    let height = TOP + PANELS.len() as f64 * (PANEL + GAP);
    let x = |second: f64| LEFT + (WIDTH - LEFT - RIGHT) * second / end;
    let mut out = String::new();
    let mut put = |text: String| {
        out.push_str(&text);
        out.push('\n');
    };
    put(format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">"#
    ));
    put(format!(r##"<rect width="{WIDTH}" height="{height}" fill="#fff"/>"##));
    put(format!(r#"<text x="{LEFT}" y="20" font-size="14">{title}</text>"#));
    for (nth, panel) in PANELS.iter().enumerate() {
        let top = TOP + nth as f64 * (PANEL + GAP);
        let bottom = top + PANEL;
        let values = panel.lines.iter().flat_map(|line| samples.iter().map(line.of));
        let most = nice(values.fold(0.0, f64::max));
        let y = |value: f64| bottom - PANEL * value / most;
        put(format!(
            r##"<rect x="{:.1}" y="{top}" width="{:.1}" height="{PANEL}" fill="#fde8e8"/>"##,
            x(from),
            x(to) - x(from)
        ));
        for part in 0..=2 {
            let value = most * f64::from(part) / 2.0;
            put(format!(
                r##"<path d="M{LEFT} {0:.1}H{1:.1}" stroke="#ddd"/><text x="{2:.1}" y="{3:.1}" text-anchor="end">{value}</text>"##,
                y(value),
                WIDTH - RIGHT,
                LEFT - 6.0,
                y(value) + 4.0
            ));
        }
        put(format!(r#"<text x="{LEFT}" y="{:.1}">{}</text>"#, top - 6.0, panel.title));
        let mut name_x = WIDTH - RIGHT;
        for line in panel.lines {
            put(format!(
                r#"<text x="{name_x:.1}" y="{:.1}" text-anchor="end" fill="{}">{}</text>"#,
                top - 6.0,
                line.colour,
                line.name
            ));
            name_x -= 7.0 * line.name.len() as f64 + 16.0;
            let points: Vec<String> = thinned(samples, line.of)
                .map(|(second, value)| format!("{:.1},{:.1}", x(second), y(value)))
                .collect();
            put(format!(
                r#"<polyline fill="none" stroke="{}" stroke-width="1.4" points="{}"/>"#,
                line.colour,
                points.join(" ")
            ));
        }
    }
    let base = height - GAP + 14.0;
    let minutes = (end / 60.0).floor();
    let step = if minutes > 8.0 { 2.0 } else { 1.0 };
    let mut minute = 0.0;
    while minute <= minutes {
        put(format!(
            r#"<text x="{:.1}" y="{base:.1}" text-anchor="middle">{minute}</text>"#,
            x(minute * 60.0)
        ));
        minute += step;
    }
    put(format!(r#"<text x="{:.1}" y="{:.1}" text-anchor="end">minutes</text>"#, WIDTH - RIGHT, base + 15.0));
    put("</svg>".to_owned());
    out
}

/// A round number at or above `value`, for the end of an axis.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|&end| end >= value).unwrap_or(10.0 * power)
}

fn thinned(samples: &[Sample], of: fn(&Sample) -> f64) -> impl Iterator<Item = (f64, f64)> {
    let span = samples.len().div_ceil(POINTS).max(1);
    samples.chunks(span).map(move |chunk| {
        let highest = chunk.iter().map(of).fold(0.0, f64::max);
        (chunk[chunk.len() / 2].second, highest)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_end_at_round_numbers() {
        for (value, end) in [(0.3, 0.4), (6.1, 8.0), (10.0, 10.0), (101.0, 200.0), (441.0, 600.0)] {
            assert!((nice(value) - end).abs() < 1e-9, "{value}: {}", nice(value));
        }
        assert!(nice(0.0) > 0.0);
    }

    #[test]
    fn a_plot_is_small_and_hides_no_peak() {
        let mut samples: Vec<Sample> =
            (0..3_600).map(|n| Sample { second: f64::from(n), ..Sample::default() }).collect();
        samples[1_234].memory_mib = 777.0;
        let svg = svg("a title", &samples, (600.0, 1_200.0));
        assert!(svg.len() < 40 << 10, "{} bytes", svg.len());
        assert!(thinned(&samples, |s| s.memory_mib).any(|(_, value)| value == 777.0));
        assert_eq!(svg.matches("<polyline").count(), 6);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
