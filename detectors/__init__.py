"""Pure: event -> facts, windows, detectors, incident steps. No I/O, no clock, no randomness."""
