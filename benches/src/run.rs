//! Takes the samples: all contenders in turn, again and again, in several passes over all cases, so that a bad stretch of the machine
//! meets a part of the samples of many rows instead of all samples of one.

use crate::case::{Case, Row, Sample};
use crate::contender::Who;
use crate::measure::{median, percentile};
use crate::target::Judged;
use serde::Serialize;
use std::collections::BTreeMap;
use std::ops::Range;

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

    /// What a table shows where there are no figures: how it failed; nothing if it was not to take part.
    pub fn absence(&self) -> &str {
        let ends = ["crashes", "fails"].into_iter();
        match self {
            Cell::Samples(_) => "",
            Cell::Absent(why) => ends.into_iter().find(|end| why.starts_with(end)).unwrap_or_default(),
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
    pub name: String,
    /// In what.
    pub unit: &'static str,
    /// By contender.
    pub cells: BTreeMap<Who, Cell>,
    /// What its targets came to.
    pub targets: Vec<Judged>,
    /// Whether ratios of its figures say anything.
    #[serde(skip)]
    pub compared: bool,
}

impl RowResult {
    /// How many times `who`'s figure beadwork's is: the middle one of what it was in each repetition, so that a slow moment of
    /// the machine counts once. `None`: there is nothing to compare, or one of the two is nothing.
    pub fn times(&self, who: Who) -> Option<f64> {
        if !self.compared {
            return None;
        }
        let of = |who| self.cells.get(&who).map_or(&[][..], Cell::samples);
        let ratios: Vec<f64> =
            of(Who::Beadwork).iter().zip(of(who)).map(|(own, other)| own / other).collect();
        Some(ratios)
            .filter(|ratios| !ratios.is_empty())
            .map(|ratios| median(&ratios))
            .filter(|ratio| ratio.is_finite() && *ratio > 0.0)
    }

    /// The median of what was measured of a contender, if anything was.
    pub fn figure(&self, who: Who) -> Option<f64> {
        self.cells.get(&who).and_then(Cell::median)
    }

    fn new(case: &Case, row: &Row, cells: BTreeMap<Who, Cell>) -> RowResult {
        let Row { name, unit, ref targets, compared } = row.clone();
        let mut result =
            RowResult { case: case.name.clone(), name, unit, cells, targets: Vec::new(), compared };
        let own = result.figure(Who::Beadwork);
        let judged = targets.iter().map(|target| target.judge(case.smaller, own, |who| result.times(who)));
        result.targets = judged.collect();
        result
    }
}

/// A case, and what was measured of it so far.
pub struct Gathered<'c> {
    case: &'c Case,
    runs: usize,
    /// By stage, and there by row.
    stages: Vec<Vec<BTreeMap<Who, Cell>>>,
}

impl<'c> Gathered<'c> {
    /// Nothing yet, of so many repetitions.
    pub fn new(case: &'c Case, runs: usize) -> Gathered<'c> {
        let stages = case.stages.iter().map(|rows| vec![BTreeMap::new(); rows.len()]).collect();
        Gathered { case, runs: runs.clamp(1, case.most_runs), stages }
    }

    /// Which case.
    pub fn case(&self) -> &'c Case {
        self.case
    }

    /// The repetitions that fall to one of so many passes. All take part in the last, so that all rows are complete there, in order,
    /// also of cases that have less repetitions than there are passes.
    pub fn part(&self, pass: usize, passes: usize) -> Range<usize> {
        self.runs * pass / passes..self.runs * (pass + 1) / passes
    }

    /// Makes the subjects, takes samples of each in turn, and drops them.
    pub fn sample(&mut self, repetitions: Range<usize>) {
        let mut subjects = (self.case.subjects)();
        subjects.sort_by_key(|(who, _)| *who);
        for (number, rows) in self.stages.iter_mut().enumerate() {
            for (_, subject) in &mut subjects {
                if let Ok(subject) = subject {
                    subject.enter(number);
                }
            }
            for repetition in repetitions.clone() {
                for position in 0..subjects.len() {
                    // Whoever comes first finds the machine in another state than who comes last, so they take turns, and every
                    // other time in the opposite order, so that each comes before and after each.
                    let place = (position + repetition / 2) % subjects.len();
                    let position = if repetition % 2 == 0 { place } else { subjects.len() - 1 - place };
                    let (who, subject) = &mut subjects[position];
                    let sample = match subject {
                        Ok(subject) => subject.sample(number),
                        Err(why) => Err(why.clone()),
                    };
                    note(rows, *who, sample);
                }
            }
        }
    }

    /// All rows, when the last pass is over.
    pub fn rows(self) -> Vec<RowResult> {
        let rows = self.case.stages.iter().flatten().zip(self.stages.into_iter().flatten());
        rows.map(|(row, cells)| RowResult::new(self.case, row, cells)).collect()
    }
}

