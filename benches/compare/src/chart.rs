//! Charts as SVG: bars of ratios, and lines of the growth of a cost. Pure.
//!
//! Nothing is painted behind them, and every colour stands out from white as well as from black, so that they can be read
//! in both of a site's themes.

use std::fmt::Write;

use crate::measure::{Times, Unit};
use crate::rows::AxisUnit;
use crate::verdict::Line;

const TEXT: &str = "#768390";
const GRID: &str = "#76839055";
const BAR: &str = "#3a8fd9";
/// One for each line of a chart.
const COLOURS: [&str; 6] = ["#3a8fd9", "#d9822b", "#2e9e5b", "#b15fd0", "#d1495b", "#8a8f00"];
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";

/// A bar: its name, how many times as good, and how many were wanted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) label: String,
    pub(crate) times: f64,
    pub(crate) wanted: Option<f64>,
}

/// Bars on a logarithmic scale, from 1 on: to the right is better, to the left worse.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> String {
    const LEFT: f64 = 465.0;
    const WIDTH: f64 = 420.0;
    const STEP: f64 = 26.0;
    const TOP: f64 = 62.0;
    let all = bars.iter().flat_map(|bar| [Some(bar.times), bar.wanted]).flatten();
    let (least, most) =
        all.fold((1.0_f64, 10.0_f64), |(least, most), times| (least.min(times), most.max(times)));
    let (first, last) = (least.log10().floor(), most.log10().ceil());
    let x = |times: f64| LEFT + (times.log10() - first) / (last - first) * WIDTH;
    let bottom = TOP + STEP * bars.len() as f64;
    let mut svg = open(LEFT + WIDTH + 90.0, bottom + 44.0, title);
    for power in first as i32..=last as i32 {
        let at = x(10_f64.powi(power));
        let colour = if power == 0 { TEXT } else { GRID };
        line(&mut svg, (at, TOP - 6.0), (at, bottom), colour);
        text(&mut svg, (at, bottom + 16.0), "middle", 12, TEXT, &format!("{} ×", power_of_ten(power)));
    }
    for (number, bar) in bars.iter().enumerate() {
        let top = TOP + STEP * number as f64;
        let (from, to) = (x(1.0).min(x(bar.times)), x(1.0).max(x(bar.times)));
        text(&mut svg, (LEFT - 10.0, top + 14.0), "end", 13, TEXT, &bar.label);
        let (width, height) = ((to - from).max(1.0), STEP - 10.0);
        let _ = writeln!(
            svg,
            r#"<rect x="{from:.1}" y="{:.1}" width="{width:.1}" height="{height}" rx="2" fill="{BAR}"/>"#,
            top + 2.0
        );
        if let Some(wanted) = bar.wanted {
            let at = x(wanted);
            let _ = writeln!(
                svg,
                r##"<line x1="{at:.1}" y1="{:.1}" x2="{at:.1}" y2="{:.1}" stroke="#d9822b" stroke-width="2.5"/>"##,
                top - 1.0,
                top + STEP - 5.0
            );
        }
        let beyond = bar.wanted.map_or(to, |wanted| to.max(x(wanted)));
        text(&mut svg, (beyond + 7.0, top + 14.0), "start", 12, TEXT, &Times(bar.times).to_string());
    }
    let what = "times as fast, or as little, as the other; the mark: what is to be reached";
    text(&mut svg, (LEFT + WIDTH / 2.0, bottom + 36.0), "middle", 12, TEXT, what);
    svg.push_str("</svg>\n");
    svg
}

/// The drawing of a chart of lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) x_unit: AxisUnit,
    pub(crate) y_unit: Unit,
    /// Whether the upper axis is logarithmic; otherwise it begins at nothing.
    pub(crate) log: bool,
}

