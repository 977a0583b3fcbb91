"""Official benchmark formats: read the published ground truth, read and write prediction files, score them.

One file is one format. A new one is such a file with a `Format`, named in a card's `benchmark.format` as
`package.module:FORMAT`, or in the list of `formats` where it ships with maskhand.
"""
