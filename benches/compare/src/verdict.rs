//! Whether the goals were reached. Pure.

use crate::lab::Measured;
use crate::measure::times_as_good;
use crate::rows::{Goal, Series, SeriesGoal, Who};

/// The state of a goal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Reached,
    Missed,
    /// A contender was not measured.
    Unknown,
}

impl Verdict {
    fn of(reached: Option<bool>) -> Self {
        match reached {
            Some(true) => Self::Reached,
            Some(false) => Self::Missed,
            None => Self::Unknown,
        }
    }

    /// The verdict on all of several.
    pub(crate) fn all(verdicts: impl IntoIterator<Item = Self>) -> Self {
        verdicts.into_iter().fold(Self::Reached, |all, one| match (all, one) {
            (Self::Missed, _) | (_, Self::Missed) => Self::Missed,
            (Self::Unknown, _) | (_, Self::Unknown) => Self::Unknown,
            _ => Self::Reached,
        })
    }
}

/// The state of one goal of a row.
pub(crate) fn of_goal(measured: &Measured, goal: &Goal) -> Verdict {
    let ours = measured.ours();
    let at_least =
        |who: Who, times: f64| Some(times_as_good(measured.row.unit, ours?, measured.median(who)?) >= times);
    Verdict::of(match goal {
        Goal::Times(who, times) => at_least(*who, *times),
        Goal::Within(who, times) => at_least(*who, 1.0 / times),
        Goal::AtMost(most) => ours.map(|ours| ours <= *most),
        Goal::AtLeast(least) => ours.map(|ours| ours >= *least),
    })
}

/// One line of a series: its name, its contender, and its points.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Line {
    pub(crate) label: String,
    pub(crate) who: Who,
    pub(crate) points: Vec<(f64, f64)>,
}

/// The lines of a series, in the order in which its rows have their contenders.
pub(crate) fn lines(series: &Series, measured: &[Measured]) -> Vec<Line> {
    let mut lines: Vec<Line> = Vec::new();
    for of in measured {
        let Some((_, at)) = of.row.point.filter(|(key, _)| *key == series.key) else { continue };
        for (contender, outcome) in of.row.contenders.iter().zip(&of.outcomes) {
            let Some(spread) = outcome.spread() else { continue };
            let point = (at, spread.median);
            match lines.iter_mut().find(|line| line.label == contender.label) {
                Some(line) => line.points.push(point),
                None => lines.push(Line {
                    label: contender.label.clone(),
                    who: contender.who,
                    points: vec![point],
                }),
            }
        }
    }
    lines
}

/// The state of one goal of a series: all of Mobula's lines must reach it.
pub(crate) fn of_series(series: &Series, goal: SeriesGoal, lines: &[Line]) -> Verdict {
    let ours = lines.iter().filter(|line| line.who.is_ours() && !line.points.is_empty());
    let mut verdicts = ours.map(|line| Verdict::of(line_reaches(series, goal, line, lines))).peekable();
    if verdicts.peek().is_none() {
        return Verdict::Unknown;
    }
    Verdict::all(verdicts)
}

