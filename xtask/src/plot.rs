//! Plots: panels of lines over time, one under the other, as an SVG of a few KiB.
//!
//! Knows samples of any kind and nothing of what they are. Draws with what SVG has and nothing else.

const WIDTH: f64 = 860.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 44.0;
const PANEL: f64 = 104.0;
const GAP: f64 = 36.0;
/// So many points to a line at most: each is the highest of its span, so that no peak is hidden.
const POINTS: usize = 210;

/// Lines that share an axis.
pub(crate) struct Panel<S: 'static> {
    pub(crate) title: &'static str,
    pub(crate) lines: &'static [Line<S>],
    /// Where the axis ends, where that is not the highest value: what is above is drawn at its end.
    pub(crate) most: Option<f64>,
}

/// One of them; it has no point where its value is not finite.
pub(crate) struct Line<S> {
    pub(crate) name: &'static str,
    pub(crate) colour: &'static str,
    pub(crate) of: fn(&S) -> f64,
}

/// What is drawn.
pub(crate) struct Plot<'a, S: 'static> {
    pub(crate) title: &'a str,
    pub(crate) panels: &'static [Panel<S>],
    pub(crate) samples: &'a [S],
    /// When a sample was taken, in seconds.
    pub(crate) second: fn(&S) -> f64,
    /// Seconds between which the ground is red.
    pub(crate) shaded: Option<(f64, f64)>,
}

/// Draws it.
pub(crate) fn svg<S>(plot: &Plot<S>) -> String {
    let Plot { title, panels, samples, second, shaded } = *plot;
    let end = samples.last().map_or(1.0, second).max(shaded.map_or(0.0, |(_, to)| to));
    let height = TOP + panels.len() as f64 * (PANEL + GAP);
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
    for (nth, panel) in panels.iter().enumerate() {
        let top = TOP + nth as f64 * (PANEL + GAP);
        let bottom = top + PANEL;
        let values = panel.lines.iter().flat_map(|line| samples.iter().map(line.of));
        let most =
            panel.most.unwrap_or_else(|| nice(values.filter(|value| value.is_finite()).fold(0.0, f64::max)));
        let y = |value: f64| bottom - PANEL * value.min(most) / most;
        if let Some((from, to)) = shaded {
            put(format!(
                r##"<rect x="{:.1}" y="{top}" width="{:.1}" height="{PANEL}" fill="#fde8e8"/>"##,
                x(from),
                x(to) - x(from)
            ));
        }
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
            let points: Vec<String> = thinned(samples, second, line.of)
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
    let (unit, seconds) = if end > 300.0 { ("minutes", 60.0) } else { ("seconds", 1.0) };
    let units = (end / seconds).floor();
    let step = match units {
        n if n > 80.0 => 20.0,
        n if n > 8.0 && seconds < 60.0 => 10.0,
        n if n > 8.0 => 2.0,
        _ => 1.0,
    };
    let mut at = 0.0;
    while at <= units {
        put(format!(r#"<text x="{:.1}" y="{base:.1}" text-anchor="middle">{at}</text>"#, x(at * seconds)));
        at += step;
    }
    put(format!(r#"<text x="{:.1}" y="{:.1}" text-anchor="end">{unit}</text>"#, WIDTH - RIGHT, base + 15.0));
    put("</svg>".to_owned());
    out
}

/// A round number at or above `value`, for the end of an axis.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 4.0, 6.0, 8.0, 10.0];
    steps.iter().map(|step| step * power).find(|&end| end >= value).unwrap_or(10.0 * power)
}

fn thinned<S>(samples: &[S], second: fn(&S) -> f64, of: fn(&S) -> f64) -> impl Iterator<Item = (f64, f64)> {
    let span = samples.len().div_ceil(POINTS).max(1);
    samples.chunks(span).filter_map(move |chunk| {
        let values = chunk.iter().map(of).filter(|value| value.is_finite());
        let highest =
            values.fold(None, |highest: Option<f64>, value| Some(highest.map_or(value, |h| h.max(value))))?;
        Some((second(&chunk[chunk.len() / 2]), highest))
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

    struct Sample(f64, f64);

    const PANELS: &[Panel<Sample>] = &[Panel {
        title: "a panel",
        lines: &[
            Line { name: "one", colour: "#c2410c", of: |s| s.1 },
            Line {
                name: "until the middle",
                colour: "#1d4ed8",
                of: |s| if s.0 < 1_800.0 { 1.0 } else { f64::NAN },
            },
        ],
        most: None,
    }];

    #[test]
    fn a_plot_is_small_and_hides_no_peak() {
        let mut samples: Vec<Sample> = (0..3_600).map(|n| Sample(f64::from(n), 0.0)).collect();
        samples[1_234].1 = 777.0;
        let shaded = Some((600.0, 1_200.0));
        let svg = svg(&Plot { title: "a title", panels: PANELS, samples: &samples, second: |s| s.0, shaded });
        assert!(svg.len() < 20 << 10, "{} bytes", svg.len());
        assert!(thinned(&samples, |s| s.0, |s| s.1).any(|(_, value)| value == 777.0));
        let until = thinned(&samples, |s| s.0, PANELS[0].lines[1].of).last().unwrap();
        assert!(until.0 < 1_810.0 && !svg.contains("NaN"), "{until:?}");
        assert_eq!(svg.matches("<polyline").count(), 2);
        assert!(svg.starts_with("<svg") && svg.ends_with("</svg>\n"));
    }
}
