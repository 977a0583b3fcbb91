"""Builds the open hand that ships in maskhand/hand/open_hand/: an open stand-in for MANO_RIGHT.pkl and MANO_LEFT.pkl."""
