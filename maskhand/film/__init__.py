"""Film: frames read and written, hands followed from frame to frame, smoothed over time."""
