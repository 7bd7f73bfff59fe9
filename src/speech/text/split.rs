use super::Faults;

/// Characters at which a piece is cut.
const MOST: usize = 300;
/// A piece below it goes to its neighbour.
const LEAST: usize = 30;

/// Normalized text in the pieces that the model is given: at sentence ends, at most 300 characters,
/// those below 30 joined to the one before (the first to the one after). Nothing speakable, nothing
/// returned.
///
/// With [`Faults::Kept`] a run of 300 characters without a space is cut after its first character, again
/// and again, and any number of short pieces become one; otherwise the cut is at 300, and short pieces
/// are joined up to 330.
pub fn sentences(text: &str, faults: Faults) -> Vec<String> {
    merge(split(text, faults), faults)
}

/// What the model is given for a sentence.
pub fn prompt(sentence: &str) -> String {
    format!("[STOP][TEXT]{sentence}[START]")
}

/// As Python's `str.isspace`.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\x1c'..='\x1f').contains(&c)
}

fn unspaced(text: &str) -> Vec<char> {
    let mut out = Vec::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '“' | '”' => out.push('"'),
            c if !is_space(c) => out.push(c),
            _ if out.last() != Some(&' ') => out.push(' '),
            _ => {}
        }
    }
    out
}

/// A cursor on the last character taken, −1 before the first; what is taken and not cut off yet is
/// `text[start..=pos]`.
struct Scanner {
    text: Vec<char>,
    pos: isize,
    start: isize,
    in_quote: bool,
    pieces: Vec<String>,
}

impl Scanner {
    fn end(&self) -> isize {
        self.text.len() as isize - 1
    }

    fn here(&self) -> char {
        self.text[self.pos as usize]
    }

    fn length(&self) -> usize {
        (self.pos + 1 - self.start) as usize
    }

    fn step(&mut self, by: isize) -> char {
        self.pos += by;
        let c = self.here();
        self.in_quote ^= c == '"';
        c
    }

    /// Upstream sees nothing ahead at the last character already, and nothing is in every set.
    fn ahead_is(&self, by: isize, set: &[char]) -> bool {
        let at = self.pos + by;
        at >= self.end() || set.contains(&self.text[at as usize])
    }

    fn cut(&mut self) {
        let piece: String = self.text[self.start as usize..(self.pos + 1) as usize].iter().collect();
        self.pieces.push(piece);
        self.start = self.pos + 1;
    }
}

fn split(text: &str, faults: Faults) -> Vec<String> {
    let (pos, start) = (-1, 0);
    let mut scan = Scanner { text: unspaced(text), pos, start, in_quote: false, pieces: Vec::new() };
    // The end of the last quotation since the last cut.
    let mut quote_end = None;
    while scan.pos < scan.end() {
        let mut c = scan.step(1);
        if scan.length() >= MOST {
            let full = scan.pos;
            if let Some(end) = quote_end {
                while scan.pos > end {
                    scan.step(-1);
                }
            } else {
                while !matches!(c, '!' | '?' | '.' | ' ') && scan.pos > 0 && scan.length() > 1 {
                    c = scan.step(-1);
                }
                if faults == Faults::Mended && scan.length() == 1 {
                    while scan.pos < full {
                        scan.step(1);
                    }
                }
            }
            scan.cut();
            quote_end = None;
        } else if !scan.in_quote && (matches!(c, '!' | '?') || (c == '.' && scan.ahead_is(1, &[' ']))) {
            while scan.pos < scan.end() && scan.length() < MOST && scan.ahead_is(1, &['!', '?', '.']) {
                scan.step(1);
            }
            scan.cut();
            quote_end = None;
        } else if scan.in_quote
            && scan.pos + 1 < scan.end()
            && scan.text[scan.pos as usize + 1] == '"'
            && scan.ahead_is(2, &[' '])
        {
            scan.step(1);
            scan.step(1);
            quote_end = Some(scan.pos);
        }
    }
    scan.pos = scan.end();
    scan.cut();
    let speakable = |c: char| !is_space(c) && !matches!(c, '.' | ',' | ';' | ':' | '!' | '?');
    let trimmed = scan.pieces.iter().map(|piece| piece.trim_matches(is_space));
    trimmed.filter(|piece| piece.contains(speakable)).map(str::to_owned).collect()
}

