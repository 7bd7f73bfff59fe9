//! Opens a bundle and lets it speak in the runtime that is built in:
//!
//! ```sh
//! cargo run --release --example speak -- build/soprano-mini "Hello there, my friend." hello.wav
//! ```

use std::path::Path;
use std::sync::atomic::AtomicBool;

use soprano_export::audio::{Encoding, Wav};
use soprano_export::{Bundle, Script, Settings, runtime};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let [bundle, text, output] = words.as_slice() else {
        return Err("usage: speak BUNDLE TEXT OUTPUT.wav".into());
    };
    let bundle = Bundle::open(Path::new(bundle))?;
    let runtime = runtime::built_in()?;
    let voice = bundle.voice_in(runtime.as_ref(), None)?;
    let script = Script { name: "the text".to_owned(), text: text.clone() };
    let mut samples: Vec<f32> = Vec::new();
    let summary =
        voice.speak(&[script], &Settings::default(), &mut samples, &AtomicBool::new(false))?;
    let sound = Wav { sample_rate: voice.sample_rate(), samples };
    sound.write(Path::new(output), Encoding::Pcm16)?;
    println!(
        "{} sentences, {:.1} s of sound, in {}",
        summary.sentences,
        sound.seconds(),
        runtime.name_and_version()
    );
    Ok(())
}
