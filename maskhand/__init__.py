"""maskhand: generative masked modeling of 3D hand meshes from single images (MaskHand, ICCV 2025)."""

__version__ = "0.2.0"
