"""2D keypoints and MANO targets as sidecar shards with the keys of the images."""
