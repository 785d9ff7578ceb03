//! Charts as SVG: bars of ratios, and lines of the growth of a cost. Pure.
//!
//! The background is transparent, and every colour stands out from white and from black, so the charts can be read in
//! both themes of a site.

use std::io;

use plotters::coord::combinators::WithKeyPoints;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::measure::{Times, Unit, digits};
use crate::rows::AxisUnit;
use crate::verdict::Line;

const TEXT: RGBColor = RGBColor(0x76, 0x83, 0x90);
const GRID: RGBAColor = RGBAColor(0x76, 0x83, 0x90, 0.33);
const GOAL: RGBColor = RGBColor(0xd9, 0x82, 0x2b);
/// The first is the colour of the bars; each line of a chart has its own.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x3a, 0x8f, 0xd9),
    GOAL,
    RGBColor(0x2e, 0x9e, 0x5b),
    RGBColor(0xb1, 0x5f, 0xd0),
    RGBColor(0xd1, 0x49, 0x5b),
    RGBColor(0x8a, 0x8f, 0x00),
];
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;
type Drawn = Result<(), DrawingAreaErrorKind<io::Error>>;

/// One bar of a chart.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Bar {
    pub(crate) label: String,
    /// How many times as good Mobula is.
    pub(crate) times: f64,
    /// How many times as good it is to be.
    pub(crate) wanted: Option<f64>,
}

/// Bars on a logarithmic scale, from 1 on: to the right is better, to the left worse.
pub(crate) fn bars(title: &str, bars: &[Bar]) -> io::Result<String> {
    // Rows are as many pixels high, and the vertical axis counts pixels.
    const STEP: i32 = 26;
    let figures = || bars.iter().flat_map(|bar| [Some(bar.times), bar.wanted]).flatten();
    let horizontal = powers_of_ten(figures().fold(1.0, f64::min), figures().fold(10.0, f64::max));
    let bottom = STEP * bars.len() as i32;
    let middles = (0..bars.len() as i32).map(|row| STEP * row + STEP / 2).collect();
    picture(title, (975, 104 + bottom as u32), |area| {
        let mut chart = ChartBuilder::on(area)
            .margin_right(90)
            .x_label_area_size(50)
            .y_label_area_size(465)
            // From the bottom to the top: the first bar is the highest.
            .build_cartesian_2d(horizontal, (bottom..0).with_key_points(middles))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .axis_style(TRANSPARENT)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(text(13.0))
            .x_label_formatter(&|times| format!("{} ×", whole(*times)))
            .y_label_formatter(&|at| bars[(at / STEP) as usize].label.clone())
            .x_desc("times as fast, or as little, as the other; the mark is the goal")
            .draw()?;
        chart.draw_series([PathElement::new([(1.0, 0), (1.0, bottom)], TEXT)])?;
        for (bar, top) in bars.iter().zip((0..).step_by(STEP as usize)) {
            let ends = [(1.0, top + 5), (bar.times, top + STEP - 5)];
            chart.draw_series([Rectangle::new(ends, COLOURS[0].filled())])?;
            let mark = bar.wanted.map(|wanted| [(wanted, top + 2), (wanted, top + STEP - 2)]);
            chart.draw_series(mark.map(|mark| PathElement::new(mark, GOAL.stroke_width(3))))?;
            let end = bar.wanted.unwrap_or(1.0).max(bar.times).max(1.0);
            let figure = Text::new(Times(bar.times).to_string(), (7, 0), beside(12.0));
            chart.draw_series([EmptyElement::at((end, top + STEP / 2)) + figure])?;
        }
        Ok(())
    })
}

/// The axes of a chart of lines.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Axes<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) x_unit: AxisUnit,
    pub(crate) y_unit: Unit,
    /// Whether the vertical axis is logarithmic; otherwise it begins at 0.
    pub(crate) log: bool,
}

/// Lines over a logarithmic axis.
pub(crate) fn lines(axes: Axes<'_>, lines: &[Line]) -> io::Result<String> {
    let figures = || lines.iter().flat_map(|line| &line.points).map(|(_, figure)| *figure);
    let least = figures().filter(|figure| *figure > 0.0).fold(f64::INFINITY, f64::min);
    let most = figures().fold(0.0, f64::max);
    if least > most {
        lines_over(axes, lines, 0.0..1.0)
    } else if axes.log {
        lines_over(axes, lines, powers_of_ten(least, most))
    } else {
        lines_over(axes, lines, 0.0..most * 1.1)
    }
}

/// The same with the vertical axis given.
fn lines_over<Y>(axes: Axes<'_>, lines: &[Line], vertical: Y) -> io::Result<String>
where
    Y: AsRangedCoord<Value = f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    const HEIGHT: u32 = 362;
    const LEGEND_STEP: u32 = 24;
    let mut places: Vec<f64> = lines.iter().flat_map(|line| &line.points).map(|(place, _)| *place).collect();
    places.sort_by(f64::total_cmp);
    let first = places.first().copied().unwrap_or(1.0);
    let last = places.last().copied().unwrap_or(1.0).max(first * 2.0);
    // No label is written over the one before it; the tables have all places.
    let near = (last / first).powf(0.09);
    places.dedup_by(|place, before| *place < *before * near);
    let horizontal = (first..last).log_scale().with_key_points(places);
    picture(axes.title, (600, HEIGHT + LEGEND_STEP * lines.len() as u32 + 8), |area| {
        let (upper, legend) = area.split_vertically(HEIGHT - TITLE_HEIGHT);
        let mut chart = ChartBuilder::on(&upper)
            .margin_right(40)
            .margin_top(10)
            .x_label_area_size(44)
            .y_label_area_size(90)
            .build_cartesian_2d(horizontal, vertical)?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .axis_style(TEXT)
            .bold_line_style(GRID)
            .light_line_style(TRANSPARENT)
            .label_style(text(12.0))
            .y_labels(6)
            .x_label_formatter(&|place| place_text(axes.x_unit, *place))
            .y_label_formatter(&|figure| axes.y_unit.format_round(*figure))
            .x_desc(axes.x)
            .draw()?;
        for (number, line) in lines.iter().enumerate() {
            let style = COLOURS[number % COLOURS.len()].filled().stroke_width(2);
            let points = line.points.iter().copied();
            chart.draw_series(LineSeries::new(points, style).point_size(4))?;
            let y = (LEGEND_STEP * number as u32 + LEGEND_STEP / 2) as i32;
            legend.draw(&PathElement::new([(90, y), (116, y)], style))?;
            legend.draw(&Circle::new((103, y), 4, style))?;
            legend.draw(&Text::new(line.label.as_str(), (126, y), beside(13.0)))?;
        }
        Ok(())
    })
}

