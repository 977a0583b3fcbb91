"""Shard sets: samples in byte-reproducible WebDataset tars, with sidecars that share their keys.

    <shards>/<dataset>/<split>/                a set
        images/                                a part: images and labels
            000000.tar  000000.json            a shard, and its record (written after it: the completion marker)
            manifest.json                      written last: counts, checksums, rejects by reason
        keypoints.<detector>/  mano/           more parts, a tar per image tar, with the same keys

* layout, codec, npz, tar, untar, manifest: names of the files, what is in a tar and how, its description;
* plan, part, writer: who goes where, and resumable building of a part;
* build, read_ahead, sidecar, masked: images from published files, what annotators add, masked images;
* verify: what was cut, altered, lost or added since;
* reader, mixture: evaluation (each sample once) and training (an endless seeded stream that starts anywhere).

docs/data_format.md describes the files for readers without this package.
"""
