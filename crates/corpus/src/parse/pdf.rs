//! PDF with text.
//!
//! `hayro` interprets the pages; we take the glyphs it would draw, with their places, and `pdf_layout` makes lines,
//! columns and paragraphs of them. A damaged or hostile file must not take the run with it: the work happens on a thread of
//! its own with a deep stack, under limits on pages, glyphs, drawing operations and time, and a panic of the
//! interpreter is caught.

use std::cell::RefCell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use hayro_interpret::font::{Glyph, GlyphRun};
use hayro_interpret::hayro_cmap::BfString;
use hayro_interpret::kurbo::{Affine, BezPath, Point, Rect};
use hayro_interpret::{
    BlendMode, ClipPath, Context, Device, DrawMode, DrawProps, Image, ImageDrawProps, InterpreterCache,
    InterpreterSettings, SoftMask, TransformExt, interpret_page,
};
use hayro_syntax::object::{Array, Stream};
use hayro_syntax::page::Page as HayroPage;
use hayro_syntax::{LoadPdfError, Pdf};

use super::pdf_layout::{Mark, Page, document};
use super::{ParseError, Parsed, pdf_size};

/// Stack of the thread that reads: fonts and forms nest.
const STACK: usize = 64 << 20;
/// Pages read from one file.
const MAX_PAGES: usize = 20_000;
/// Glyphs kept of one file, at some 80 bytes each: a page has some 3,000.
const MAX_GLYPHS: usize = 10_000_000;
/// Inflated bytes of one stream.
const MAX_STREAM: u64 = 128 << 20;
/// Inflated bytes of what one page draws; a path takes some ten times as much.
const MAX_CONTENT: u64 = 32 << 20;
/// Drawing operations of one page.
const MAX_OPERATIONS: usize = 5_000_000;
/// Time for one file.
const MAX_TIME: Duration = Duration::from_secs(60);

/// Reads a PDF.
pub(super) fn parse(bytes: &[u8]) -> Result<Vec<Parsed>, ParseError> {
    let bytes = bytes.to_vec();
    let deadline = Instant::now() + MAX_TIME;
    let (send, receive) = mpsc::channel();
    let failed = |reason: &str| ParseError::Pdf { reason: reason.to_owned() };
    std::thread::Builder::new()
        .name("pdf".into())
        .stack_size(STACK)
        .spawn(move || {
            let read = quietly(|| read(bytes, deadline));
            // The receiver is gone only when it stopped waiting.
            let _ = send.send(read);
        })
        .map_err(|error| failed(&format!("no thread for it: {error}")))?;
    // The thread checks the time itself wherever the interpreter lets it; past that, it is left to itself.
    match receive.recv_timeout(MAX_TIME + Duration::from_secs(10)) {
        Ok(Ok(read)) => read,
        Ok(Err(reason)) => Err(failed(&reason)),
        Err(_) => Err(ParseError::TooSlow { seconds: MAX_TIME.as_secs() }),
    }
}

/// Why the device stopped the interpreter: carried through its frames as an unwinding that no hook reports.
struct Stop(ParseError);

/// Runs `work`; a panic inside becomes its message.
fn quietly<T>(work: impl FnOnce() -> Result<T, ParseError>) -> Result<Result<T, ParseError>, String> {
    catch_unwind(AssertUnwindSafe(work)).map_or_else(
        |panic| match panic.downcast::<Stop>() {
            Ok(stop) => Ok(Err(stop.0)),
            Err(panic) => Err(panic
                .downcast_ref::<String>()
                .map(String::as_str)
                .or_else(|| panic.downcast_ref::<&str>().copied())
                .unwrap_or("the interpreter failed")
                .to_owned()),
        },
        Ok,
    )
}

fn read(bytes: Vec<u8>, deadline: Instant) -> Result<Vec<Parsed>, ParseError> {
    if pdf_size::exceeds(&bytes, MAX_STREAM) {
        return Err(ParseError::TooLarge { what: "inflated bytes of one PDF stream", limit: MAX_STREAM });
    }
    let pdf = Pdf::new(bytes).map_err(|error| ParseError::Pdf {
        reason: match error {
            LoadPdfError::Decryption(_) => "it is encrypted; remove the password first".to_owned(),
            _ => "it is damaged beyond repair".to_owned(),
        },
    })?;
    let count = pdf.pages().len();
    if count == 0 {
        return Err(ParseError::Pdf { reason: "it has no pages".to_owned() });
    }
    if count > MAX_PAGES {
        return Err(ParseError::TooLarge { what: "pages of one PDF", limit: MAX_PAGES as u64 });
    }
    let mut pages = Vec::with_capacity(count);
    let (mut left, mut unreadable, mut shown) = (MAX_GLYPHS, 0, 0);
    for page in pdf.pages().iter() {
        if content(page) > MAX_CONTENT {
            return Err(ParseError::TooLarge { what: "inflated bytes of one PDF page", limit: MAX_CONTENT });
        }
        let (_, height) = page.render_dimensions();
        let collector =
            RefCell::new(Collector { deadline, left, operations: 0, marks: Vec::new(), unmapped: 0 });
        let cache = InterpreterCache::new();
        // A page whose content breaks the interpreter is lost; the others are not.
        let drawn = quietly(|| {
            let mut context = Context::new(
                page.initial_transform(true).to_kurbo(),
                Rect::new(0.0, 0.0, 1.0, 1.0),
                &cache,
                pdf.xref(),
                InterpreterSettings::default(),
            );
            interpret_page(page, &mut context, &mut *collector.borrow_mut());
            Ok(())
        });
        match drawn {
            Ok(result) => result?,
            Err(_) => unreadable += 1,
        }
        let collected = collector.into_inner();
        left = left.saturating_sub(collected.marks.len());
        shown += collected.unmapped;
        pages.push(Page { height: f64::from(height), marks: collected.marks });
    }
    if unreadable == count {
        return Err(ParseError::Pdf { reason: "none of its pages can be read".to_owned() });
    }
    let mut parsed = Parsed { markdown: document(&pages), ..Parsed::default() };
    if parsed.markdown.trim().is_empty() {
        return Err(ParseError::Pdf {
            reason: "it holds no text, only images; recognise the text first".to_owned(),
        });
    }
    let metadata = pdf.metadata();
    let text =
        |bytes: &Option<Box<[u8]>>| bytes.as_deref().map(string).filter(|text| !text.trim().is_empty());
    parsed.title = text(&metadata.title);
    parsed.extra("creator", text(&metadata.author).unwrap_or_default());
    parsed.extra("subject", text(&metadata.subject).unwrap_or_default());
    parsed.extra("pages", count.to_string());
    if unreadable > 0 {
        parsed.extra("unreadable_pages", unreadable.to_string());
    }
    if shown > 0 {
        parsed.extra("glyphs_without_unicode", shown.to_string());
    }
    Ok(vec![parsed])
}

