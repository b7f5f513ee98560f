//! What tests ask of every picture: sound XML, nothing outside of the sheet, no text on other text.

use roxmltree::{Document, Node};

use super::{mono_width, sans_width};

/// A text and the room it takes.
#[derive(Debug, Clone)]
pub(super) struct Words {
    pub(super) text: String,
    left: f64,
    right: f64,
    top: f64,
    bottom: f64,
}

fn number(node: Node<'_, '_>, name: &str) -> f64 {
    node.attribute(name).map_or(0.0, |v| v.parse().unwrap_or_else(|_| panic!("{name}={v}")))
}

/// The sum of the groups' translations around a node.
fn shift(node: Node<'_, '_>) -> (f64, f64) {
    let moves = node.ancestors().filter_map(|n| n.attribute("transform")?.strip_prefix("translate(")?.strip_suffix(')'));
    moves.fold((0.0, 0.0), |(x, y), t| {
        let (a, b) = t.split_once(' ').unwrap();
        (x + a.parse::<f64>().unwrap(), y + b.parse::<f64>().unwrap())
    })
}

/// All texts that can be seen.
pub(super) fn words(svg: &Document<'_>) -> Vec<Words> {
    let texts = svg.descendants().filter(|n| n.has_tag_name("text"));
    texts
        .map(|n| {
            let text = n.text().unwrap_or_default().trim().to_owned();
            let size = number(n, "font-size");
            let mono = n.attribute("class").is_some_and(|c| c.contains("mono"));
            let width = if mono { mono_width(&text, size) } else { sans_width(&text, size) };
            let (dx, dy) = shift(n);
            let (x, y) = (number(n, "x") + dx, number(n, "y") + dy);
            let left = if n.attribute("text-anchor") == Some("middle") { x - width / 2.0 } else { x };
            Words { text, left, right: left + width, top: y - 0.75 * size, bottom: y + 0.2 * size }
        })
        .collect()
}

/// Checks a picture and returns what can be read in it.
pub(super) fn readable(svg: &str) -> Vec<String> {
    let document = Document::parse(svg).unwrap_or_else(|e| panic!("{e}:\n{svg}"));
    let root = document.root_element();
    assert_eq!(root.tag_name().namespace(), Some("http://www.w3.org/2000/svg"));
    let (width, height) = (number(root, "width"), number(root, "height"));
    let words = words(&document);
    for one in &words {
        assert!(
            one.left >= 0.0 && one.right <= width && one.top >= 0.0 && one.bottom <= height,
            "outside of {width}×{height}: {one:?}"
        );
    }
    for (nth, one) in words.iter().enumerate() {
        for other in &words[nth + 1..] {
            let apart = one.right <= other.left || other.right <= one.left || one.bottom <= other.top || other.bottom <= one.top;
            assert!(apart, "{one:?} is on {other:?}");
        }
    }
    for node in document.descendants().filter(|n| n.has_tag_name("rect")) {
        let ((dx, dy), side) = (shift(node), |name| number(node, name));
        let (right, bottom) = (side("x") + side("width") + dx, side("y") + side("height") + dy);
        assert!(
            side("width") >= 0.0 && side("x") + dx >= 0.0 && right <= width + 1.0 && bottom <= height + 1.0,
            "{node:?} is outside"
        );
    }
    words.into_iter().map(|w| w.text).collect()
}

/// Leaves a picture where somebody can look at it, if they say where: `KUP_TEST_PICTURES`.
pub(super) fn leave(name: &str, svg: &str) {
    if let Some(dir) = std::env::var_os("KUP_TEST_PICTURES") {
        std::fs::write(std::path::Path::new(&dir).join(format!("{name}.svg")), svg).unwrap();
    }
}
