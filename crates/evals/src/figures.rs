//! Figures of evaluations.
//!
//! A picture is as large as what is in it: groups that do not fit side by side go on in further rows, names are set in several
//! lines where one is too long, and so is the legend.

use crate::{EvalError, bootstrap::Estimate, markdown::whole};
use blackletter_figures::{FONT, Figure, FigureError, Picture, render, text_width};
use plotters::{
    chart::ChartBuilder,
    coord::Shift,
    prelude::{
        Color, DrawingArea, DrawingBackend, PathElement, RGBColor, Rectangle, Text, ViridisRGB, WHITE,
    },
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

/// Groups that are drawn at most.
const MOST_GROUPS: usize = 100;
/// Width of a group with few series, and of a row of groups.
const GROUP: u32 = 110;
const ROW: u32 = 11 * GROUP;
/// Least width of a bar.
const BAR: u32 = 8;
/// Beside the groups: margins and the numbers of the axis; on the left alone.
const BESIDE: u32 = 72;
const LEFT: i32 = 64;
/// Height of a row without the names of its groups, and of the title over the first.
const PLOT: u32 = 280;
const TITLE: u32 = 26;
/// Letters of names, the height of their lines, and what is left free between them.
const LETTERS: u32 = 12;
const LINE: u32 = 14;
const FREE: u32 = 8;
/// Lines of a name.
const LINES: usize = 4;

/// So many colours from light to dark, for what has an order and for more than the colours above.
fn ramp(parts: usize) -> Vec<RGBColor> {
    let last = parts.saturating_sub(1).max(1) as f64;
    (0..parts).map(|part| ViridisRGB::get_color(1.0 - part as f64 / last)).collect()
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
    let colours = if series.len() > COLOURS.len() { ramp(series.len()) } else { COLOURS.to_vec() };
    let names = groups.iter().map(|(name, _)| name.as_str()).collect();
    let chart = Chart { title, unit, series, colours, names, top: if top > 0.0 { 1.08 * top } else { 1.0 } };
    chart.draw(series.len(), |at, draw| {
        let Some((_, values)) = groups.get(at) else { return };
        let width = 0.8 / values.len().max(1) as f64;
        for (series, e) in values.iter().enumerate().filter(|(_, e)| e.value.is_finite()) {
            let left = 0.1 + width * series as f64;
            draw.bar(left, left + 0.92 * width, 0.0, e.value, series);
            if let (Some(low), Some(high)) = (e.low, e.high) {
                draw.whisker(left + 0.46 * width, low, high);
            }
        }
    })
}

/// A bar for each group in which the shares of `parts`, which have an order, stand on each other; shares are from 0 to 1.
///
/// # Errors
/// When there is nothing to draw.
pub fn stacked(title: &str, parts: &[String], groups: &[(String, Vec<f64>)]) -> Result<Figure, EvalError> {
    let names = groups.iter().map(|(name, _)| name.as_str()).collect();
    let chart = Chart { title, unit: "share", series: parts, colours: ramp(parts.len()), names, top: 1.0 };
    chart.draw(1, |at, draw| {
        let mut from = 0.0;
        for (part, share) in groups.get(at).iter().flat_map(|(_, shares)| shares).enumerate() {
            draw.bar(0.2, 0.8, from, from + share, part);
            from += share;
        }
    })
}

struct Chart<'c> {
    title: &'c str,
    unit: &'c str,
    series: &'c [String],
    colours: Vec<RGBColor>,
    names: Vec<&'c str>,
    top: f64,
}

/// What a group is drawn with: places are shares of its width and values from below.
struct Draw<'d> {
    colours: &'d [RGBColor],
    /// Half of what a whisker takes, a little more than a point in all.
    thin: f64,
    left: f64,
    rectangles: Vec<Rectangle<(f64, f64)>>,
}

