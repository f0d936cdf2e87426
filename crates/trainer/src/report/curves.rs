//! `curves.svg` and `curves.png`: loss, held-out bits per byte, learning rate and gradient norm over the steps.

use super::Line;
use blackletter_figures::{FONT, Picture, render};
use plotters::{
    coord::Shift,
    prelude::{
        ChartBuilder, Circle, Color, DrawingArea, DrawingBackend, IntoFont, IntoLogRange, LineSeries,
        RGBColor, SeriesLabelPosition, WHITE,
    },
};
use std::{error::Error, ops::Range, path::Path};

const SIZE: (u32, u32) = (1100, 760);
const COLORS: [RGBColor; 8] = [
    RGBColor(31, 119, 180),
    RGBColor(214, 39, 40),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(255, 127, 14),
    RGBColor(23, 190, 207),
    RGBColor(140, 86, 75),
    RGBColor(127, 127, 127),
];

type Failed = Box<dyn Error + Send + Sync>;
type Points = Vec<(f64, f64)>;

/// Draws the curves of a run's lines into files with the endings of SVG and PNG.
///
/// # Errors
/// When they cannot be written.
pub fn draw(lines: &[Line], path: &Path) -> Result<(), Failed> {
    render(&Curves(lines))?.write(path)?;
    Ok(())
}

struct Curves<'l>(&'l [Line]);

impl Picture for Curves<'_> {
    fn size(&self) -> (u32, u32) {
        SIZE
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        draw_all(area, self.0)
    }
}

fn draw_all<B: DrawingBackend>(root: &DrawingArea<B, Shift>, lines: &[Line]) -> Result<(), String> {
    let text = |e: &dyn std::fmt::Display| e.to_string();
    root.fill(&WHITE).map_err(|e| text(&e))?;
    let panels = root.split_evenly((2, 2));
    let steps = |value: fn(&super::StepRecord) -> f64| -> Points {
        lines
            .iter()
            .filter_map(|line| match line {
                Line::Step(r) => Some((r.step as f64, value(r))),
                Line::Evaluation { .. } => None,
            })
            .filter(|(_, y)| y.is_finite())
            .collect()
    };
    let loss = steps(|r| r.cross_entropy);
    let smooth = smoothed(&loss);
    let mut heldout: Vec<(String, Points)> = Vec::new();
    for line in lines {
        let Line::Evaluation { step, of, scores } = line else { continue };
        for (name, score) in scores.datasets.iter().filter(|_| of == "weights") {
            let point = (*step as f64, score.bits_per_byte);
            match heldout.iter_mut().find(|(known, _)| known == name) {
                Some((_, points)) => points.push(point),
                None => heldout.push((name.clone(), vec![point])),
            }
        }
    }
    let all = [
        ("cross-entropy", vec![("step".into(), loss), ("mean of the last 50".to_string(), smooth)], false),
        ("held-out bits per byte", heldout, false),
        ("learning rate", vec![(String::new(), steps(|r| r.rate))], false),
        ("gradient norm", vec![(String::new(), steps(|r| r.gradient_norm))], true),
    ];
    for (panel, (title, series, logarithmic)) in panels.iter().zip(all) {
        draw_panel(panel, title, &series, logarithmic)?;
    }
    Ok(())
}

fn smoothed(points: &Points) -> Points {
    (0..points.len())
        .map(|i| {
            let window = points.get(i.saturating_sub(49)..=i).unwrap_or_default();
            let mean = window.iter().map(|p| p.1).sum::<f64>() / window.len().max(1) as f64;
            (points.get(i).map_or(0.0, |p| p.0), mean)
        })
        .collect()
}

fn range(values: impl Iterator<Item = f64> + Clone) -> Range<f64> {
    let (low, high) =
        (values.clone().fold(f64::INFINITY, f64::min), values.fold(f64::NEG_INFINITY, f64::max));
    if low >= high { low - 0.5..high + 0.5 } else { low - 0.04 * (high - low)..high + 0.04 * (high - low) }
}

fn draw_panel<B: DrawingBackend>(
    panel: &DrawingArea<B, Shift>,
    title: &str,
    series: &[(String, Points)],
    logarithmic: bool,
) -> Result<(), String> {
    let points = series.iter().flat_map(|(_, points)| points.iter().copied());
    if points.clone().next().is_none() {
        return Ok(());
    }
    let x = range(points.clone().map(|p| p.0));
    let x = x.start.max(0.0)..x.end;
    let ys = points.map(|p| p.1);
    let mut builder = ChartBuilder::on(panel);
    builder.caption(title, (FONT, 18).into_font()).margin(12).x_label_area_size(28).y_label_area_size(64);
    // Two types of axes: the same lines for both.
    macro_rules! fill {
        ($y:expr) => {{
            let mut chart = builder.build_cartesian_2d(x, $y).map_err(|e| e.to_string())?;
            chart
                .configure_mesh()
                .light_line_style(WHITE)
                .x_labels(6)
                .y_labels(6)
                .draw()
                .map_err(|e| e.to_string())?;
            let mut labelled = false;
            for (i, (name, points)) in series.iter().enumerate() {
                let color = COLORS.get(i % COLORS.len()).copied().unwrap_or(COLORS[0]);
                let line = LineSeries::new(points.iter().copied(), color.stroke_width(1));
                let drawn = chart.draw_series(line).map_err(|e| e.to_string())?;
                if !name.is_empty() {
                    labelled = true;
                    drawn.label(name).legend(move |(x, y)| Circle::new((x + 8, y), 4, color.filled()));
                }
                if points.len() <= 40 {
                    let dots = points.iter().map(|&p| Circle::new(p, 2, color.filled()));
                    chart.draw_series(dots).map_err(|e| e.to_string())?;
                }
            }
            if labelled {
                chart
                    .configure_series_labels()
                    .position(SeriesLabelPosition::UpperRight)
                    .background_style(WHITE.mix(0.8))
                    .draw()
                    .map_err(|e| e.to_string())?;
            }
        }};
    }
    if logarithmic {
        let low = ys.clone().filter(|y| *y > 0.0).fold(f64::INFINITY, f64::min).min(1e30);
        let high = ys.fold(low, f64::max);
        fill!((low * 0.9..high * 1.1).log_scale());
    } else {
        fill!(range(ys));
    }
    Ok(())
}
