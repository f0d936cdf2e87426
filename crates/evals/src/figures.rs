//! Figures of evaluations.

use crate::{EvalError, bootstrap::Estimate};
use blackletter_figures::{FONT, Figure, Picture, render};
use plotters::{
    chart::ChartBuilder,
    coord::Shift,
    prelude::{Color, DrawingArea, DrawingBackend, PathElement, RGBColor, Rectangle, Text, WHITE},
    style::{
        BLACK, IntoFont, ShapeStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

/// Colours that are told apart without seeing red and green (Okabe & Ito 2008).
const COLOURS: [RGBColor; 7] = [
    RGBColor(0, 114, 178),
    RGBColor(230, 159, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(213, 94, 0),
    RGBColor(120, 120, 120),
];
const HEIGHT: u32 = 340;

fn colour(series: usize) -> RGBColor {
    COLOURS.get(series % COLOURS.len()).copied().unwrap_or(BLACK)
}

/// Bars of several series side by side for each group, with intervals. `unit` is written at the axis.
///
/// # Errors
/// When there is nothing to draw.
pub fn bars(
    title: &str,
    unit: &str,
    series: &[String],
    groups: &[(String, Vec<Estimate>)],
) -> Result<Figure, EvalError> {
    let top = groups.iter().flat_map(|(_, values)| values).filter_map(|e| e.high.or(Some(e.value)));
    let top = top.filter(|value| value.is_finite()).fold(0.0, f64::max);
    let chart =
        Chart { title, unit, series, groups: groups.len(), top: if top > 0.0 { 1.08 * top } else { 1.0 } };
    chart.draw(|draw| {
        for (at, (name, values)) in groups.iter().enumerate() {
            let width = 0.8 / values.len().max(1) as f64;
            for (series, e) in values.iter().enumerate().filter(|(_, e)| e.value.is_finite()) {
                let left = at as f64 + 0.1 + width * series as f64;
                draw.bar(left, left + 0.92 * width, 0.0, e.value, colour(series))?;
                if let (Some(low), Some(high)) = (e.low, e.high) {
                    draw.whisker(left + 0.46 * width, low, high)?;
                }
            }
            draw.label(at as f64 + 0.5, name)?;
        }
        Ok(())
    })
}

/// A bar for each group in which the shares of `parts` stand on each other; shares are from 0 to 1.
///
/// # Errors
/// When there is nothing to draw.
pub fn stacked(title: &str, parts: &[String], groups: &[(String, Vec<f64>)]) -> Result<Figure, EvalError> {
    let chart = Chart { title, unit: "share", series: parts, groups: groups.len(), top: 1.0 };
    chart.draw(|draw| {
        for (at, (name, shares)) in groups.iter().enumerate() {
            let mut from = 0.0;
            for (part, share) in shares.iter().enumerate() {
                draw.bar(at as f64 + 0.2, at as f64 + 0.8, from, from + share, colour(part))?;
                from += share;
            }
            draw.label(at as f64 + 0.5, name)?;
        }
        Ok(())
    })
}

struct Chart<'c> {
    title: &'c str,
    unit: &'c str,
    series: &'c [String],
    groups: usize,
    top: f64,
}

/// What a chart is drawn with: places are groups from left to right and values from below.
struct Draw<'d> {
    bar: &'d mut dyn FnMut(f64, f64, f64, f64, ShapeStyle) -> Result<(), String>,
    text: &'d mut dyn FnMut(f64, &str) -> Result<(), String>,
}

impl Draw<'_> {
    fn bar(&mut self, left: f64, right: f64, from: f64, to: f64, colour: RGBColor) -> Result<(), String> {
        (self.bar)(left, right, from, to, colour.filled())
    }

    fn whisker(&mut self, at: f64, low: f64, high: f64) -> Result<(), String> {
        (self.bar)(at - 0.004, at + 0.004, low, high, BLACK.filled())
    }

    fn label(&mut self, at: f64, text: &str) -> Result<(), String> {
        (self.text)(at, text)
    }
}

/// A chart and what is drawn on it.
struct Filled<'c, F> {
    chart: &'c Chart<'c>,
    fill: F,
}