/// Lines over a logarithmic axis.
pub(crate) fn lines(axes: Axes<'_>, lines: &[Line]) -> String {
    const LEFT: f64 = 90.0;
    const TOP: f64 = 50.0;
    const WIDTH: f64 = 470.0;
    const HEIGHT: f64 = 260.0;
    let points = || lines.iter().flat_map(|line| &line.points);
    let mut places: Vec<f64> = points().map(|(x, _)| *x).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let (least, most) = points()
        .fold((f64::INFINITY, 0.0_f64), |(least, most), (_, figure)| (least.min(*figure), most.max(*figure)));
    let ticks = if axes.log { log_ticks(least, most) } else { even_ticks(most) };
    let (bottom, top) =
        (ticks.first().copied().unwrap_or(0.0), ticks.last().copied().unwrap_or(1.0).max(f64::MIN_POSITIVE));
    let (first, last) =
        (places.first().copied().unwrap_or(1.0).log10(), places.last().copied().unwrap_or(10.0).log10());
    let x = |at: f64| LEFT + (at.log10() - first) / (last - first).max(f64::MIN_POSITIVE) * WIDTH;
    let y = |figure: f64| {
        let part = if axes.log {
            (figure.log10() - bottom.log10()) / (top.log10() - bottom.log10()).max(f64::MIN_POSITIVE)
        } else {
            (figure - bottom) / (top - bottom)
        };
        TOP + HEIGHT - part * HEIGHT
    };
    let legend = 24.0 * lines.len() as f64;
    let mut svg = open(LEFT + WIDTH + 40.0, TOP + HEIGHT + 62.0 + legend, axes.title);
    for tick in &ticks {
        line(&mut svg, (LEFT, y(*tick)), (LEFT + WIDTH, y(*tick)), GRID);
        text(&mut svg, (LEFT - 8.0, y(*tick) + 4.0), "end", 12, TEXT, &axes.y_unit.format_round(*tick));
    }
    let mut written = f64::NEG_INFINITY;
    for place in &places {
        let at = x(*place);
        line(&mut svg, (at, TOP + HEIGHT), (at, TOP + HEIGHT + 5.0), TEXT);
        // Not over the one before it; the tables have all of them.
        if at - written > 42.0 {
            text(&mut svg, (at, TOP + HEIGHT + 20.0), "middle", 12, TEXT, &place_text(axes.x_unit, *place));
            written = at;
        }
    }
    line(&mut svg, (LEFT, TOP + HEIGHT), (LEFT + WIDTH, TOP + HEIGHT), TEXT);
    text(&mut svg, (LEFT + WIDTH / 2.0, TOP + HEIGHT + 40.0), "middle", 12, TEXT, axes.x);
    for (number, of) in lines.iter().enumerate() {
        let colour = COLOURS[number % COLOURS.len()];
        let path: Vec<String> =
            of.points.iter().map(|(at, figure)| format!("{:.1},{:.1}", x(*at), y(*figure))).collect();
        let _ = writeln!(
            svg,
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2.2"/>"#,
            path.join(" ")
        );
        for (at, figure) in &of.points {
            dot(&mut svg, (x(*at), y(*figure)), colour);
        }
        let low = TOP + HEIGHT + 66.0 + 24.0 * number as f64;
        line(&mut svg, (LEFT, low - 4.0), (LEFT + 26.0, low - 4.0), colour);
        dot(&mut svg, (LEFT + 13.0, low - 4.0), colour);
        text(&mut svg, (LEFT + 36.0, low), "start", 13, TEXT, &of.label);
    }
    svg.push_str("</svg>\n");
    svg
}

fn open(width: f64, height: f64, title: &str) -> String {
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" \
         height=\"{height:.0}\" font-family=\"{FONT}\" role=\"img\">\n<title>{}</title>\n",
        escaped(title)
    );
    text(&mut svg, (16.0, 26.0), "start", 15, TEXT, title);
    svg
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, size: u32, colour: &str, what: &str) {
    let _ = writeln!(
        svg,
        r#"<text x="{x:.1}" y="{y:.1}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{}</text>"#,
        escaped(what)
    );
}

fn line(svg: &mut String, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
    let _ = writeln!(
        svg,
        r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}" stroke-width="1.2"/>"#
    );
}