fn line_reaches(series: &Series, goal: SeriesGoal, line: &Line, lines: &[Line]) -> Option<bool> {
    // How much worse than a base a point is: 0.2 is a fifth more time, or a sixth less of a rate.
    let worse = |base: f64, figure: f64| times_as_good(series.unit, base, figure) - 1.0;
    Some(match goal {
        SeriesGoal::Flat(part) => {
            let (_, base) = *line.points.first()?;
            line.points.iter().all(|(_, figure)| worse(base, *figure) <= part)
        }
        SeriesGoal::NoWorseThanAt(place, part) => {
            let (_, base) = *line.points.iter().find(|(at, _)| *at == place)?;
            line.points.iter().all(|(_, figure)| worse(base, *figure) <= part)
        }
        SeriesGoal::AtMost(most) => line.points.iter().all(|(_, figure)| *figure <= most),
        SeriesGoal::TimesFirst(place, times) => {
            let (_, base) = *line.points.first()?;
            let (_, figure) = *line.points.iter().find(|(at, _)| *at == place)?;
            times_as_good(series.unit, figure, base) >= times
        }
        SeriesGoal::Within(who, times) => {
            let other = lines.iter().find(|line| line.who == who)?;
            let pairs = line.points.iter().map(|(at, figure)| {
                let (_, theirs) = other.points.iter().find(|(of, _)| of == at)?;
                Some(times_as_good(series.unit, *figure, *theirs) >= 1.0 / times)
            });
            pairs.collect::<Option<Vec<_>>>()?.into_iter().all(|reached| reached)
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::Outcome;
    use crate::measure::{Spread, Unit};
    use crate::rows::{AxisUnit, Row};

    fn measured(row: Row, medians: &[Option<f64>]) -> Measured {
        let outcome = |median: &Option<f64>| match median {
            Some(median) => Outcome::Measured(Spread { median: *median, low: *median, high: *median }),
            None => Outcome::Skipped("not there".into()),
        };
        Measured { row, outcomes: medians.iter().map(outcome).collect(), measured: String::new() }
    }

    #[test]
    fn goals_compare_medians_the_way_the_unit_goes() {
        let time = |ours, theirs| {
            let row = Row::new("key", "work", Unit::Seconds).ask(Who::Mobula, "a").ask(Who::Ray, "b");
            measured(row, &[ours, theirs])
        };
        assert_eq!(of_goal(&time(Some(1.0), Some(30.0)), &Goal::Times(Who::Ray, 30.0)), Verdict::Reached);
        assert_eq!(of_goal(&time(Some(1.1), Some(30.0)), &Goal::Times(Who::Ray, 30.0)), Verdict::Missed);
        assert_eq!(of_goal(&time(Some(1.9), Some(1.0)), &Goal::Within(Who::Ray, 2.0)), Verdict::Reached);
        assert_eq!(of_goal(&time(Some(2.1), Some(1.0)), &Goal::Within(Who::Ray, 2.0)), Verdict::Missed);
        assert_eq!(of_goal(&time(Some(1.0), None), &Goal::Times(Who::Ray, 30.0)), Verdict::Unknown);
        assert_eq!(of_goal(&time(None, None), &Goal::AtMost(1.0)), Verdict::Unknown);
        let row = Row::new("key", "work", Unit::PerSecond).ask(Who::Mobula, "a").ask(Who::Ray, "b");
        let rate = measured(row, &[Some(2e6), Some(1e4)]);
        assert_eq!(of_goal(&rate, &Goal::Times(Who::Ray, 200.0)), Verdict::Reached);
        assert_eq!(of_goal(&rate, &Goal::AtLeast(1e6)), Verdict::Reached);
        assert_eq!(of_goal(&rate, &Goal::AtLeast(3e6)), Verdict::Missed);
    }

    #[test]
    fn what_is_missed_outweighs_what_is_unknown() {
        use Verdict::{Missed, Reached, Unknown};
        assert_eq!(Verdict::all([]), Reached);
        assert_eq!(Verdict::all([Reached, Unknown]), Unknown);
        assert_eq!(Verdict::all([Unknown, Missed, Reached]), Missed);
    }

    #[test]
    fn a_series_is_judged_by_each_line_of_ours() {
        let series = |unit, goal| Series {
            key: "live",
            work: "work",
            axis: "objects",
            axis_unit: AxisUnit::Count,
            unit,
            method: "",
            goals: vec![goal],
            log: false,
        };
        let line = |label: &str, who, points: &[(f64, f64)]| Line {
            label: label.into(),
            who,
            points: points.to_vec(),
        };
        let flat = SeriesGoal::Flat(0.2);
        let limit = line("limit", Who::Limit, &[(1.0, 1.0), (2.0, 9.0)]);
        let even = line("put", Who::Mobula, &[(1.0, 10.0), (2.0, 12.0), (3.0, 4.0)]);
        let steep = line("get", Who::Mobula, &[(1.0, 10.0), (2.0, 13.0)]);
        let time = series(Unit::Seconds, flat);
        assert_eq!(of_series(&time, flat, &[even.clone(), limit.clone()]), Verdict::Reached);
        assert_eq!(of_series(&time, flat, &[even, steep]), Verdict::Missed);
        assert_eq!(of_series(&time, flat, &[limit]), Verdict::Unknown);
        let goal = SeriesGoal::NoWorseThanAt(2.0, 0.05);
        let rates = line("tasks", Who::Mobula, &[(1.0, 100.0), (2.0, 80.0), (4.0, 79.0)]);
        assert_eq!(of_series(&series(Unit::PerSecond, goal), goal, &[rates]), Verdict::Reached);
        let falls = line("tasks", Who::Mobula, &[(1.0, 100.0), (2.0, 80.0), (4.0, 70.0)]);
        assert_eq!(of_series(&series(Unit::PerSecond, goal), goal, &[falls]), Verdict::Missed);
        let grows = line("puts", Who::Mobula, &[(1.0, 100.0), (2.0, 190.0), (4.0, 150.0)]);
        for (times, verdict) in [(1.8, Verdict::Reached), (1.95, Verdict::Missed)] {
            let goal = SeriesGoal::TimesFirst(2.0, times);
            let puts = series(Unit::PerSecond, goal);
            assert_eq!(of_series(&puts, goal, std::slice::from_ref(&grows)), verdict);
        }
        let call = line("call", Who::Mobula, &[(1.0, 12.0), (2.0, 26.0)]);
        let wake = line("wake", Who::Limit, &[(1.0, 10.0), (2.0, 20.0)]);
        for (times, verdict) in [(1.3, Verdict::Reached), (1.25, Verdict::Missed)] {
            let goal = SeriesGoal::Within(Who::Limit, times);
            let asleep = series(Unit::Seconds, goal);
            assert_eq!(of_series(&asleep, goal, &[call.clone(), wake.clone()]), verdict);
            assert_eq!(of_series(&asleep, goal, std::slice::from_ref(&call)), Verdict::Unknown);
        }
    }

    #[test]
    fn a_line_has_the_points_of_its_label() {
        let point = |at: f64, figures: &[Option<f64>]| {
            let row = Row::new(format!("live-{at}"), "work", Unit::Seconds)
                .ask_as("put", Who::Mobula, "a")
                .ask_as("limit", Who::Limit, "b")
                .point("live", at);
            measured(row, figures)
        };
        let all = [point(1.0, &[Some(5.0), Some(1.0)]), point(10.0, &[Some(6.0), None])];
        let series = Series {
            key: "live",
            work: "work",
            axis: "objects",
            axis_unit: AxisUnit::Count,
            unit: Unit::Seconds,
            method: "",
            goals: Vec::new(),
            log: false,
        };
        let lines = lines(&series, &all);
        assert_eq!(lines.len(), 2);
        assert_eq!(lines[0].points, [(1.0, 5.0), (10.0, 6.0)]);
        assert_eq!(lines[1].points, [(1.0, 1.0)]);
    }
}
