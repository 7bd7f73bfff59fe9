//! Pictures of signals as text: inline SVG, with the spectrogram as a bitmap in a data URI.

use std::f64::consts::TAU;
use std::fmt::Write as _;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::audio::Stft;

/// The plot inside the picture; the rest is axes and labels. A waveform has a column for each unit of width.
const LEFT: usize = 64;
const WIDTH: usize = 720;
const PICTURE_WIDTH: usize = 860;
const TOP: usize = 8;
const BELOW: usize = 34;
const WAVEFORM_HEIGHT: usize = 120;
const SPECTROGRAM_HEIGHT: usize = 200;

/// The most pixels of a spectrogram: with ten seconds of sound at 32 kHz the page stays under 2 MB.
const COLUMNS: usize = 400;
const ROWS: usize = 128;
const N_FFT: usize = 8 * ROWS;
const HOP: usize = N_FFT / 4;

/// Decibels from the darkest colour to the brightest.
pub(super) const RANGE_DB: f64 = 90.0;
/// The palette's last entry stands for what is not a number.
const BAD: u8 = 255;
const COLOURS: u8 = 254;

/// A coordinate: to a tenth, without a trailing zero.
pub(super) fn at(x: f64) -> String {
    let tenths = (x * 10.0).round() as i64;
    if tenths % 10 == 0 { (tenths / 10).to_string() } else { format!("{:.1}", tenths as f64 / 10.0) }
}

/// The largest 1, 2 or 5 times a power of ten that isn't above `x` (positive and finite).
pub(super) fn round_down(x: f64) -> f64 {
    let decade = 10f64.powf(x.log10().floor());
    let step = [5.0, 2.0].into_iter().find(|step| step * decade <= x * (1.0 + 1e-9));
    step.unwrap_or(1.0) * decade
}

