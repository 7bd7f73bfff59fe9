//! Pages as a browser lays them out.

use std::path::Path;
use std::process::Command;

use crate::harness::{World, shared, skipped};

const BROWSERS: [&str; 3] = ["chromium", "chromium-browser", "google-chrome"];
/// A phone, a tablet, a desk.
const WIDTHS: [usize; 3] = [360, 768, 1200];

/// How wide a page is at each of [`WIDTHS`], and how much of it shows; nothing where no browser runs here.
fn widths(page: &Path) -> Option<Vec<(usize, usize)>> {
    let folder = tempfile::tempdir().unwrap();
    let frame = |width| {
        format!("<iframe src=\"file://{}\" width=\"{width}\" height=\"900\"></iframe>", page.display())
    };
    let frames: String = WIDTHS.map(frame).concat();
    let script =
        "onload = () => { document.title = [...document.querySelectorAll('iframe')].map(frame => {
        const root = frame.contentDocument.documentElement;
        return root.scrollWidth + '/' + root.clientWidth;
    }).join(' ') }";
    let outer = folder.path().join("outer.html");
    std::fs::write(&outer, format!("<body>{frames}<script>{script}</script></body>")).unwrap();
    let run = |browser: &str| {
        let mut command = Command::new(browser);
        command.args(["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]);
        command.args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ]);
        // The outer page reads the size of the inner ones, which are files of their own.
        command.args(["--disable-web-security", "--allow-file-access-from-files"]);
        command.arg(format!("--user-data-dir={}", folder.path().join("profile").display()));
        command.args(["--virtual-time-budget=10000", "--dump-dom"]).arg(&outer);
        command.output().ok()
    };
    let output = BROWSERS.iter().find_map(|browser| run(browser))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let (_, title) = text.split_once("<title>")?;
    let (title, _) = title.split_once("</title>")?;
    let pair = |pair: &str| {
        let (whole, shown) = pair.split_once('/')?;
        Some((whole.parse().ok()?, shown.parse().ok()?))
    };
    title.split(' ').map(pair).collect()
}

/// Asserts that a page scrolls sideways at no usual width.
#[track_caller]
pub fn fits(page: &Path) {
    let Some(found) = widths(page) else {
        return skipped(&format!("the layout of {}", page.display()), "no browser runs here");
    };
    assert_eq!(found.len(), WIDTHS.len());
    for (&width, (whole, shown)) in WIDTHS.iter().zip(found) {
        assert!(whole <= shown, "{}: {whole} px wide at {width}", page.display());
    }
}

#[test]
fn a_page_that_is_too_wide_is_seen_and_a_report_is_not() {
    let world = World::new();
    let wide = world.write("wide.html", format!("<!DOCTYPE html><p>{}</p>", "wide".repeat(200)));
    let Some(found) = widths(&wide) else {
        return skipped("a_page_that_is_too_wide", "no browser runs here");
    };
    assert!(found.iter().all(|(whole, shown)| whole > shown), "{found:?}");
    if let Some(shared) = shared() {
        fits(&shared.bundle.join("report.html"));
    }
}