impl Draw<'_> {
    fn rectangle(&mut self, left: f64, right: f64, from: f64, to: f64, style: ShapeStyle) {
        self.rectangles.push(Rectangle::new([(self.left + left, from), (self.left + right, to)], style));
    }

    fn bar(&mut self, left: f64, right: f64, from: f64, to: f64, series: usize) {
        let colour = self.colours.get(series).copied().unwrap_or(BLACK);
        self.rectangle(left, right, from, to, colour.filled());
    }

    fn whisker(&mut self, at: f64, low: f64, high: f64) {
        self.rectangle(at - self.thin, at + self.thin, low, high, BLACK.filled());
    }
}

/// Where everything goes.
struct Layout {
    title: String,
    width: u32,
    /// Groups of a row.
    columns: usize,
    /// The lines of each group's name.
    names: Vec<Vec<String>>,
    /// Height of the highest name.
    name_height: u32,
    legend: Vec<Entry>,
    legend_height: u32,
}

/// A colour and whose it is.
struct Entry {
    x: i32,
    y: i32,
    lines: Vec<String>,
}

impl Layout {
    fn of(chart: &Chart<'_>, bars: usize) -> Result<Self, FigureError> {
        let groups = chart.names.len().min(MOST_GROUPS);
        let group = GROUP.max(FREE + BAR * bars as u32);
        let columns = groups.div_ceil(groups.div_ceil((ROW / group).max(1) as usize).max(1)).max(1);
        let width = (160 + group * columns as u32).max(480);
        let room = (width - BESIDE) / columns as u32 - FREE;
        let names = chart.names.iter().take(groups).map(|name| wrapped(name, room, LINES));
        let names: Vec<Vec<String>> = names.collect::<Result<_, _>>()?;
        let lines = names.iter().map(Vec::len).max().unwrap_or(1) as u32;
        let title = match chart.names.len() {
            all if all > groups => format!("{} (the first {groups} of {})", chart.title, whole(all as u64)),
            _ => chart.title.to_owned(),
        };
        let (legend, legend_height) = legend(chart.series, width)?;
        let name_height = (FREE + LINE * lines + FREE).max(34);
        Ok(Self { title, width, columns, names, name_height, legend, legend_height })
    }

    /// Height of a row.
    fn row(&self, row: usize) -> u32 {
        PLOT + self.name_height + if row == 0 { TITLE } else { 0 }
    }

    fn rows(&self) -> usize {
        self.names.len().div_ceil(self.columns)
    }
}

/// The legend in lines of that width, and their height; none for a series alone.
fn legend(series: &[String], width: u32) -> Result<(Vec<Entry>, u32), FigureError> {
    let (mut entries, mut x, mut y, mut height) = (Vec::new(), LEFT, 2, 0);
    let right = width as i32 - FREE as i32;
    for name in series.iter().filter(|_| series.len() > 1) {
        // After the colour.
        let lines = wrapped(name, (right - LEFT - 20) as u32, LINES)?;
        let mut wide = 0;
        for line in &lines {
            wide = wide.max(20 + text_width(line, LETTERS)? as i32);
        }
        if x > LEFT && x + wide > right {
            (x, y, height) = (LEFT, y + height, 0);
        }
        height = height.max(LINE as i32 * lines.len() as i32 + 4);
        entries.push(Entry { x, y, lines });
        x += wide + 20;
    }
    Ok((entries, if height > 0 { (y + height) as u32 } else { 0 }))
}