fn dot(svg: &mut String, (x, y): (f64, f64), colour: &str) {
    let _ = writeln!(svg, r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#);
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('`', "")
}

fn power_of_ten(power: i32) -> String {
    let number = 10_f64.powi(power);
    if power < 4 { format!("{number}") } else { crate::measure::digits(number) }
}

/// A place on the lower axis.
pub(crate) fn place_text(unit: AxisUnit, place: f64) -> String {
    match unit {
        AxisUnit::Count if place >= 1e6 => format!("{}M", place / 1e6),
        AxisUnit::Count if place >= 1e3 => format!("{}k", place / 1e3),
        AxisUnit::Count => format!("{place}"),
        AxisUnit::Bytes => {
            // Sizes that are powers of two read as such.
            let binary = place >= 1024.0 && place.log2().fract() == 0.0;
            let (step, names) =
                if binary { (1024.0, ["B", "KiB", "MiB", "GiB"]) } else { (1000.0, ["B", "kB", "MB", "GB"]) };
            let (mut number, mut name) = (place, 0);
            while number >= step && name < 3 {
                (number, name) = (number / step, name + 1);
            }
            format!("{number} {}", names[name])
        }
    }
}

/// From nothing, in steps of 1, 2 or 5, to the first beyond the greatest.
fn even_ticks(most: f64) -> Vec<f64> {
    if most <= 0.0 {
        return vec![0.0, 1.0];
    }
    let rough = most / 4.0;
    let power = 10_f64.powf(rough.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0].map(|factor| factor * power).into_iter().find(|step| *step >= rough);
    let step = step.unwrap_or(10.0 * power);
    let count = (most / step).ceil() as u32;
    (0..=count).map(|number| f64::from(number) * step).collect()
}

/// Powers of ten, from below the least to beyond the greatest.
fn log_ticks(least: f64, most: f64) -> Vec<f64> {
    if least <= 0.0 || !least.is_finite() {
        return vec![1.0, 10.0];
    }
    let (first, last) = (least.log10().floor() as i32, most.log10().ceil() as i32);
    (first..=last.max(first + 1)).map(|power| 10_f64.powi(power)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Who;

    /// As much of XML as these charts have: every element is closed, and nothing is left unescaped.
    fn check_markup(svg: &str) {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for name in ["svg", "text", "title"] {
            assert_eq!(svg.matches(&format!("<{name}")).count(), svg.matches(&format!("</{name}>")).count());
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
    }

    #[test]
    fn bars_go_both_ways_from_one() {
        let bar = |label: &str, times, wanted| Bar { label: label.into(), times, wanted };
        let svg = bars("a <title>", &[bar("put & get", 300.0, Some(100.0)), bar("worse", 0.5, None)]);
        check_markup(&svg);
        assert!(svg.contains("put &amp; get") && svg.contains("a &lt;title&gt;"));
        assert!(svg.contains(">300 ×<") && svg.contains(">0.50 ×<"));
        assert_eq!(svg.matches("<rect").count(), 2);
    }

    #[test]
    fn lines_have_a_point_for_each_place() {
        let axes =
            Axes { title: "grows", x: "objects", x_unit: AxisUnit::Count, y_unit: Unit::Seconds, log: false };
        let line = Line { label: "put".into(), who: Who::Mobula, points: vec![(1e3, 1e-7), (1e6, 2e-7)] };
        for log in [false, true] {
            let svg = lines(Axes { log, ..axes }, std::slice::from_ref(&line));
            check_markup(&svg);
            // Two points, and one in the legend.
            assert_eq!(svg.matches("<circle").count(), 3);
            assert!(svg.contains(">1k<") && svg.contains(">1M<") && svg.contains(">objects<"));
        }
        check_markup(&lines(axes, &[]));
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(even_ticks(9.0), [0.0, 5.0, 10.0]);
        assert_eq!(even_ticks(4.0), [0.0, 1.0, 2.0, 3.0, 4.0]);
        assert_eq!(log_ticks(0.5, 20.0).len(), 4);
    }

    #[test]
    fn sizes_read_as_they_were_meant() {
        assert_eq!(place_text(AxisUnit::Bytes, 1024.0), "1 KiB");
        assert_eq!(place_text(AxisUnit::Bytes, 268_435_456.0), "256 MiB");
        assert_eq!(place_text(AxisUnit::Bytes, 1e6), "1 MB");
        assert_eq!(place_text(AxisUnit::Bytes, 4e9), "4 GB");
        assert_eq!(place_text(AxisUnit::Count, 16.0), "16");
    }
}
