//! Takes the samples: all contenders in turn, again and again.

use crate::case::{Case, Row};
use crate::contender::Who;
use crate::measure::{median, percentile};
use serde::Serialize;
use std::collections::BTreeMap;

/// What a contender did in one row.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Cell {
    /// One figure for each repetition.
    Samples(Vec<f64>),
    /// Why there are none.
    Absent(String),
}

impl Cell {
    /// The figures; none if there are none.
    pub fn samples(&self) -> &[f64] {
        match self {
            Cell::Samples(samples) => samples,
            Cell::Absent(_) => &[],
        }
    }

    /// The middle figure.
    pub fn median(&self) -> Option<f64> {
        Some(self.samples()).filter(|samples| !samples.is_empty()).map(median)
    }

    /// Half the distance between the quartiles, in percent of the median.
    pub fn spread(&self) -> Option<f64> {
        let (mut samples, middle) = (self.samples().to_vec(), self.median()?);
        let distance = percentile(&mut samples, 0.75) - percentile(&mut samples, 0.25);
        Some(distance / 2.0 / middle * 100.0).filter(|spread| spread.is_finite())
    }
}

/// A row with everybody's samples.
#[derive(Clone, Debug, Serialize)]
pub struct RowResult {
    /// The case it belongs to.
    pub case: String,
    /// What was measured.
    pub name: &'static str,
    /// In what.
    pub unit: &'static str,
    /// By contender.
    pub cells: BTreeMap<Who, Cell>,
    /// As written in the table, and whether it is met; `null` if that cannot be said.
    pub targets: Vec<(String, Option<bool>)>,
}

impl RowResult {
    /// How many times `who`'s figure beadwork's is: the middle one of what it was in each repetition, so that a slow moment of
    /// the machine counts once.
    pub fn times(&self, who: Who) -> Option<f64> {
        let of = |who| self.cells.get(&who).map_or(&[][..], Cell::samples);
        let ratios: Vec<f64> =
            of(Who::Beadwork).iter().zip(of(who)).map(|(own, other)| own / other).collect();
        Some(ratios)
            .filter(|ratios| !ratios.is_empty())
            .map(|ratios| median(&ratios))
            .filter(|ratio| ratio.is_finite())
    }

    /// The median of what was measured of a contender, if anything was.
    pub fn figure(&self, who: Who) -> Option<f64> {
        self.cells.get(&who).and_then(Cell::median)
    }

    fn new(case: &Case, row: &Row, cells: BTreeMap<Who, Cell>) -> RowResult {
        let (case, name, unit) = (case.name.clone(), row.name, row.unit);
        let mut result = RowResult { case, name, unit, cells, targets: Vec::new() };
        let own = result.figure(Who::Beadwork);
        for target in &row.targets {
            let met = own.and_then(|own| target.is_met(own, |who| result.times(who)));
            result.targets.push((target.to_string(), met));
        }
        result
    }
}

/// Runs a case and hands on each row when it is complete.
pub fn run(case: &Case, runs: usize, mut done: impl FnMut(RowResult)) {
    let mut subjects = (case.subjects)();
    subjects.sort_by_key(|(who, _)| *who);
    let runs = runs.clamp(1, case.most_runs);
    for (number, rows) in case.stages.iter().enumerate() {
        let mut cells: Vec<BTreeMap<Who, Cell>> = vec![BTreeMap::new(); rows.len()];
        for (_, subject) in &mut subjects {
            if let Ok(subject) = subject {
                subject.enter(number);
            }
        }
        for repetition in 0..runs {
            for position in 0..subjects.len() {
                // Whoever comes first finds the machine in another state than who comes last, so they take turns, and every other
                // time in the opposite order, so that each comes before and after each.
                let place = (position + repetition / 2) % subjects.len();
                let position = if repetition % 2 == 0 { place } else { subjects.len() - 1 - place };
                let (who, subject) = &mut subjects[position];
                let sample = match subject {
                    Ok(subject) => subject.sample(number),
                    Err(why) => Err(why.clone()),
                };
                note(&mut cells, *who, sample);
            }
        }
        for (row, cells) in rows.iter().zip(cells) {
            done(RowResult::new(case, row, cells));
        }
    }
}

fn note(cells: &mut [BTreeMap<Who, Cell>], who: Who, sample: Result<Vec<f64>, String>) {
    for (place, row) in cells.iter_mut().enumerate() {
        let cell = row.entry(who).or_insert_with(|| Cell::Samples(Vec::new()));
        match (&sample, cell) {
            (Ok(figures), Cell::Samples(samples)) => samples.extend(figures.get(place)),
            (Err(why), cell) => *cell = Cell::Absent(why.clone()),
            (Ok(_), Cell::Absent(_)) => (),
        }
    }
}
