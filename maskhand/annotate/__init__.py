"""2D keypoints and MANO targets as sidecar shards, keyed like the image shards."""
