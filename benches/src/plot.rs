//! The scaling curves: what a dispatch costs with more and more functions.

use crate::contender::Who;
use crate::run::{Cell, RowResult};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

type Failure = Box<dyn std::error::Error>;

const SIZES: [(&str, f64); 5] = [
    ("dispatch 1", 1.0),
    ("dispatch 1 K", 1e3),
    ("dispatch 100 K", 1e5),
    ("dispatch 1 M", 1e6),
    ("dispatch 4 M", 4e6),
];

fn color(who: Who) -> RGBColor {
    match who {
        Who::Raw => RGBColor(130, 130, 130),
        Who::Beadwork => RGBColor(0, 114, 178),
        Who::Beadie => RGBColor(213, 94, 0),
        Who::DashMap => RGBColor(0, 158, 115),
        Who::RwLock => RGBColor(204, 121, 167),
    }
}

/// Draws the dispatch rows of a run.
///
/// # Errors
/// If there are no such rows, or the file cannot be written.
pub fn draw(rows: &[RowResult], path: &Path) -> Result<(), Failure> {
    let area = SVGBackend::new(path, (1100, 480)).into_drawing_area();
    area.fill(&WHITE)?;
    let halves = area.split_evenly((1, 2));
    for (half, (row, title)) in halves.iter().zip([
        ("compiled", "dispatch and call of compiled functions"),
        ("cold", "count of functions without code"),
    ]) {
        panel(half, rows, row, title)?;
    }
    area.present()?;
    Ok(())
}

fn points(rows: &[RowResult], name: &str, who: Who) -> Vec<(f64, f64)> {
    let of_size = |(case, functions): (&str, f64)| {
        let row = rows.iter().find(|row| row.case == case && row.name == name)?;
        Some((functions, row.cells.get(&who).and_then(Cell::median)?))
    };
    SIZES.into_iter().filter_map(of_size).collect()
}

fn panel(
    area: &DrawingArea<SVGBackend<'_>, Shift>,
    rows: &[RowResult],
    name: &str,
    title: &str,
) -> Result<(), Failure> {
    let curves: Vec<_> = Who::ALL.into_iter().map(|who| (who, points(rows, name, who))).collect();
    let heights = || curves.iter().flat_map(|(_, points)| points).map(|(_, nanos)| *nanos);
    let (low, high) = (heights().fold(f64::MAX, f64::min), heights().fold(0.0, f64::max));
    if high == 0.0 {
        return Err("no dispatch case was run, so there is nothing to draw".into());
    }
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(55)
        .build_cartesian_2d((0.8..6e6).log_scale(), (low * 0.7..high * 1.5).log_scale())?;
    chart
        .configure_mesh()
        .x_desc("functions, in random order")
        .y_desc("ns per call")
        .x_label_formatter(&|functions| match *functions {
            functions if functions >= 1e6 => format!("{} M", functions / 1e6),
            functions if functions >= 1e3 => format!("{} K", functions / 1e3),
            functions => functions.to_string(),
        })
        .y_label_formatter(&|nanos| nanos.to_string())
        .light_line_style(WHITE)
        .draw()?;
    for (who, points) in curves {
        let color = color(who);
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)).point_size(4))?
            .label(who.name())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(RGBColor(200, 200, 200))
        .draw()?;
    Ok(())
}
