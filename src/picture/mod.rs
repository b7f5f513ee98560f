//! Pictures as self-contained SVG: a run ([`timeline`]) and a cluster ([`cluster`]). Both are pure: facts in, text out.
//!
//! They bring their own light background, so that they read the same wherever they are shown. Text that has to fit somewhere is set in
//! a monospaced face, whose width is known without the font; what is cut is whole in the element's tooltip.

pub mod cluster;
pub mod timeline;

use console::{measure_text_width, truncate_str};
use svg::node::element::{Group, Line, Rectangle, Style, Text, Title};

#[cfg(test)]
mod check;

/// Space around everything.
const MARGIN: f64 = 24.0;
/// Width of a character relative to its size, in the widest of the monospaced faces below.
const ADVANCE: f64 = 0.61;
/// The same for the proportional faces: an upper bound of the average.
const ADVANCE_SANS: f64 = 0.62;
const STYLE: &str = "text{font-family:system-ui,'Helvetica Neue',Arial,'DejaVu Sans',sans-serif;fill:#1f2933}\
    .mono{font-family:ui-monospace,SFMono-Regular,Menlo,Consolas,'DejaVu Sans Mono',monospace}\
    .dim{fill:#616e7c}.bad{fill:#b42318}.good{fill:#1b6e3c}.bold{font-weight:600}";

/// Dark grey, of lines that matter.
const INK: &str = "#1f2933";
/// Light grey, of lines that guide the eye.
const FAINT: &str = "#d9dee4";
/// Red, of what failed.
const BAD: &str = "#b42318";

/// A coordinate without digits that nobody sees.
fn px(value: f64) -> f64 {
    (value * 10.0).round() / 10.0
}

/// The width of a text in a monospaced face.
fn mono_width(text: &str, size: f64) -> f64 {
    measure_text_width(text) as f64 * size * ADVANCE
}

/// At most the width of a text in a proportional face.
fn sans_width(text: &str, size: f64) -> f64 {
    measure_text_width(text) as f64 * size * ADVANCE_SANS
}

/// As much of a text in a monospaced face as fits.
fn fitted(text: &str, size: f64, width: f64) -> String {
    let columns = (width / (size * ADVANCE)).floor().max(1.0) as usize;
    truncate_str(text, columns, "…").into_owned()
}

/// Text whose base line begins at a point. `class` has words of [`STYLE`].
fn text(content: impl Into<String>, x: f64, y: f64, size: f64, class: &str) -> Text {
    Text::new(content).set("x", px(x)).set("y", px(y)).set("font-size", size).set("class", class)
}

fn rectangle(x: f64, y: f64, width: f64, height: f64, fill: &str) -> Rectangle {
    let place = Rectangle::new().set("x", px(x)).set("y", px(y)).set("width", px(width)).set("height", px(height));
    place.set("fill", fill)
}

fn line(x1: f64, y1: f64, x2: f64, y2: f64, stroke: &str, width: f64) -> Line {
    let place = Line::new().set("x1", px(x1)).set("y1", px(y1)).set("x2", px(x2)).set("y2", px(y2));
    place.set("stroke", stroke).set("stroke-width", width)
}

/// A group that shows `words` when it is pointed at.
fn explained(words: impl Into<String>) -> Group {
    Group::new().add(Title::new(words))
}

/// The finished picture: `content` on a background of its own. `words` tell those who can't see it what it is.
fn sheet(content: Group, width: f64, height: f64, words: &str) -> String {
    let (width, height) = (width.ceil(), height.ceil());
    let background = rectangle(0.5, 0.5, width - 1.0, height - 1.0, "#ffffff").set("rx", 6).set("stroke", FAINT);
    let document = svg::Document::new()
        .set("width", width)
        .set("height", height)
        .set("viewBox", (0, 0, width, height))
        .set("role", "img")
        .add(Title::new(words))
        .add(Style::new(STYLE))
        .add(background)
        .add(content);
    format!("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n{document}\n")
}