/// A number with up to `digits` significant digits and no exponent.
pub(super) fn plain(x: f64, digits: i32) -> String {
    if x == 0.0 {
        return "0".to_owned();
    }
    let decimals = (digits - 1 - x.abs().log10().floor() as i32).max(0) as usize;
    let text = format!("{x:.decimals$}");
    if !text.contains('.') {
        return text;
    }
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// Multiples of a round step from 0 to `end`, about `count` of them.
pub(super) fn ticks(end: f64, count: usize) -> Vec<f64> {
    if !(end > 0.0 && end.is_finite()) {
        return vec![0.0];
    }
    let mut step = round_down(end / count as f64);
    while end / step > count as f64 + 1e-9 {
        step = round_down(step * 2.5);
    }
    (0..=(end / step * (1.0 + 1e-9)) as usize).map(|n| n as f64 * step).collect()
}

/// An SVG with a frame around the plot and a time axis; `label` describes it to readers who can't see it.
fn picture(height: usize, seconds: f64, label: &str, content: &str) -> String {
    let all = TOP + height + BELOW;
    let mut svg = format!(
        "<svg viewBox=\"0 0 {PICTURE_WIDTH} {all}\" role=\"img\" aria-label=\"{label}\">{content}\
         <rect class=\"frame\" x=\"{LEFT}\" y=\"{TOP}\" width=\"{WIDTH}\" height=\"{height}\"/>"
    );
    for tick in ticks(seconds, 10) {
        let x = at(LEFT as f64 + tick / seconds.max(f64::MIN_POSITIVE) * WIDTH as f64);
        let bottom = TOP + height;
        let _ = write!(
            svg,
            "<path class=\"tick\" d=\"M{x} {bottom}v4\"/><text x=\"{x}\" y=\"{}\" class=\"x\">{}</text>",
            bottom + 17,
            plain(tick, 4)
        );
    }
    let _ = write!(
        svg,
        "<text x=\"{}\" y=\"{}\">seconds</text></svg>",
        LEFT + WIDTH + 10,
        TOP + height + 17
    );
    svg
}

fn y_label(y: f64, text: &str) -> String {
    let (left, right) = (LEFT - 4, LEFT - 8);
    let (line, base) = (at(y), at(y + 4.0));
    format!(
        "<path class=\"tick\" d=\"M{left} {line}h4\"/><text x=\"{right}\" y=\"{base}\" class=\"y\">{text}</text>"
    )
}

/// The part of `length` things that the `part`th of `parts` equal parts covers.
fn part(part: usize, parts: usize, length: usize) -> std::ops::Range<usize> {
    part * length / parts..(part + 1) * length / parts
}

/// The envelope of a signal, from −`full_scale` to +`full_scale`: least and greatest sample of each pixel column.
/// Columns with a sample that is not a number are barred.
pub(super) fn waveform(samples: &[f32], sample_rate: u32, full_scale: f64, label: &str) -> String {
    let half = WAVEFORM_HEIGHT as f64 / 2.0;
    let middle = TOP as f64 + half;
    let columns = samples.len().min(WIDTH);
    let x = |column: usize| LEFT as f64 + (column * WIDTH) as f64 / columns as f64;
    let y = |value: f64| at(middle - (value / full_scale).clamp(-1.0, 1.0) * half);
    let (mut upper, mut lower, mut bars) = (String::new(), Vec::new(), String::new());
    for column in 0..columns {
        let (mut least, mut greatest) = (f64::INFINITY, f64::NEG_INFINITY);
        let mut bad = false;
        for value in samples[part(column, columns, samples.len())].iter().map(|&s| f64::from(s)) {
            bad |= !value.is_finite();
            least = least.min(value);
            greatest = greatest.max(value);
        }
        if bad {
            let (left, right) = (at(x(column)), at(x(column + 1)));
            let _ = write!(bars, "M{left} {TOP}V{}H{right}V{TOP}Z", TOP + WAVEFORM_HEIGHT);
            (least, greatest) = (0.0, 0.0);
        }
        let _ = write!(upper, "V{}H{}", y(greatest), at(x(column + 1)));
        lower.push(format!("V{}H{}", y(least), at(x(column))));
    }
    lower.reverse();
    let mut content = format!("<path class=\"zero\" d=\"M{LEFT} {}h{WIDTH}\"/>", at(middle));
    if columns > 0 {
        let start = at(middle);
        let _ =
            write!(content, "<path class=\"wave\" d=\"M{LEFT} {start}{upper}{}Z\"/>", lower.concat());
    }
    if !bars.is_empty() {
        let _ = write!(content, "<path class=\"bad\" d=\"{bars}\"/>");
    }
    for (value, sign) in [(full_scale, "+"), (0.0, ""), (-full_scale, "−")] {
        let text = format!("{sign}{}", axis_number(value.abs()));
        content += &y_label(middle - value / full_scale * (half - 4.0), &text);
    }
    picture(WAVEFORM_HEIGHT, samples.len() as f64 / f64::from(sample_rate), label, &content)
}

/// A number short enough to stand next to an axis.
fn axis_number(x: f64) -> String {
    if x != 0.0 && !(1e-3..1e4).contains(&x) { format!("{x:.1e}") } else { plain(x, 2) }
}

/// Magnitudes of a signal, by column from 0 Hz up: the loudest of each of at most [`COLUMNS`] × [`ROWS`] cells.
pub(super) struct Spectrogram {
    columns: Vec<[f64; ROWS]>,
    seconds: f64,
    nyquist: f64,
}

impl Spectrogram {
    pub(super) fn of(samples: &[f32], sample_rate: u32) -> Self {
        let hop = (samples.len() / COLUMNS).clamp(1, HOP);
        let frames = Stft::new(N_FFT, hop).magnitudes(samples);
        let width = frames.len().min(COLUMNS);
        let columns = (0..width)
            .map(|column| {
                let mut cells = [0.0f64; ROWS];
                for frame in &frames[part(column, width, frames.len())] {
                    for (row, cell) in cells.iter_mut().enumerate() {
                        for &m in &frame[part(row, ROWS, N_FFT / 2)] {
                            *cell = if m.is_nan() || m > *cell { m } else { *cell };
                        }
                    }
                }
                cells
            })
            .collect();
        let rate = f64::from(sample_rate);
        Self { columns, seconds: samples.len() as f64 / rate, nyquist: rate / 2.0 }
    }

    /// The greatest finite magnitude; 0 for silence.
    pub(super) fn loudest(&self) -> f64 {
        self.columns.iter().flatten().copied().filter(|m| m.is_finite()).fold(0.0, f64::max)
    }

    /// Draws the decibels over `reference`, in colours from `top_db` − [`RANGE_DB`] to `top_db`.
    pub(super) fn draw(&self, reference: f64, top_db: f64, label: &str) -> String {
        let colour = |magnitude: f64| {
            if magnitude.is_nan() {
                return BAD;
            }
            let level = (20.0 * (magnitude / reference).log10() - top_db) / RANGE_DB + 1.0;
            (level.clamp(0.0, 1.0) * f64::from(COLOURS)).round() as u8
        };
        // A bitmap's first row is its lowest.
        let pixels: Vec<Vec<u8>> =
            (0..ROWS).map(|row| self.columns.iter().map(|c| colour(c[row])).collect()).collect();
        let image = |pixels: &[Vec<u8>], x: usize, width: usize| {
            let uri = data_uri("image/bmp", &bitmap(pixels));
            format!(
                "<image x=\"{x}\" y=\"{TOP}\" width=\"{width}\" height=\"{SPECTROGRAM_HEIGHT}\" \
                 preserveAspectRatio=\"none\" href=\"{uri}\"/>"
            )
        };
        let height = SPECTROGRAM_HEIGHT as f64;
        let bottom = TOP as f64 + height;
        let mut content = String::new();
        if !self.columns.is_empty() {
            content += &image(&pixels, LEFT, WIDTH);
        }
        for hertz in ticks(self.nyquist, 5) {
            let y = bottom - hertz / self.nyquist * height;
            content += &y_label(y, &plain(hertz / 1000.0, 3));
        }
        let _ = write!(content, "<text x=\"8\" y=\"{}\">kHz</text>", TOP + 10);
        let bar: Vec<Vec<u8>> = (0..=COLOURS).map(|n| vec![n]).collect();
        let bar_left = LEFT + WIDTH + 14;
        content += &image(&bar, bar_left, 12);
        for part in [0.0, 1.0 / 3.0, 2.0 / 3.0, 1.0] {
            let y = at(TOP as f64 + part * (height - 10.0) + 9.0);
            let level = plain((top_db - part * RANGE_DB).round(), 9).replace('-', "−");
            let _ = write!(content, "<text x=\"{}\" y=\"{y}\">{level} dB</text>", bar_left + 16);
        }
        picture(SPECTROGRAM_HEIGHT, self.seconds, label, &content)
    }
}

/// Green's cubehelix with his default parameters (start 0.5, rotations −1.5, hue 1, gamma 1):
/// brightness rises evenly, in colour and in grey. D. A. Green, *A colour scheme for the display
/// of astronomical intensity images*, Bull. Astr. Soc. India 39, 289 (2011).
fn cubehelix(fraction: f64) -> [u8; 3] {
    let angle = TAU * (0.5 / 3.0 + 1.0 - 1.5 * fraction);
    let amplitude = fraction * (1.0 - fraction) / 2.0;
    [(-0.14861, 1.78277), (-0.29227, -0.90649), (1.97294, 0.0)].map(|(cos, sin)| {
        let value = fraction + amplitude * (cos * angle.cos() + sin * angle.sin());
        (value.clamp(0.0, 1.0) * 255.0).round() as u8
    })
}

/// A BMP file of 8 bits a pixel with the colour map as its palette; rows from the lowest up, equally long.
fn bitmap(rows: &[Vec<u8>]) -> Vec<u8> {
    const HEADERS: u32 = 14 + 40 + 4 * 256;
    let width = rows.first().map_or(0, Vec::len);
    let stride = width.next_multiple_of(4);
    let size = (stride * rows.len()) as u32;
    let mut bytes = b"BM".to_vec();
    for field in [HEADERS + size, 0, HEADERS, 40, width as u32, rows.len() as u32] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [1u16, 8] {
        bytes.extend(field.to_le_bytes());
    }
    for field in [0, size, 2835, 2835, 256, 0] {
        bytes.extend(u32::to_le_bytes(field));
    }
    for index in 0..=255 {
        let [r, g, b] = match index {
            BAD => [255, 0, 0],
            _ => cubehelix(f64::from(index) / f64::from(COLOURS)),
        };
        bytes.extend([b, g, r, 0]);
    }
    for row in rows {
        bytes.extend(row);
        bytes.resize(bytes.len() + stride - width, 0);
    }
    bytes
}

/// `data:` URI of a file's bytes.
pub(super) fn data_uri(media_type: &str, bytes: &[u8]) -> String {
    format!("data:{media_type};base64,{}", STANDARD.encode(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bitmap_says_its_own_size_and_pads_its_rows() {
        let bytes = bitmap(&[vec![1, 2, 3, 4, 5], vec![6, 7, 8, 9, 10]]);
        assert_eq!(bytes[2..6], (bytes.len() as u32).to_le_bytes());
        assert_eq!(bytes[bytes.len() - 16..], [1, 2, 3, 4, 5, 0, 0, 0, 6, 7, 8, 9, 10, 0, 0, 0]);
    }

    #[test]
    fn the_colour_map_grows_evenly_brighter() {
        let brightness = |n| {
            let [r, g, b] = cubehelix(f64::from(n) / 254.0).map(f64::from);
            0.30 * r + 0.59 * g + 0.11 * b
        };
        assert_eq!((cubehelix(0.0), cubehelix(1.0)), ([0; 3], [255; 3]));
        for n in 0..=254 {
            approx::assert_abs_diff_eq!(brightness(n), f64::from(n) * 255.0 / 254.0, epsilon = 4.0);
        }
    }

    #[test]
    fn steps_are_round() {
        for (x, expected) in [(0.99, 0.5), (1.0, 1.0), (4.9, 2.0), (5.0, 5.0), (1234.0, 1000.0)] {
            approx::assert_relative_eq!(round_down(x), expected, max_relative = 1e-9);
        }
        assert_eq!(ticks(10.0, 10).len(), 11);
        assert_eq!(ticks(16_000.0, 5), [0.0, 5000.0, 10_000.0, 15_000.0]);
        assert_eq!(ticks(0.0, 5), [0.0]);
        let text: Vec<String> =
            [0.0, 0.30000000000000004, 20_000.0, 2.5].iter().map(|&x| plain(x, 3)).collect();
        assert_eq!(text, ["0", "0.3", "20000", "2.5"]);
    }

    #[test]
    fn a_bad_sample_is_barred_and_a_good_signal_is_not() {
        let mut samples = vec![0.5; 2000];
        assert!(!waveform(&samples, 1000, 1.0, "x").contains("class=\"bad\""));
        samples[1999] = f32::NAN;
        let svg = waveform(&samples, 1000, 1.0, "x");
        assert!(svg.contains("class=\"bad\"") && !svg.contains("NaN"), "{svg}");
        let frames = Spectrogram::of(&samples, 1000);
        assert!(frames.columns[399][0].is_nan() && frames.columns[0][0].is_finite());
        assert!(frames.loudest().is_finite());
    }
}