impl Chart<'_> {
    fn draw(&self, fill: impl Fn(&mut Draw<'_>) -> Result<(), String>) -> Result<Figure, EvalError> {
        if self.groups == 0 {
            return Err(EvalError::Nothing(format!("there is nothing to draw in `{}`", self.title)));
        }
        render(&Filled { chart: self, fill })
            .map_err(|reason| EvalError::Nothing(format!("`{}` cannot be drawn: {reason}", self.title)))
    }

    /// Height of the line that says which colour is which.
    fn legend(&self) -> u32 {
        if self.series.len() > 1 { 20 } else { 0 }
    }
}

impl<F: Fn(&mut Draw<'_>) -> Result<(), String>> Picture for Filled<'_, F> {
    fn size(&self) -> (u32, u32) {
        let width = (160 + 110 * self.chart.groups as u32).clamp(480, 1400);
        (width, HEIGHT + self.chart.legend())
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        let Self { chart, fill } = self;
        let &&Chart { title, unit, series, groups, top } = chart;
        let legend = chart.legend();
        let text = |e: &dyn ToString| e.to_string();
        area.fill(&WHITE).map_err(|e| text(&e))?;
        let (upper, lower) = area.split_vertically(HEIGHT);
        let mut chart = ChartBuilder::on(&upper)
            .caption(title, (FONT, 17))
            .margin(8)
            .x_label_area_size(34)
            .y_label_area_size(56)
            .build_cartesian_2d(0.0..groups as f64, 0.0..top)
            .map_err(|e| text(&e))?;
        chart
            .configure_mesh()
            .disable_x_mesh()
            .x_labels(0)
            .y_desc(unit)
            .label_style((FONT, 12))
            .draw()
            .map_err(|e| text(&e))?;
        let (mut rectangles, mut labels) = (Vec::new(), Vec::new());
        fill(&mut Draw {
            bar: &mut |left, right, from, to, style| {
                rectangles.push(Rectangle::new([(left, from), (right, to)], style));
                Ok(())
            },
            text: &mut |at, name| {
                labels.push((at, name.to_owned()));
                Ok(())
            },
        })?;
        chart.draw_series(rectangles).map_err(|e| text(&e))?;
        let middle = (FONT, 12).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
        for (at, name) in labels {
            let (x, y) = chart.backend_coord(&(at, 0.0));
            upper.draw(&Text::new(name, (x, y + 6), middle.clone())).map_err(|e| text(&e))?;
        }
        let mut x = 60;
        for (series, name) in series.iter().enumerate().filter(|_| legend > 0) {
            let style = colour(series).stroke_width(10);
            lower.draw(&PathElement::new(vec![(x, 8), (x + 14, 8)], style)).map_err(|e| text(&e))?;
            let font = (FONT, 12).into_font();
            let (width, _) = font.box_size(name).map_err(|e| text(&e))?;
            lower.draw(&Text::new(name.clone(), (x + 20, 2), font)).map_err(|e| text(&e))?;
            x += 40 + width as i32;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_stand_for_values_and_names_are_escaped() {
        let e = |value| Estimate { value, low: Some(value - 0.1), high: Some(value + 0.1) };
        let groups = [("a<b".to_owned(), vec![e(1.0), e(2.0)]), ("c".to_owned(), vec![e(0.5), e(f64::NAN)])];
        let series = ["one".to_owned(), "two".to_owned()];
        let svg = bars("Bits & bytes", "bits", &series, &groups).unwrap().svg;
        assert!(
            svg.starts_with("<svg") && svg.contains("a&lt;b") && svg.contains("Bits &amp; bytes"),
            "{svg}"
        );
        // Three bars with a whisker each, the background, two legends' paths apart.
        assert_eq!(svg.matches("<rect").count(), 1 + 6, "{svg}");
        assert!(bars("x", "y", &[], &[]).is_err());
    }

    #[test]
    fn shares_stand_on_each_other() {
        let groups = [("m".to_owned(), vec![0.5, 0.25, 0.25])];
        let svg = stacked("Scores", &["0".into(), "1".into(), "2".into()], &groups).unwrap().svg;
        assert_eq!(svg.matches("<rect").count(), 1 + 3, "{svg}");
    }
}
