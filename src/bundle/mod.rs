//! A finished bundle: layout, manifest, report, verification.

pub mod report;
