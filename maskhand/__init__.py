"""maskhand: generative masked modelling of 3D hand meshes from single pictures (MaskHand, ICCV 2025)."""

__version__ = "0.1.0"