fn note(rows: &mut [BTreeMap<Who, Cell>], who: Who, sample: Sample) {
    for (place, row) in rows.iter_mut().enumerate() {
        let cell = row.entry(who).or_insert_with(|| Cell::Samples(Vec::new()));
        match (&sample, cell) {
            (Ok(figures), Cell::Samples(samples)) => samples.extend(figures.get(place)),
            (Err(why), cell) => *cell = Cell::Absent(why.clone()),
            (Ok(_), Cell::Absent(_)) => (),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Subject;
    use std::cell::Cell as Shared;
    use std::rc::Rc;

    /// Answers the number of its making, and how many samples it gave before.
    struct Counts {
        made: f64,
        samples: f64,
    }

    impl Subject for Counts {
        fn sample(&mut self, stage: usize) -> Sample {
            self.samples += 1.0;
            Ok(vec![self.made, stage as f64 * 100.0 + self.samples])
        }
    }

    fn case(runs: usize, failing: Option<usize>) -> Case {
        let rows = || vec![Row::nanos("made"), Row::nanos("samples")];
        let made = Rc::new(Shared::new(0));
        let subjects = move || {
            made.set(made.get() + 1);
            let counts = || Box::new(Counts { made: made.get() as f64, samples: 0.0 });
            let other: crate::case::Made =
                if failing == Some(made.get()) { Err("fails".to_owned()) } else { Ok(counts()) };
            vec![(Who::Beadwork, Ok(counts() as _)), (Who::Raw, other)]
        };
        Case {
            name: "counts".to_owned(),
            stages: vec![rows(), rows()],
            most_runs: runs,
            smaller: false,
            subjects: Box::new(subjects),
        }
    }

    fn gathered(case: &Case, passes: usize) -> Vec<RowResult> {
        let mut gathered = Gathered::new(case, 10);
        for pass in 0..passes {
            gathered.sample(gathered.part(pass, passes));
        }
        gathered.rows()
    }

    #[test]
    fn passes_share_the_repetitions_and_all_meet_in_the_last() {
        for runs in 1..30 {
            let case = case(runs, None);
            let gathered = Gathered::new(&case, runs);
            for passes in 1..5 {
                let parts: Vec<_> = (0..passes).map(|pass| gathered.part(pass, passes)).collect();
                assert!(parts.iter().flat_map(Range::clone).eq(0..runs));
                assert!(parts.iter().all(|part| part.len().abs_diff(runs / passes) <= 1));
                assert!(parts.last().is_some_and(|last| last.end == runs && !last.is_empty()));
            }
        }
    }

    #[test]
    fn samples_of_all_passes_join_in_their_row_with_subjects_made_anew_in_each() {
        let case = case(5, None);
        let rows = gathered(&case, 2);
        let own = |row: usize| rows[row].cells[&Who::Beadwork].samples().to_vec();
        assert_eq!(rows.len(), 4);
        assert_eq!(own(0), [1.0, 1.0, 2.0, 2.0, 2.0]);
        assert_eq!(own(1), [1.0, 2.0, 1.0, 2.0, 3.0]);
        assert_eq!(own(2), own(0));
        assert_eq!(own(3), [103.0, 104.0, 104.0, 105.0, 106.0]);
    }

    #[test]
    fn who_fails_in_one_pass_has_no_figures_and_says_why() {
        for failing in [1, 2] {
            let case = case(4, Some(failing));
            let rows = gathered(&case, 2);
            assert!(matches!(&rows[0].cells[&Who::Raw], Cell::Absent(why) if why == "fails"));
            assert_eq!(rows[0].cells[&Who::Beadwork].samples().len(), 4);
            assert_eq!(rows[0].times(Who::Raw), None);
        }
    }

    #[test]
    fn ratios_are_of_each_repetition_and_none_of_nothing() {
        let case = case(3, None);
        let row = |own: [f64; 3], other: [f64; 3]| {
            let cells = [(Who::Beadwork, own), (Who::Beadie, other)];
            let cells = cells.map(|(who, samples)| (who, Cell::Samples(samples.to_vec())));
            RowResult::new(&case, &case.stages[0][0], cells.into())
        };
        // The ratio of the medians would be 1.
        assert_eq!(row([1.0, 2.0, 3.0], [2.0, 4.0, 1.0]).times(Who::Beadie), Some(0.5));
        assert_eq!(row([0.0; 3], [2.0; 3]).times(Who::Beadie), None);
        assert_eq!(row([1.0; 3], [0.0; 3]).times(Who::Beadie), None);
        let apart = Row::nanos("apart").not_compared();
        let cells = [Who::Beadwork, Who::Beadie].map(|who| (who, Cell::Samples(vec![1.0])));
        assert_eq!(RowResult::new(&case, &apart, cells.into()).times(Who::Beadie), None);
    }
}
