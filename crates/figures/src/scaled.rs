//! Another backend with several points for each unit: what is drawn on it gets finer, and stays where it was.

use plotters::{
    prelude::DrawingBackend,
    style::{Color, IntoFont, RGBAColor},
};
use plotters_backend::{
    BackendColor, BackendCoord, BackendStyle, BackendTextStyle, DrawingErrorKind, text_anchor::Pos,
};

/// A backend, and how many of its points a unit is.
pub(crate) struct Scaled<B> {
    inner: B,
    scale: u32,
}

/// A style whose lines are as many times thicker.
struct Thicker {
    color: BackendColor,
    width: u32,
}

impl BackendStyle for Thicker {
    fn color(&self) -> BackendColor {
        self.color
    }

    fn stroke_width(&self) -> u32 {
        self.width
    }
}

impl<B> Scaled<B> {
    pub(crate) fn new(inner: B, scale: u32) -> Self {
        Self { inner, scale }
    }

    fn place(&self, (x, y): BackendCoord) -> BackendCoord {
        (x * self.scale as i32, y * self.scale as i32)
    }

    fn style(&self, style: &impl BackendStyle) -> Thicker {
        Thicker { color: style.color(), width: style.stroke_width() * self.scale }
    }
}

type Drawn<B> = Result<(), DrawingErrorKind<<B as DrawingBackend>::ErrorType>>;

impl<B: DrawingBackend> DrawingBackend for Scaled<B> {
    type ErrorType = B::ErrorType;

    fn get_size(&self) -> (u32, u32) {
        let (width, height) = self.inner.get_size();
        (width / self.scale, height / self.scale)
    }

    fn ensure_prepared(&mut self) -> Drawn<B> {
        self.inner.ensure_prepared()
    }

    fn present(&mut self) -> Drawn<B> {
        self.inner.present()
    }

    fn draw_pixel(&mut self, point: BackendCoord, color: BackendColor) -> Drawn<B> {
        let (x, y) = self.place(point);
        let end = self.scale as i32 - 1;
        self.inner.draw_rect((x, y), (x + end, y + end), &color, true)
    }

    fn draw_line<S: BackendStyle>(&mut self, from: BackendCoord, to: BackendCoord, style: &S) -> Drawn<B> {
        self.draw_path([from, to], style)
    }

    fn draw_rect<S: BackendStyle>(
        &mut self,
        upper_left: BackendCoord,
        bottom_right: BackendCoord,
        style: &S,
        fill: bool,
    ) -> Drawn<B> {
        let (from, to, style) = (self.place(upper_left), self.place(bottom_right), self.style(style));
        self.inner.draw_rect(from, to, &style, fill)
    }

    fn draw_path<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        path: I,
        style: &S,
    ) -> Drawn<B> {
        let (scale, style) = (self.scale as i32, self.style(style));
        self.inner.draw_path(path.into_iter().map(|(x, y)| (x * scale, y * scale)), &style)
    }

    fn draw_circle<S: BackendStyle>(
        &mut self,
        center: BackendCoord,
        radius: u32,
        style: &S,
        fill: bool,
    ) -> Drawn<B> {
        let (center, radius, style) = (self.place(center), radius * self.scale, self.style(style));
        self.inner.draw_circle(center, radius, &style, fill)
    }

    fn fill_polygon<S: BackendStyle, I: IntoIterator<Item = BackendCoord>>(
        &mut self,
        vert: I,
        style: &S,
    ) -> Drawn<B> {
        let (scale, style) = (self.scale as i32, self.style(style));
        self.inner.fill_polygon(vert.into_iter().map(|(x, y)| (x * scale, y * scale)), &style)
    }

    fn draw_text<S: BackendTextStyle>(&mut self, text: &str, style: &S, place: BackendCoord) -> Drawn<B> {
        let place = self.place(place);
        let BackendColor { rgb: (r, g, b), alpha } = style.color();
        let anchor = style.anchor();
        let family = style.family();
        let font = (family.as_str(), style.size() * f64::from(self.scale))
            .into_font()
            .style(style.style())
            .transform(style.transform());
        let larger =
            font.color(&RGBAColor(r, g, b, alpha).to_rgba()).pos(Pos::new(anchor.h_pos, anchor.v_pos));
        self.inner.draw_text(text, &larger, place)
    }
}
