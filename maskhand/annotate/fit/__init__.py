"""Fitting of MANO to joints or keypoints, many hands at once."""
