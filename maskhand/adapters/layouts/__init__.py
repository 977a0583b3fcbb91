"""One short module per published layout: its files and facts -> `HandSample`. Each is one entry of `LAYOUTS`."""
