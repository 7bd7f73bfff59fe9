use crate::speech::Frame;

/// Channels of upstream's hidden states, for which its threshold was found.
const CHANNELS: f32 = 512.0;
/// The least distance (sum of absolute differences) of two rows that aren't alike, in upstream's detector.
const ALIKE: f32 = 300.0;
/// More rows in a row than this that are alike are not speech.
const LONGEST: usize = 16;

/// Whether rows of hidden states stay where they are for too long, as they do where a model only repeats one sound:
/// upstream's `hallucination_detector`. Its threshold is of 512 channels, and scaled to as many as there are.
pub(super) fn hallucinates(frames: &[Frame]) -> bool {
    let mut run = 0usize;
    frames.len() > LONGEST
        && frames.windows(2).any(|pair| {
            let [Frame::Row(before), Frame::Row(row)] = pair else { return false };
            let distance: f32 = before.iter().zip(row).map(|(a, b)| (a - b).abs()).sum();
            let alike = distance < ALIKE * before.len() as f32 / CHANNELS;
            run = if alike { run + 1 } else { run.saturating_sub(1) };
            run > LONGEST
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows of 8 channels, each so far from the last.
    fn rows(steps: &[f32]) -> Vec<Frame> {
        let mut at = 0.0;
        let row = |step: &f32| {
            at += step;
            Frame::Row(vec![at; 8])
        };
        std::iter::once(Frame::Row(vec![0.0; 8])).chain(steps.iter().map(row)).collect()
    }

    #[test]
    fn a_long_run_is_heard_and_a_broken_one_counts_down() {
        let alike = 0.9 * ALIKE / CHANNELS;
        assert!(hallucinates(&rows(&[alike; 17])));
        assert!(!hallucinates(&rows(&[alike; 16])));
        assert!(!hallucinates(&rows(&[1.0; 40])));
        // One that differs takes one away, and no more.
        let broken = [vec![alike; 16], vec![1.0], vec![alike; 1]].concat();
        assert!(!hallucinates(&rows(&broken)));
        assert!(hallucinates(&rows(&[broken, vec![alike; 1]].concat())));
        assert!(!hallucinates(&[]));
    }
}