/// A text in at most `most` lines that are no wider than `room`: broken after blanks and marks, and within a word where nothing
/// else helps; what is longer ends in an ellipsis.
fn wrapped(text: &str, room: u32, most: usize) -> Result<Vec<String>, FigureError> {
    let text: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(1000).collect();
    let fits = |line: &str| Ok::<_, FigureError>(text_width(line.trim(), LETTERS)? <= room);
    let mut lines = vec![String::new()];
    for piece in text.split_inclusive([' ', '-', '_', '/', '.', ',', ':']) {
        let last = lines.last().map(String::as_str).unwrap_or_default();
        if !last.is_empty() && !fits(&format!("{last}{piece}"))? {
            lines.push(String::new());
        }
        let whole = fits(piece)?;
        for c in piece.chars() {
            let last = lines.last().map(String::as_str).unwrap_or_default();
            if !whole && !last.is_empty() && !fits(&format!("{last}{c}"))? {
                lines.push(String::new());
            }
            if let Some(line) = lines.last_mut() {
                line.push(c);
            }
        }
        if lines.len() > most {
            break;
        }
    }
    if lines.len() > most {
        lines.truncate(most);
        if let Some(line) = lines.last_mut() {
            while !line.is_empty() && !fits(&format!("{line}…"))? {
                line.pop();
            }
            line.push('…');
        }
    }
    Ok(lines.into_iter().map(|line| line.trim().to_owned()).collect())
}

/// A chart and what is drawn on it.
struct Filled<'c, F> {
    chart: &'c Chart<'c>,
    layout: Layout,
    fill: F,
}

impl Chart<'_> {
    /// `fill` draws the group of that number, which has so many bars side by side.
    fn draw(&self, bars: usize, fill: impl Fn(usize, &mut Draw<'_>)) -> Result<Figure, EvalError> {
        if self.names.is_empty() {
            return Err(EvalError::Nothing(format!("there is nothing to draw in `{}`", self.title)));
        }
        Layout::of(self, bars)
            .and_then(|layout| render(&Filled { chart: self, layout, fill }))
            .map_err(|reason| EvalError::Nothing(format!("`{}` cannot be drawn: {reason}", self.title)))
    }
}

