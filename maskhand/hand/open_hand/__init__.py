"""The open hand: a CC0/Apache-2.0 stand-in for MANO_RIGHT.pkl and MANO_LEFT.pkl, and the scripts that build it."""
