//! Signals: WAV, short-time spectra, and how far two signals are apart.