impl<F: Fn(usize, &mut Draw<'_>)> Picture for Filled<'_, F> {
    fn size(&self) -> (u32, u32) {
        let Layout { width, legend_height, .. } = self.layout;
        (width, (0..self.layout.rows()).map(|row| self.layout.row(row)).sum::<u32>() + legend_height)
    }

    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
        let Self { chart, layout, fill } = self;
        let text = |e: &dyn ToString| e.to_string();
        area.fill(&WHITE).map_err(|e| text(&e))?;
        let middle = (FONT, LETTERS).into_font().color(&BLACK).pos(Pos::new(HPos::Center, VPos::Top));
        let mut rest = area.clone();
        for (row, names) in layout.names.chunks(layout.columns).enumerate() {
            let (here, below) = rest.split_vertically(layout.row(row));
            rest = below;
            let mut builder = ChartBuilder::on(&here);
            builder.margin(8).x_label_area_size(layout.name_height).y_label_area_size(56);
            if row == 0 {
                builder.caption(&layout.title, (FONT, 17));
            }
            let mut plot = builder
                .build_cartesian_2d(0.0..layout.columns as f64, 0.0..chart.top)
                .map_err(|e| text(&e))?;
            plot.configure_mesh()
                .disable_x_mesh()
                .x_labels(0)
                .y_desc(chart.unit)
                .label_style((FONT, LETTERS))
                .draw()
                .map_err(|e| text(&e))?;
            let thin = 0.6 * layout.columns as f64 / f64::from(layout.width - BESIDE);
            let mut draw = Draw { colours: &chart.colours, thin, left: 0.0, rectangles: Vec::new() };
            for at in 0..names.len() {
                draw.left = at as f64;
                fill(row * layout.columns + at, &mut draw);
            }
            plot.draw_series(draw.rectangles).map_err(|e| text(&e))?;
            for (at, lines) in names.iter().enumerate() {
                let (x, mut y) = plot.backend_coord(&(at as f64 + 0.5, 0.0));
                for line in lines {
                    area.draw(&Text::new(line.as_str(), (x, y + 6), middle.clone())).map_err(|e| text(&e))?;
                    y += LINE as i32;
                }
            }
        }
        for (entry, colour) in layout.legend.iter().zip(&chart.colours) {
            let Entry { x, y, lines } = entry;
            let swatch = PathElement::new(vec![(*x, y + 4), (x + 14, y + 4)], colour.stroke_width(10));
            rest.draw(&swatch).map_err(|e| text(&e))?;
            for (at, line) in lines.iter().enumerate() {
                let place = (x + 20, y + at as i32 * LINE as i32);
                let line = Text::new(line.as_str(), place, (FONT, LETTERS).into_font());
                rest.draw(&line).map_err(|e| text(&e))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    /// A text of a picture: left, top, right, bottom.
    type Place = (String, [f64; 4]);

    fn value<'s>(tag: &'s str, name: &str) -> &'s str {
        let from = tag.find(&format!(" {name}=\"")).unwrap() + name.len() + 3;
        &tag[from..from + tag[from..].find('"').unwrap()]
    }

    fn number(tag: &str, name: &str) -> f64 {
        value(tag, name).parse().unwrap()
    }

    /// Width and height of a picture, and its texts with the room that they take in the program's letters, which are wide ones.
    fn places(svg: &str) -> ([f64; 2], Vec<Place>) {
        let texts = svg.split("<text").skip(1).map(|part| {
            let (tag, rest) = part.split_once('>').unwrap();
            let shown = rest.split_once("</text>").unwrap().0.trim().to_owned();
            let (x, y, size) = (number(tag, "x"), number(tag, "y"), number(tag, "font-size"));
            let mut width = f64::from(text_width(&shown, (1.24 * size).round() as u32).unwrap());
            let mut height = size;
            let turned = tag.contains("rotate(270");
            if turned {
                (width, height) = (height, width);
            }
            let left = match value(tag, "text-anchor") {
                "middle" => x - width / 2.0,
                "end" => x - width,
                _ => x,
            };
            let top = if turned || value(tag, "dy") != "0.76em" { y - height / 2.0 } else { y };
            (shown, [left, top, left + width, top + height])
        });
        ([number(svg, "width"), number(svg, "height")], texts.collect())
    }

    /// Nothing leaves the picture, and no text covers another.
    fn check(svg: &str) -> [f64; 2] {
        let (size, texts) = places(svg);
        let [width, height] = size;
        for (name, [left, top, right, bottom]) in &texts {
            assert!(*left >= 0.0 && *top >= 0.0 && *right <= width && *bottom <= height, "{name}: {svg}");
        }
        for (at, (one, a)) in texts.iter().enumerate() {
            for (other, b) in &texts[at + 1..] {
                let apart = a[2] <= b[0] || b[2] <= a[0] || a[3] <= b[1] || b[3] <= a[1];
                assert!(apart, "{one} {a:?} and {other} {b:?}");
            }
        }
        for tag in svg.split("<rect").skip(1).chain(svg.split("<polyline").skip(1)) {
            let tag = tag.split_once('>').unwrap().0;
            let points: Vec<(f64, f64)> = if tag.contains(" points=") {
                let pair = |p: &str| p.split_once(',').map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()));
                value(tag, "points").split(' ').filter_map(pair).collect()
            } else {
                let (x, y) = (number(tag, "x"), number(tag, "y"));
                vec![(x, y), (x + number(tag, "width"), y + number(tag, "height"))]
            };
            let inside = |&(x, y): &(f64, f64)| x >= 0.0 && y >= 0.0 && x <= width && y <= height;
            assert!(points.iter().all(inside), "{tag}");
        }
        size
    }

    fn fills(svg: &str) -> Vec<&str> {
        svg.split("<rect").skip(1).map(|tag| value(tag, "fill")).collect()
    }

    fn e(value: f64) -> Estimate {
        Estimate { value, low: Some(value - 0.1), high: Some(value + 0.1) }
    }

    #[test]
    fn bars_stand_for_values_and_names_are_escaped() {
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
        check(&svg);
    }

    #[test]
    fn shares_stand_on_each_other_each_part_in_a_colour_of_its_own() {
        let parts: Vec<String> = (0..=10).map(|score| score.to_string()).collect();
        let groups = [("m".to_owned(), vec![1.0 / 11.0; 11])];
        let svg = stacked("Scores", &parts, &groups).unwrap().svg;
        let fills = fills(&svg);
        assert_eq!(fills.len(), 1 + 11, "{svg}");
        assert_eq!(fills.iter().collect::<BTreeSet<_>>().len(), 1 + 11, "{svg}");
        // From light to dark.
        let light: Vec<f64> = ramp(11)
            .iter()
            .map(|c| 0.299 * f64::from(c.0) + 0.587 * f64::from(c.1) + 0.114 * f64::from(c.2))
            .collect();
        assert!(light.is_sorted_by(|a, b| *a > *b + 5.0), "{light:?}");
        assert_eq!((ramp(1).len(), ramp(0).len()), (1, 0));
        check(&svg);
    }

    #[test]
    fn long_names_and_many_groups_and_models_have_room() {
        let names = [
            "federal-register",
            "court-listener-opinions",
            "court-listener-dockets",
            "a name of many words that goes on and on, longer than anybody would make one, and does not end there either",
            "averyverylongwordthatnothingbreaks",
            "usc",
        ];
        for (groups, models, short) in
            [(6, 1, false), (6, 9, false), (25, 2, false), (300, 1, true), (2, 30, false)]
        {
            let series: Vec<String> = (0..models)
                .map(|n| format!("{n} a-model-whose-name-is-long, q4, adapter agreements"))
                .collect();
            let groups: Vec<(String, Vec<Estimate>)> = (0..groups)
                .map(|n| (names[n % names.len()].to_owned(), vec![e(1.0 + n as f64); models]))
                .collect();
            let svg = bars("Bits per byte", "bits per byte, less is better", &series, &groups).unwrap().svg;
            let [width, _] = check(&svg);
            assert!(width <= 1600.0, "{width}");
            assert_eq!(svg.contains("(the first 100 of 300)"), short);
            let drawn = fills(&svg).len() - 1;
            let whiskers: Vec<&str> =
                svg.split("<rect").skip(1).filter(|tag| value(tag, "fill") == "#000000").collect();
            assert!(whiskers.iter().all(|tag| (1.0..=2.0).contains(&number(tag, "width"))), "{svg}");
            assert_eq!(whiskers.len(), groups.len().min(MOST_GROUPS) * models);
            assert_eq!(drawn, groups.len().min(MOST_GROUPS) * models * 2);
        }
        let lines = wrapped("court-listener-opinions", 102, LINES).unwrap();
        assert_eq!(lines, ["court-listener-", "opinions"]);
        let cut = wrapped(names[3], 102, LINES).unwrap();
        assert!(cut.len() == LINES && cut[3].ends_with('…'), "{cut:?}");
    }

    #[test]
    fn a_long_legend_goes_on_in_the_next_line() {
        let series: Vec<String> =
            (0..5).map(|n| format!("model number {n} of those that are compared")).collect();
        let groups = [("usc".to_owned(), vec![e(1.0); 5])];
        let figure = bars("Bits per byte", "bits", &series, &groups).unwrap();
        let one = bars("Bits per byte", "bits", &series[..1], &[("usc".to_owned(), vec![e(1.0)])]).unwrap();
        let ([_, many], [_, few]) = (check(&figure.svg), check(&one.svg));
        assert!(many >= few + 3.0 * f64::from(LINE), "{many} {few}");
        // The PNG is as large, point by point (its header has width and height from byte 16 on).
        let side = |at: usize| u32::from_be_bytes(figure.png[at..at + 4].try_into().unwrap());
        assert_eq!(f64::from(side(20)), 2.0 * many);
    }
}
