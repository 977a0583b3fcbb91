"""The hand model: MANO files, the batched layer, rotations, cameras, meshes."""
