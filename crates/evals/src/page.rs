//! A report as one page of HTML.

use blackletter_figures::Figure;
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd, html};

const STYLE: &str = "body{font:16px/1.5 system-ui,sans-serif;max-width:62rem;margin:2rem auto;padding:0 1rem;color:#1a1a1a}\
table{border-collapse:collapse;margin:1rem 0;display:block;overflow-x:auto}td,th{border-bottom:1px solid #ddd;padding:.25rem .7rem}\
th{border-bottom:2px solid #888}svg{max-width:100%;height:auto}code{background:#f4f4f4;padding:.1rem .25rem}\
@media(prefers-color-scheme:dark){body{background:#161616;color:#ddd}code{background:#2a2a2a}svg{background:#fff}td,th{border-color:#444}}";

/// What becomes of a picture or link of a page.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Shown {
    /// A figure is put in its place.
    Figure,
    /// It stays.
    Whole,
    /// Its words stay.
    Words,
}

/// Markdown as one page, with figures in it. Nothing in it is fetched from elsewhere: of other pictures and of links that are none to
/// a page the words stay, HTML is text, and browsers are told to load nothing.
pub(crate) fn page(title: &str, markdown: &str, figures: &[(String, Figure)]) -> String {
    let mut open: Vec<Shown> = Vec::new();
    let mut events = Vec::new();
    for event in Parser::new_ext(markdown, Options::ENABLE_TABLES) {
        let hidden = open.contains(&Shown::Figure);
        match event {
            Event::Start(Tag::Image { dest_url, .. }) => {
                let own = figures.iter().find(|(name, _)| *dest_url == *format!("figures/{name}.svg"));
                let Some((name, figure)) = own.filter(|_| !hidden) else {
                    open.push(Shown::Words);
                    continue;
                };
                let label = format!("<svg role=\"img\" aria-label=\"{}\"", name.replace('-', " "));
                events.push(Event::InlineHtml(figure.svg.replacen("<svg", &label, 1).into()));
                open.push(Shown::Figure);
            }
            Event::Start(Tag::Link { ref dest_url, .. }) => {
                let whole = !hidden && is_to_a_page(dest_url);
                open.push(if whole { Shown::Whole } else { Shown::Words });
                events.extend(whole.then_some(event));
            }
            Event::End(TagEnd::Image | TagEnd::Link) => {
                events.extend((open.pop() == Some(Shown::Whole)).then_some(event));
            }
            _ if hidden => {}
            Event::Html(text) | Event::InlineHtml(text) => events.push(Event::Text(text)),
            other => events.push(other),
        }
    }
    let mut body = String::new();
    html::push_html(&mut body, events.into_iter());
    let title = title.replace('&', "&amp;").replace('<', "&lt;");
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><meta http-equiv=\"Content-Security-Policy\" \
         content=\"default-src 'none'; style-src 'unsafe-inline'\"><meta name=\"viewport\" \
         content=\"width=device-width,initial-scale=1\"><title>{title}</title><style>{STYLE}</style></head>\n<body>\n{body}</body></html>\n"
    )
}

/// Whether an address leads to a page, by the web or beside this one, or to somebody's mail; and runs nothing.
fn is_to_a_page(url: &str) -> bool {
    let beginning = url.split(['/', '?', '#']).next().unwrap_or_default();
    let scheme = beginning.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
    scheme.is_none_or(|scheme| ["http", "https", "mailto"].contains(&scheme.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_holds_its_figures_and_escapes_what_is_not_its_own() {
        let figure = Figure { svg: "<svg width=\"1\"></svg>".into(), png: Vec::new() };
        let figures = [("bits-per-byte".to_owned(), figure)];
        let text =
            "# T\n\n![bits per byte](figures/bits-per-byte.svg)\n\n| a | b |\n|---|--:|\n| x | <b>1</b> |\n";
        let page = page("a < b", text, &figures);
        assert!(
            page.contains("<title>a &lt; b</title>") && page.contains("aria-label=\"bits per byte\""),
            "{page}"
        );
        assert!(
            page.contains("<td>x</td>") && page.contains("&lt;b&gt;1") && !page.contains("<img"),
            "{page}"
        );
        // Nothing is fetched from elsewhere.
        assert!(!page.contains("http:") && page.contains("default-src 'none'"), "{page}");
    }

    #[test]
    fn a_page_loads_and_runs_nothing_whatever_is_in_its_text() {
        let figure = Figure { svg: "<svg width=\"1\"></svg>".into(), png: Vec::new() };
        let figures = [("bias".to_owned(), figure)];
        let text = "![x](http://tracker.example/x.png) ![y][r] [go](javascript:alert(1)) [here](JaVaScRiPt:f()) [d](data:text/html,x) \
                    [![z](//tracker.example/z)](https://law.example/page) ![b [n](http://in.example)](figures/bias.svg)\n\n\
                    <img src=\"http://tracker.example/w\">\n\n[beside](REPORT.md#a:b)\n\n[r]: http://tracker.example/y\n";
        let page = page("t", text, &figures);
        for part in ["<img", "href=\"java", "href=\"JaVa", "href=\"data", "in.example"] {
            assert!(!page.contains(part), "{part}: {page}");
        }
        let kept = "x y go here d <a href=\"https://law.example/page\">z</a> <svg role=\"img\" aria-label=\"bias\" width=\"1\"></svg>";
        assert!(page.contains(kept) && page.contains("<a href=\"REPORT.md#a:b\">beside</a>"), "{page}");
    }
}