const TITLE_HEIGHT: u32 = 40;

/// A picture with a title, which is written in it, and is its text for screen readers.
fn picture(title: &str, size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Drawn) -> io::Result<String> {
    let mut svg = String::new();
    let drawn = (|| {
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        let (head, body) = root.split_vertically(TITLE_HEIGHT);
        head.draw(&Text::new(title, (16, 12), text(15.0)))?;
        draw(&body)?;
        root.present()
    })();
    drawn.map_err(io::Error::other)?;
    let escaped = title.replace('&', "&amp;").replace('<', "&lt;");
    Ok(svg.replacen(">\n", &format!(" role=\"img\">\n<title>{escaped}</title>\n"), 1))
}

/// Text of a size in pixels.
fn text(pixels: f64) -> TextStyle<'static> {
    // The backend divides sizes by this number.
    (FONT, pixels * 1.24).into_font().color(&TEXT)
}

/// Text that begins at a place, at the same height.
fn beside(pixels: f64) -> TextStyle<'static> {
    text(pixels).pos(Pos::new(HPos::Left, VPos::Center))
}

/// A logarithmic axis from the power of ten below the least figure to the one above the greatest.
fn powers_of_ten(least: f64, most: f64) -> WithKeyPoints<LogCoord<f64>> {
    let first = least.log10().floor() as i32;
    let last = (most.log10().ceil() as i32).max(first + 1);
    let powers: Vec<f64> = (first..=last).map(|power| 10_f64.powi(power)).collect();
    (powers[0]..powers[powers.len() - 1]).log_scale().with_key_points(powers)
}

/// A power of ten.
fn whole(number: f64) -> String {
    if number < 1e4 { format!("{number}") } else { digits(number) }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rows::Who;

    /// Checks as much of XML as these charts have, and returns the texts in it.
    fn texts(svg: &str) -> Vec<&str> {
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n"));
        for name in ["svg", "text", "title"] {
            assert_eq!(svg.matches(&format!("<{name}")).count(), svg.matches(&format!("</{name}>")).count());
        }
        assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
        let lines: Vec<&str> = svg.lines().collect();
        lines.windows(2).filter(|pair| pair[0].starts_with("<text")).map(|pair| pair[1]).collect()
    }

    #[track_caller]
    fn check(texts: &[&str], expected: &[&str]) {
        expected.iter().for_each(|text| assert!(texts.contains(text), "{text:?} is not in {texts:?}"));
    }

    #[test]
    fn bars_go_both_ways_from_one() {
        let bar = |label: &str, times, wanted| Bar { label: label.into(), times, wanted };
        let bars = [bar("put & get", 300.0, Some(20_000.0)), bar("worse", 0.5, None)];
        let svg = super::bars("a <title>", &bars).unwrap();
        assert!(svg.contains("<title>a &lt;title></title>"), "{svg}");
        check(&texts(&svg), &["a &lt;title&gt;", "put &amp; get", "worse", "300 ×", "0.50 ×"]);
        // The scale has the powers of ten around all figures, at both ends too.
        check(&texts(&svg), &["0.1 ×", "1 ×", "10 ×", "100 ×", "1000 ×", "10,000 ×", "100,000 ×"]);
        assert_eq!(svg.matches("<rect").count(), 2);
    }

    #[test]
    fn lines_have_a_point_for_each_place() {
        let axes =
            Axes { title: "grows", x: "objects", x_unit: AxisUnit::Count, y_unit: Unit::Seconds, log: false };
        let line = Line { label: "put".into(), who: Who::Mobula, points: vec![(1e3, 1e-7), (1e6, 2e-7)] };
        let ticks: [(_, &[&str]); 2] = [(false, &["0 ns", "100 ns", "200 ns"]), (true, &["100 ns", "1 µs"])];
        for (log, ticks) in ticks {
            let svg = lines(Axes { log, ..axes }, std::slice::from_ref(&line)).unwrap();
            check(&texts(&svg), &["grows", "1k", "1M", "objects", "put"]);
            check(&texts(&svg), ticks);
            // Two points, and one in the legend.
            assert_eq!(svg.matches("<circle").count(), 3);
        }
        texts(&lines(axes, &[]).unwrap());
    }

    #[test]
    fn places_that_are_near_each_other_have_one_label() {
        let points = vec![(500e6, 1.0), (1e9, 2.0), (1e6, 3.0), (4e9, 4.0)];
        let line = Line { label: "pass".into(), who: Who::Mobula, points };
        let axes =
            Axes { title: "grows", x: "size", x_unit: AxisUnit::Bytes, y_unit: Unit::Seconds, log: false };
        let svg = lines(axes, &[line]).unwrap();
        check(&texts(&svg), &["1 MB", "500 MB", "4 GB"]);
        assert!(!texts(&svg).contains(&"1 GB"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 5);
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
