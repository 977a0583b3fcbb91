"""Configuration of the data: shard sets, crops, 2D pose, augmentation."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, model_validator

from maskhand.config.fields import Fraction, FractionBelowOne, FrozenConfig, PathName, PositiveInt, SetName, SetWeights


class AugmentConfig(FrozenConfig):
    """Training augmentation. Rotation turns image, 2D and 3D joints and global orientation together."""

    scale: FractionBelowOne = 0.3
    """Range of the random scale: the box side is multiplied by 1 +- this."""
    rotation_deg: NonNegativeFloat = 30.0
    """Standard deviation of the in-plane rotation, degrees, clipped at 2 sigma."""
    rotation_probability: Fraction = 0.6
    """Fraction of crops that are rotated."""
    translation: NonNegativeFloat = 0.02
    """Standard deviation of the box shift, in box sides."""
    color_gain: Fraction = 0.2
    """Range of the random gain of each color channel: 1 +- this."""
    erase_probability: Fraction = 0.3
    """Fraction of crops with an erased rectangle (2-33 % of the area)."""
    effect_probability: Fraction = 0.5
    """Probability of each effect from exposure to jpeg_quality, independently."""
    exposure: FractionBelowOne = 0.0
    """Range of gamma exp(+-this), contrast 1 +- this and brightness +- this / 4; 0: off."""
    saturation: Fraction = 0.0
    """Range of the random factor on the distance of colors from gray: 1 +- this."""
    blur_px: NonNegativeFloat = 0.0
    """Largest standard deviation of the blur, crop pixels; half of it is by motion."""
    shrink: Annotated[float, Field(ge=1)] = 1.0
    """Largest factor by which a hand is smaller in the photo than in the crop; 1: off."""
    noise: NonNegativeFloat = 0.0
    """Largest standard deviation of the noise in the photo's pixels, of 255."""
    jpeg_quality: Annotated[int, Field(ge=1, le=100)] = 100
    """Lowest quality of JPEG compression; 100: off."""
    grayscale_probability: Fraction = 0.0
    """Fraction of crops without color."""
    occlude_probability: Fraction = 0.0
    """Fraction of crops with a thing or a second hand before the hand (2-20 % of the area)."""
    edge_probability: Fraction = 0.0
    """Fraction of crops that an edge of the photo runs through, black beyond it."""

    @property
    def has_photo_effects(self) -> bool:
        """Whether crops get what real photos have (`loading/degrade.py`)."""
        ranges = self.exposure, self.saturation, self.blur_px, self.shrink - 1, self.noise, 100 - self.jpeg_quality
        chances = self.grayscale_probability, self.occlude_probability, self.edge_probability
        return (self.effect_probability > 0 and any(ranges)) or any(chances)


class KeypointConfig(FrozenConfig):
    """The source of the 2D pose that the network reads, and the noise that training adds to it."""

    detector: PathName
    """Keypoint detector: openpose-hand (the paper's, non-commercial) | litert-hand (open)."""
    train_source: Literal["detected", "annotated", "mixed", "simulated", "detected_simulated"] = "mixed"
    """Training 2D pose: detected | annotated (noisy) | mixed (both) | simulated | detected_simulated (both)."""
    error_scale: tuple[NonNegativeFloat, NonNegativeFloat] = (0.1, 1.0)
    """Range of the factor on the detector's errors of simulated detections."""
    detected_scale: tuple[NonNegativeFloat, NonNegativeFloat] = (1.0, 1.0)
    """Range of the factor on the errors of the keypoints that the detector found in a training image."""
    eval_source: Literal["detected", "annotated", "none"] = "detected"
    """Evaluation 2D pose, which also places the hands: detected | annotated | none."""
    noise: NonNegativeFloat = 0.01
    """Standard deviation of the noise on annotated or simulated keypoints, in crop sides."""
    drop_joint: Fraction = 0.1
    """Fraction of joints that are dropped."""
    drop_pose: Fraction = 0.1
    """Fraction of samples whose whole 2D pose is dropped."""
    swap_fingers: Fraction = 0.05
    """Fraction of annotated or simulated 2D poses in which two fingers are swapped."""

    @property
    def trains_on_detections(self) -> bool:
        """Whether training reads the keypoints that the detector found in the training images."""
        return self.train_source in ("detected", "mixed", "detected_simulated")

    @property
    def simulates_detections(self) -> bool:
        """Whether annotated 2D poses get the errors of a detector in training."""
        return self.train_source in ("simulated", "detected_simulated")

    @model_validator(mode="after")
    def _scales_are_ranges(self) -> Self:
        for name in ("error_scale", "detected_scale"):
            low, high = getattr(self, name)
            if low > high:
                raise ValueError(f"{name}={[low, high]}: expected the smaller factor first")
        return self


class DataConfig(FrozenConfig):
    """The shard sets of training and evaluation, and how their samples are cropped."""

    train: SetWeights
    """Training shard sets -> sampling weight."""
    train_poses: SetWeights | None = None
    """Shard sets -> sampling weight for the tokenizer (supplement B); null: those of train."""
    evaluate: Annotated[tuple[SetName, ...], Field(min_length=1)]
    """Held-out shard sets that an evaluation measures."""
    mocap: bool = False
    """Whether pose-only files (mocap.npz in the raw dataset) join the poses of tokenizer and posed_hands."""
    caption: str | None = None
    """Caption template, filled from a sample's origin; read where model.condition is text."""
    crop_px: Annotated[int, Field(ge=1, multiple_of=8)] = 256
    """Side of the square crop, pixels."""
    crop_aspect: Annotated[float, Field(ge=0.5, le=1)] = 0.75
    """Width over height of what the network reads of the crop: 0.75 (256 x 192) | 1."""
    box_scale: PositiveFloat = 1.2
    """Factor by which the hand's box grows before it is cropped."""
    upright: bool = False
    """Whether crops, and the tokenizer's poses, are turned so that the hand stands upright."""
    shard_streams: PositiveInt = 16
    """Shards of each set that are read concurrently; a multiple of engine.workers."""
    posed_hands: NonNegativeInt = 0
    """Hands without image added to each training batch: known poses from any view, simulated detections."""
    held_out: FractionBelowOne = 0.0
    """Fraction of each training set held out: validation, calibration, choice of the estimator."""
    loader_workers: NonNegativeInt = 0
    """Loader processes per training worker; 0: in the training process."""
    keypoints: KeypointConfig
    """Source of the 2D pose that the network reads, and its training noise."""
    augment: AugmentConfig = AugmentConfig()
    """Training augmentation, HaMeR's numbers (supplement B.1 names the kinds only)."""

    @property
    def image_size_px(self) -> tuple[int, int]:
        """Height and width of what the network reads."""
        return self.crop_px, self.crop_px - 2 * round(self.crop_px * (1 - self.crop_aspect) / 2)

    @property
    def pose_sets(self) -> dict[str, float]:
        """Shard set -> sampling weight for the tokenizer's poses."""
        return self.train if self.train_poses is None else self.train_poses
