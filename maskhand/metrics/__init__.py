"""Every metric once: numpy, float64, vectorized over samples; docs/evaluation.md says where each definition is from.

`alignment` moves predictions onto the truth, `accumulate` turns distances into means and areas under the curve,
`fscore` compares meshes without correspondence, `pck` counts correct 2D keypoints, `generation` judges sets of meshes,
`calibration` judges confidences, `samples` keeps the errors of single samples, `titles` says how tables show metrics.
"""