fn merge(pieces: Vec<String>, faults: Faults) -> Vec<String> {
    let mut merged: Vec<String> = Vec::with_capacity(pieces.len());
    // Short pieces at the start, on their way into the first long one.
    let mut waiting = String::new();
    for piece in pieces {
        let piece = if waiting.is_empty() { piece } else { format!("{waiting} {piece}") };
        waiting.clear();
        let length = piece.chars().take(LEAST).count();
        let short = length < LEAST;
        let fits = |last: &str| faults == Faults::Kept || last.chars().count() + length < MOST + LEAST;
        match merged.last_mut() {
            Some(last) if short && fits(last) => {
                last.push(' ');
                last.push_str(&piece);
            }
            None if short => waiting = piece,
            _ => merged.push(piece),
        }
    }
    if !waiting.is_empty() {
        merged.push(waiting);
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kept(text: &str) -> Vec<String> {
        split(text, Faults::Kept)
    }

    #[test]
    fn sentences_end_where_upstream_ends_them() {
        let cases: &[(&str, &[&str])] = &[
            ("3.5 apples. two", &["3.5 apples.", "two"]),
            ("hello... world", &["hello...", "world"]),
            ("what?! no! yes.", &["what?!", "no!", "yes."]),
            ("hi!x", &["hi!x"]),
            ("hi!xy", &["hi!", "xy"]),
            ("a.b", &["a.b"]),
            ("one.  two.\n\nthree.", &["one.", "two.", "three."]),
            ("he said \"no. never.\" and left. so.", &["he said \"no. never.\" and left.", "so."]),
            ("“a. b.” c.", &["\"a. b.\" c."]),
        ];
        for &(text, pieces) in cases {
            assert_eq!(kept(text), pieces, "{text}");
        }
    }

    #[test]
    fn nothing_speakable_is_nothing() {
        for text in ["", " ", ".", "... !? ,;:", "\u{3000}\n\x1c", "!!!"] {
            assert!(sentences(text, Faults::Kept).is_empty(), "{text:?}");
            assert!(sentences(text, Faults::Mended).is_empty(), "{text:?}");
        }
    }

    #[test]
    fn long_sentences_are_cut_at_a_space() {
        let pieces = kept(&"word ".repeat(70));
        assert_eq!(pieces.iter().map(String::len).collect::<Vec<_>>(), [299, 49]);
    }

    #[test]
    fn without_a_space_only_the_mended_cut_is_at_300() {
        let text = "a".repeat(310);
        let mut expected = vec!["a".to_owned(); 11];
        expected.push("a".repeat(299));
        assert_eq!(kept(&text), expected);
        let lengths = |text: &str| -> Vec<usize> {
            split(text, Faults::Mended).iter().map(String::len).collect()
        };
        assert_eq!(lengths(&text), [300, 10]);
        assert_eq!(lengths(&format!("one. {text}")), [4, 299, 11]);
    }

    #[test]
    fn short_pieces_join_their_neighbours() {
        let long = "this one is long enough to stand on its own.";
        let joined = |text: &str| sentences(text, Faults::Kept);
        assert_eq!(joined("hi."), ["hi."]);
        assert_eq!(joined("hi. you. there."), ["hi. you. there."]);
        assert_eq!(
            joined(&format!("hi. you. {long} yes. {long} no.")),
            [format!("hi. you. {long} yes."), format!("{long} no."),]
        );
    }

    #[test]
    fn short_pieces_join_without_end_only_upstream() {
        let text = "no. ".repeat(1000);
        assert_eq!(sentences(&text, Faults::Kept), [text.trim()]);
        let pieces = sentences(&text, Faults::Mended);
        assert_eq!(pieces.join(" "), text.trim());
        assert!(pieces.iter().all(|piece| (LEAST..=MOST + LEAST).contains(&piece.len())));
    }

    #[test]
    fn the_prompt_is_upstreams() {
        assert_eq!(prompt("hello world."), "[STOP][TEXT]hello world.[START]");
    }
}
