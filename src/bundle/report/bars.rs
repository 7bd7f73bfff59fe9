//! Bars next to their names as inline SVG.

use std::fmt::Write as _;

use super::plot::{at, plain, ticks};

/// One bar, from 0 to `value`, with a line from `least` to `greatest` over its end.
pub(super) struct Bar {
    pub label: String,
    pub value: f64,
    pub least: f64,
    pub greatest: f64,
}

const LEFT: f64 = 230.0;
const WIDTH: f64 = 560.0;
const PICTURE_WIDTH: usize = 880;
const ROW: f64 = 22.0;
const TOP: f64 = 6.0;

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;")
}

/// A picture of bars over one axis in `unit`; bars whose value is not a number are left out.
pub(super) fn bars(title: &str, unit: &str, bars: &[Bar]) -> String {
    let bars: Vec<&Bar> = bars.iter().filter(|bar| bar.value.is_finite() && bar.value >= 0.0).collect();
    let end = bars.iter().map(|bar| bar.greatest.max(bar.value)).fold(f64::MIN_POSITIVE, f64::max);
    let x = |value: f64| LEFT + (value / end).clamp(0.0, 1.0) * WIDTH;
    let bottom = TOP + ROW * bars.len() as f64 + 2.0;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {PICTURE_WIDTH} {}\" role=\"img\" aria-label=\"{}\">",
        at(bottom + 26.0),
        escaped(title)
    );
    for (row, bar) in bars.iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let (middle, right) = (y + ROW / 2.0, x(bar.value));
        let _ = write!(
            svg,
            "<text class=\"y\" x=\"{}\" y=\"{}\">{}</text>\
             <rect class=\"wave\" x=\"{}\" y=\"{}\" width=\"{}\" height=\"{}\"/>",
            at(LEFT - 8.0),
            at(middle + 4.0),
            escaped(&bar.label),
            at(LEFT),
            at(y + 3.0),
            at(right - LEFT),
            at(ROW - 6.0)
        );
        if bar.greatest > bar.least {
            let (from, to) = (at(x(bar.least)), at(x(bar.greatest)));
            let line = at(middle);
            let _ = write!(svg, "<path class=\"tick\" d=\"M{from} {line}H{to}\"/>");
        }
        let beyond = x(bar.greatest.max(bar.value)) + 6.0;
        let _ = write!(
            svg,
            "<text x=\"{}\" y=\"{}\">{}</text>",
            at(beyond),
            at(middle + 4.0),
            plain(bar.value, 3)
        );
    }
    let _ = write!(svg, "<path class=\"tick\" d=\"M{} {}h{}\"/>", at(LEFT), at(bottom), at(WIDTH));
    for tick in ticks(end, 6) {
        let (place, under) = (at(x(tick)), at(bottom + 17.0));
        let _ = write!(
            svg,
            "<path class=\"tick\" d=\"M{place} {}v4\"/><text class=\"x\" x=\"{place}\" y=\"{under}\">{}</text>",
            at(bottom),
            plain(tick, 4)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\">{}</text></svg>",
        at(LEFT + WIDTH + 24.0),
        at(bottom + 17.0),
        escaped(unit)
    );
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_are_as_long_as_their_values_and_names_are_no_markup() {
        let bar = |label: &str, value: f64| Bar {
            label: label.to_owned(),
            value,
            least: value * 0.9,
            greatest: value,
        };
        let svg = bars("a & b", "ms", &[bar("<x>", 2.0), bar("y", 4.0), bar("z", f64::NAN)]);
        assert!(svg.contains("width=\"280\"") && svg.contains("width=\"560\""), "{svg}");
        assert!(svg.contains("&lt;x>") && svg.contains("a &amp; b") && !svg.contains("NaN"), "{svg}");
        assert!(!bars("none", "ms", &[]).contains("NaN"));
    }
}
