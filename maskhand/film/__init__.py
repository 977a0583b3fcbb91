"""Films: reading and writing of frames, tracking of hands from frame to frame, smoothing over time."""
