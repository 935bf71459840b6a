//! Two kinds of plots, drawn as SVG: bars in groups, and lines.

use std::fmt::Write;

const WIDTH: f64 = 760.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 16.0;
const TOP: f64 = 64.0;
const HEIGHT: f64 = 260.0;
const BOTTOM: f64 = 44.0;

/// A colour for each peer, told apart also by those who see fewer of them.
pub fn colour(peer: &str) -> &'static str {
    match peer {
        "cellgate" => "#d55e00",
        "cellgate-pgo" => "#e69f00",
        "pingora" => "#cc79a7",
        "nginx" => "#009e73",
        "haproxy" => "#0072b2",
        "envoy" => "#56b4e9",
        _ => "#777777",
    }
}

/// A peer's bar in each group; None where it has none.
pub struct Bars {
    pub name: String,
    pub values: Vec<Option<f64>>,
}

/// A peer's line.
pub struct Line {
    pub name: String,
    pub points: Vec<(f64, f64)>,
}

/// Bars side by side for each of `groups`.
pub fn bars(title: &str, unit: &str, groups: &[String], series: &[Bars]) -> String {
    let most = series
        .iter()
        .flat_map(|s| s.values.iter().flatten())
        .copied()
        .fold(0.0, f64::max);
    let (top, step) = scale(most);
    let mut svg = frame(title, unit, series.iter().map(|s| s.name.as_str()));
    let y = |value: f64| TOP + HEIGHT * (1.0 - value / top);
    let mut mark = 0.0;
    while mark <= top * 1.0001 {
        rule(&mut svg, y(mark), &plain(mark));
        mark += step;
    }
    let group = (WIDTH - LEFT - RIGHT) / groups.len().max(1) as f64;
    let bar = group * 0.84 / series.len().max(1) as f64;
    for (number, name) in groups.iter().enumerate() {
        let from = LEFT + group * number as f64 + group * 0.08;
        for (index, one) in series.iter().enumerate() {
            let Some(value) = one.values.get(number).copied().flatten() else {
                continue;
            };
            let x = from + bar * index as f64;
            let _ = writeln!(
                svg,
                r#"<rect x="{x:.1}" y="{:.1}" width="{:.1}" height="{:.1}" fill="{}"/>"#,
                y(value),
                bar * 0.9,
                HEIGHT + TOP - y(value),
                colour(&one.name),
            );
            text(
                &mut svg,
                x + bar * 0.45,
                y(value) - 4.0,
                "middle",
                10,
                &plain(value),
            );
        }
        text(
            &mut svg,
            from + group * 0.42,
            TOP + HEIGHT + 18.0,
            "middle",
            12,
            name,
        );
    }
    svg.push_str("</svg>\n");
    svg
}

/// Lines over `marks` of the x axis, with a logarithmic y axis.
pub fn lines(title: &str, unit: &str, marks: &[(f64, String)], series: &[Line]) -> String {
    let ys = || {
        series
            .iter()
            .flat_map(|s| s.points.iter().map(|p| p.1.max(1e-9)))
    };
    let low = ys().fold(f64::INFINITY, f64::min).log10().floor();
    let high = ys().fold(0.0, f64::max).log10().ceil().max(low + 1.0);
    let first = marks.first().map_or(0.0, |mark| mark.0);
    let last = marks.last().map_or(1.0, |mark| mark.0);
    let x = |value: f64| LEFT + (WIDTH - LEFT - RIGHT - 20.0) * (value - first) / (last - first);
    let y = |value: f64| TOP + HEIGHT * (high - value.max(1e-9).log10()) / (high - low);
    let mut svg = frame(title, unit, series.iter().map(|s| s.name.as_str()));
    let mut decade = low;
    while decade <= high {
        for factor in [1.0, 2.0, 5.0] {
            let value = 10_f64.powf(decade) * factor;
            if value <= 10_f64.powf(high) * 1.0001 {
                rule(&mut svg, y(value), &plain(value));
            }
        }
        decade += 1.0;
    }
    for (at, name) in marks {
        text(&mut svg, x(*at), TOP + HEIGHT + 18.0, "middle", 12, name);
    }
    for line in series {
        let mut points = String::new();
        for (at, value) in &line.points {
            let _ = write!(points, "{:.1},{:.1} ", x(*at), y(*value));
        }
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{}" stroke-width="2"/>"#,
            points.trim_end(),
            colour(&line.name),
        );
    }
    svg.push_str("</svg>\n");
    svg
}

fn frame<'n>(title: &str, unit: &str, names: impl Iterator<Item = &'n str>) -> String {
    let height = TOP + HEIGHT + BOTTOM;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif">
<rect width="{WIDTH}" height="{height}" rx="6" fill="#ffffff"/>
"##
    );
    text(&mut svg, 16.0, 24.0, "start", 15, title);
    let mut x = 16.0;
    for name in names {
        let _ = writeln!(
            svg,
            r#"<rect x="{x:.1}" y="36" width="10" height="10" fill="{}"/>"#,
            colour(name)
        );
        text(&mut svg, x + 14.0, 45.0, "start", 12, name);
        x += 30.0 + 7.0 * name.len() as f64;
    }
    text(&mut svg, WIDTH - RIGHT, 24.0, "end", 12, unit);
    svg
}

fn rule(svg: &mut String, y: f64, label: &str) {
    let _ = writeln!(
        svg,
        r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#dddddd"/>"##,
        WIDTH - RIGHT
    );
    text(svg, LEFT - 6.0, y + 4.0, "end", 11, label);
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, size: u32, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _ = writeln!(
        svg,
        r##"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" fill="#222222">{text}</text>"##
    );
}

/// The end of an axis that holds `most`, and the step between its marks.
fn scale(most: f64) -> (f64, f64) {
    let most = if most > 0.0 { most } else { 1.0 };
    let power = 10_f64.powf((most / 4.0).log10().floor());
    let steps = [1.0, 2.0, 2.5, 5.0, 10.0].map(|factor| factor * power);
    let step = steps
        .into_iter()
        .find(|step| most <= step * 5.0)
        .unwrap_or(power * 10.0);
    ((most / step).ceil() * step, step)
}

/// A number with three digits that count.
pub fn plain(value: f64) -> String {
    let digits = match value.abs() {
        v if v >= 100.0 || v == v.round() => 0,
        v if v >= 10.0 => 1,
        v if v >= 1.0 => 2,
        _ => 3,
    };
    format!("{value:.digits$}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn axes_hold_what_is_drawn() {
        for most in [0.0, 0.003, 1.0, 4.9, 17.4, 99.0, 100.0, 123_456.0] {
            let (top, step) = scale(most);
            assert!(
                top >= most && step > 0.0 && (1.0..=10.0).contains(&(top / step)),
                "{most}"
            );
        }
    }

    #[test]
    fn a_bar_without_a_value_is_left_out() {
        let series = [
            Bars {
                name: "nginx".into(),
                values: vec![Some(1.0), None],
            },
            Bars {
                name: "envoy".into(),
                values: vec![Some(2.0), Some(3.0)],
            },
        ];
        let svg = bars("<title>", "us", &["a".into(), "b".into()], &series);
        // The ground, two legends, three bars.
        assert_eq!(svg.matches("<rect").count(), 6);
        assert!(svg.contains("&lt;title>"));
    }
}