/// Inflated bytes of what a page draws, up to just above [`MAX_CONTENT`].
fn content(page: &HayroPage<'_>) -> u64 {
    let size = |stream: &Stream<'_>| pdf_size::inflated(&stream.raw_data(), MAX_CONTENT);
    if let Some(stream) = page.raw().get::<Stream<'_>>("Contents") {
        return size(&stream);
    }
    let mut sum = 0;
    for stream in page.raw().get::<Array<'_>>("Contents").iter().flat_map(|array| array.iter::<Stream<'_>>())
    {
        sum += size(&stream);
        if sum > MAX_CONTENT {
            break;
        }
    }
    sum
}

/// A PDF text string: UTF-16 or UTF-8 by its mark, else Latin-1 as PDFDocEncoding nearly is.
fn string(bytes: &[u8]) -> String {
    match encoding_rs::Encoding::for_bom(bytes) {
        Some((encoding, mark)) => encoding.decode_without_bom_handling(&bytes[mark..]).0.into_owned(),
        None => encoding_rs::WINDOWS_1252.decode_without_bom_handling(bytes).0.into_owned(),
    }
}

/// Takes the glyphs of a page.
struct Collector {
    deadline: Instant,
    left: usize,
    operations: usize,
    marks: Vec<Mark>,
    unmapped: usize,
}

impl Collector {
    /// Counts an operation and stops the interpreter at a limit. `resume_unwind` runs no panic hook.
    fn tick(&mut self) {
        self.operations += 1;
        if self.operations.is_multiple_of(256) && Instant::now() > self.deadline {
            resume_unwind(Box::new(Stop(ParseError::TooSlow { seconds: MAX_TIME.as_secs() })));
        }
        if self.operations > MAX_OPERATIONS {
            let error = ParseError::TooLarge {
                what: "drawing operations of one PDF page",
                limit: MAX_OPERATIONS as u64,
            };
            resume_unwind(Box::new(Stop(error)));
        }
        if self.marks.len() > self.left {
            let error = ParseError::TooLarge { what: "glyphs of one PDF", limit: MAX_GLYPHS as u64 };
            resume_unwind(Box::new(Stop(error)));
        }
    }
}

impl Device<'_> for Collector {
    fn draw_glyph_run(&mut self, run: &GlyphRun<'_, '_>, props: DrawProps<'_>, _: &DrawMode) {
        for glyph in run.glyphs() {
            self.tick();
            let place: Affine = props.transform * glyph.transform();
            // Glyph space has 1,000 units to the em.
            let advance = match &**glyph {
                Glyph::Outline(glyph) => glyph.advance_width(),
                Glyph::Type3(glyph) => glyph.advance_width(),
            };
            let origin = place * Point::ZERO;
            let end = place * Point::new(f64::from(advance.unwrap_or(500.0)), 0.0);
            let up = place * Point::new(0.0, 1000.0);
            let text = match glyph.as_unicode() {
                Some(BfString::Char(c)) => c.to_string(),
                Some(BfString::String(text)) => text,
                None => {
                    self.unmapped += 1;
                    continue;
                }
            };
            let size = origin.distance(up);
            if [origin.x, origin.y, end.x, end.y, size]
                .iter()
                .all(|value| value.is_finite() && value.abs() < 1e6)
            {
                self.marks.push(Mark { text, x: origin.x, y: origin.y, end: end.x, end_y: end.y, size });
            }
        }
    }

    fn draw_path(&mut self, _: &BezPath, _: DrawProps<'_>, _: &DrawMode) {
        self.tick();
    }

    fn push_clip_path(&mut self, _: &ClipPath) {
        self.tick();
    }

    fn push_transparency_group(&mut self, _: f32, _: Option<SoftMask<'_>>, _: BlendMode) {
        self.tick();
    }

    fn draw_image(&mut self, _: Image<'_, '_>, _: ImageDrawProps<'_>) {
        self.tick();
    }

    fn pop_clip(&mut self) {}

    fn pop_transparency_group(&mut self) {}
}
