"""The open hand: an open stand-in for MANO_RIGHT.pkl and MANO_LEFT.pkl, and the scripts that build it."""
