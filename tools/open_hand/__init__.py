"""Builds the open hand shipped in maskhand/hand/open_hand/: an open stand-in for MANO_RIGHT.pkl and MANO_LEFT.pkl."""
