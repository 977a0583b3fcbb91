"""Raw published layouts -> HandSample, one short module per layout; no torch."""
