//! Figures, each as SVG and as PNG.
//!
//! In flows a [`Picture`], drawn with `plotters`; out flows a [`Figure`]. A PNG has twice as many points to each side as the SVG
//! has units. Letters come from a font that the program carries, so that a figure is the same on every machine, fonts there or
//! not: DejaVu Sans, cut down to the letters of European languages and the signs of figures. The SVG names no font of its own.

mod scaled;

use plotters::{
    coord::Shift,
    prelude::{BitMapBackend, DrawingArea, DrawingBackend, IntoDrawingArea, SVGBackend},
    style::{FontStyle, IntoFont, register_font},
};
use scaled::Scaled;
use std::{fmt::Display, fs, io, path::Path, sync::OnceLock};

/// The family that texts of pictures are set in.
pub const FONT: &str = "sans-serif";

/// Points of a PNG for each unit of a picture.
const SCALE: u32 = 2;

static LETTERS: &[u8] = include_bytes!("DejaVuSans-subset.ttf");

/// Something that is drawn.
pub trait Picture {
    /// Width and height.
    fn size(&self) -> (u32, u32);

    /// Draws it on an empty area of its size.
    ///
    /// # Errors
    /// When it cannot be drawn, with the reason.
    fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String>;
}

/// A picture that was drawn.
#[derive(Clone, PartialEq, Eq)]
pub struct Figure {
    /// As SVG.
    pub svg: String,
    /// As PNG.
    pub png: Vec<u8>,
}

impl std::fmt::Debug for Figure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Figure").field("svg", &self.svg).field("png_bytes", &self.png.len()).finish()
    }
}

/// A picture cannot be drawn.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct FigureError(String);

impl FigureError {
    fn of(reason: impl Display) -> Self {
        Self(reason.to_string())
    }
}

/// Makes the letters known.
fn letters() -> Result<(), FigureError> {
    static KNOWN: OnceLock<bool> = OnceLock::new();
    match KNOWN.get_or_init(|| register_font(FONT, FontStyle::Normal, LETTERS).is_ok()) {
        true => Ok(()),
        false => Err(FigureError("the font inside the program cannot be read".into())),
    }
}

/// How wide a text is in a picture, set in letters of that size.
///
/// # Errors
/// When there are no letters.
pub fn text_width(text: &str, size: u32) -> Result<u32, FigureError> {
    letters()?;
    (FONT, size).into_font().box_size(text).map(|(width, _)| width).map_err(FigureError::of)
}

/// Draws a picture.
///
/// # Errors
/// When it cannot be drawn.
pub fn render(picture: &impl Picture) -> Result<Figure, FigureError> {
    letters()?;
    let (width, height) = picture.size();
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (width, height)).into_drawing_area();
        picture.draw(&area).map_err(FigureError)?;
        area.present().map_err(FigureError::of)?;
    }
    let (width, height) = (width * SCALE, height * SCALE);
    let mut points = vec![u8::MAX; width as usize * height as usize * 3];
    {
        let bitmap = BitMapBackend::with_buffer(&mut points, (width, height));
        let area = Scaled::new(bitmap, SCALE).into_drawing_area();
        picture.draw(&area).map_err(FigureError)?;
        area.present().map_err(FigureError::of)?;
    }
    Ok(Figure { svg, png: encode(&points, width, height)? })
}

fn encode(points: &[u8], width: u32, height: u32) -> Result<Vec<u8>, FigureError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_compression(png::Compression::High);
    let mut writer = encoder.write_header().map_err(FigureError::of)?;
    writer.write_image_data(points).map_err(FigureError::of)?;
    writer.finish().map_err(FigureError::of)?;
    Ok(bytes)
}

impl Figure {
    /// Writes `path` with the endings `.svg` and `.png`.
    ///
    /// # Errors
    /// When a file cannot be written.
    pub fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path.with_extension("svg"), &self.svg)?;
        fs::write(path.with_extension("png"), &self.png)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use plotters::{
        prelude::{Color, PathElement, Rectangle, Text},
        style::{BLACK, RGBColor, WHITE},
    };

    struct Sign(&'static str);

    impl Picture for Sign {
        fn size(&self) -> (u32, u32) {
            (120, 40)
        }

        fn draw<B: DrawingBackend>(&self, area: &DrawingArea<B, Shift>) -> Result<(), String> {
            area.fill(&WHITE).map_err(|e| e.to_string())?;
            let red = RGBColor(200, 0, 0);
            area.draw(&Rectangle::new([(10, 20), (30, 40)], red.filled())).map_err(|e| e.to_string())?;
            let line = PathElement::new(vec![(100, 4), (100, 36)], BLACK.stroke_width(2));
            area.draw(&line).map_err(|e| e.to_string())?;
            area.draw(&Text::new(self.0, (40, 4), (FONT, 14).into_font())).map_err(|e| e.to_string())
        }
    }

    fn decoded(png: &[u8]) -> (Vec<u8>, u32, u32) {
        let mut reader = png::Decoder::new(io::Cursor::new(png)).read_info().unwrap();
        let mut points = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut points).unwrap();
        (points, info.width, info.height)
    }

    fn at(points: &[u8], width: u32, x: u32, y: u32) -> [u8; 3] {
        let from = ((y * width + x) * 3) as usize;
        points[from..from + 3].try_into().unwrap()
    }

    #[test]
    fn both_forms_show_the_same_in_the_same_places() {
        let figure = render(&Sign("§ 105")).unwrap();
        assert!(figure.svg.starts_with("<svg") && figure.svg.contains("§ 105"), "{}", figure.svg);
        let (points, width, height) = decoded(&figure.png);
        assert_eq!((width, height), (240, 80));
        assert_eq!(at(&points, width, 40, 60), [200, 0, 0]);
        assert_eq!(at(&points, width, 40, 30), [255, 255, 255]);
        assert_eq!(at(&points, width, 200, 40), [0, 0, 0]);
    }

    #[test]
    fn letters_are_drawn_and_differ() {
        let ink = |text: &'static str| {
            let (points, width, _) = decoded(&render(&Sign(text)).unwrap().png);
            (80..190)
                .flat_map(|x| (0..40).map(move |y| (x, y)))
                .map(|(x, y)| at(&points, width, x, y))
                .collect::<Vec<_>>()
        };
        let dark = |points: &[[u8; 3]]| points.iter().filter(|p| p[0] < 100).count();
        let (none, dot, word) = (ink(" "), ink("."), ink("Wörter"));
        assert_eq!(dark(&none), 0);
        assert!(dark(&dot) > 0 && dark(&word) > 20 * dark(&dot), "{} {}", dark(&dot), dark(&word));
        assert_ne!(ink("–"), ink("ß"));
    }

    #[test]
    fn texts_are_measured_as_they_are_drawn() {
        let (one, three) = (text_width("W", 14).unwrap(), text_width("WWW", 14).unwrap());
        assert!((11..16).contains(&one) && three.abs_diff(3 * one) < 4, "{one} {three}");
        assert!(text_width("W", 28).unwrap().abs_diff(2 * one) < 3);
    }

    #[test]
    fn files_get_their_endings() {
        let dir = std::env::temp_dir().join(format!("blackletter-figures-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        render(&Sign("x")).unwrap().write(&dir.join("a")).unwrap();
        assert!(fs::read(dir.join("a.png")).unwrap().starts_with(b"\x89PNG"));
        assert!(fs::read_to_string(dir.join("a.svg")).unwrap().starts_with("<svg"));
        fs::remove_dir_all(&dir).unwrap();
    }
}
