"""OpenPose's hand network: published names, loading rule, peaks, geometry of its crop."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from maskhand.annotate.openpose import BATCH_SIZE, OpenPoseHand, find_peaks, to_input
from maskhand.annotate.openpose_net import HandPoseNet, WeightsError, load_hand_pose_net
from maskhand.annotate.registry import load_detector
from maskhand.fetched_models import AssetError

# Names and shapes of the converted file, written down from the published prototxt.
PUBLISHED = {
    "conv1_1": (64, 3, 3, 3),
    "conv2_1": (128, 64, 3, 3),
    "conv3_4": (256, 256, 3, 3),
    "conv4_4": (512, 512, 3, 3),
    "conv5_2": (512, 512, 3, 3),
    "conv5_3_CPM": (128, 512, 3, 3),
    "conv6_1_CPM": (512, 128, 1, 1),
    "conv6_2_CPM": (22, 512, 1, 1),
    "Mconv1_stage2": (128, 150, 7, 7),
    "Mconv5_stage3": (128, 128, 7, 7),
    "Mconv6_stage6": (128, 128, 1, 1),
    "Mconv7_stage6": (22, 128, 1, 1),
}


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(0)
    return HandPoseNet().state_dict()


def test_names_and_shapes_are_those_of_the_published_model(weights):
    for name, shape in PUBLISHED.items():
        assert tuple(weights[f"{name}.weight"].shape) == shape, name
        assert tuple(weights[f"{name}.bias"].shape) == shape[:1], name
    assert len(weights) == 2 * (15 + 2 + 5 * 7)


@pytest.mark.parametrize("prefix", ["", "model1_0.", "module.model2."])
def test_weights_load_by_name_whatever_the_prefix(weights, tmp_path, prefix):
    path = tmp_path / "hand_pose_model.pth"
    torch.save({prefix + k: v for k, v in weights.items()}, path, _use_new_zipfile_serialization=False)
    net = load_hand_pose_net(path)
    assert all(torch.equal(v, weights[k]) for k, v in net.state_dict().items())
    assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_wrong_files_are_named(weights, tmp_path):
    path = tmp_path / "weights.pth"
    torch.save({k: v for k, v in weights.items() if k != "conv4_2.bias"}, path)
    with pytest.raises(WeightsError, match=r"weights\.pth: conv4_2\.bias is missing"):
        load_hand_pose_net(path)
    torch.save(weights | {"Mconv7_stage6.weight": torch.zeros(19, 128, 1, 1)}, path)
    with pytest.raises(WeightsError, match=r"Mconv7_stage6\.weight has shape \(19, 128, 1, 1\)"):
        load_hand_pose_net(path)
    path.write_bytes(b"no weights")
    with pytest.raises(WeightsError, match="not a file of weights alone"):
        load_hand_pose_net(path)


def test_a_pickle_that_would_run_code_is_refused(tmp_path):
    class Evil:
        def __reduce__(self):
            return (open, (str(tmp_path / "ran"), "w"))

    path = tmp_path / "evil.pth"
    torch.save({"conv1_1.weight": Evil()}, path)
    with pytest.raises(WeightsError):
        load_hand_pose_net(path)
    assert not (tmp_path / "ran").exists()


def test_missing_weights_say_what_to_do(tmp_path):
    with pytest.raises(AssetError, match=r"hand_pose_model\.pth.*copy it there.*litert-hand"):
        load_detector("openpose-hand", tmp_path)


def test_network_equals_a_plain_chain_of_layers(weights):
    """The published order, written out: trunk, first guess, then [guess, features] in every stage."""
    net = HandPoseNet().eval()
    net.load_state_dict(weights)
    image = torch.rand(1, 3, 32, 40) - 0.5

    def conv(name, x):
        w = weights[f"{name}.weight"]
        return torch.nn.functional.conv2d(x, w, weights[f"{name}.bias"], padding=w.shape[-1] // 2)

    x = image
    for block in (("1_1", "1_2"), ("2_1", "2_2"), ("3_1", "3_2", "3_3", "3_4")):
        for k in block:
            x = conv(f"conv{k}", x).relu()
        x = torch.nn.functional.max_pool2d(x, 2, 2)
    for k in ("4_1", "4_2", "4_3", "4_4", "5_1", "5_2", "5_3_CPM"):
        x = conv(f"conv{k}", x).relu()
    guess = conv("conv6_2_CPM", conv("conv6_1_CPM", x).relu())
    for stage in range(2, 7):
        y = torch.cat([guess, x], 1)
        for k in range(1, 7):
            y = conv(f"Mconv{k}_stage{stage}", y).relu()
        guess = conv(f"Mconv7_stage{stage}", y)
    with torch.inference_mode():
        assert torch.allclose(net(image), guess, atol=1e-6)
    assert guess.shape == (1, 22, 4, 5)


def test_input_is_bgr_over_256_minus_half():
    crop = np.zeros((1, 2, 2, 3), np.uint8)
    crop[..., 0] = 255
    assert to_input(torch.from_numpy(crop))[0, :, 0, 0].tolist() == [-0.5, -0.5, 255 / 256 - 0.5]


def test_peaks_are_found_below_a_pixel_with_their_height():
    """Gaussians sampled at the centers of the map's cells, at positions between them."""
    truth = np.array([[100.3, 200.8], [51.5, 300.1], [250.0, 60.7]])
    centers = 8 * np.arange(46) + 3.5
    heights = [0.9, 0.4, 0.03]
    maps = [
        h * np.exp(-((centers[None, :] - x) ** 2 + (centers[:, None] - y) ** 2) / (2 * 14.0**2))
        for (x, y), h in zip(truth, heights, strict=True)
    ]
    peaks, confidence = find_peaks(torch.tensor(np.array(maps)[None], dtype=torch.float32), 368)
    assert np.abs(peaks[0] - truth).max() < 0.75
    np.testing.assert_allclose(confidence[0], [0.9, 0.4, 0.0], atol=0.01)


class _Marker(HandPoseNet):
    """Stands in for trained weights: map k is bright where the image is blue and its red is 100 + 5 k."""

    def forward(self, image):
        blue, _, red = torch.nn.functional.avg_pool2d((image + 0.5) * 256, 8).split(1, dim=1)
        targets = 100 + 5 * torch.arange(21.0).view(1, 21, 1, 1)
        heat = torch.exp(-((red - targets) ** 2) / 2) * (blue > 250)
        for _ in range(2):
            heat = torch.nn.functional.avg_pool2d(heat, 3, stride=1, padding=1)
        return torch.cat([heat, torch.zeros_like(red)], 1)


@pytest.mark.parametrize("side", ["right", "left"])
@pytest.mark.parametrize("scales", [(1.0,), (0.8, 1.0, 1.2)])
def test_keypoints_come_back_in_the_image(side, scales):
    rng = np.random.default_rng(1)
    image = np.zeros((300, 420, 3), np.uint8)
    places = np.array([[140 + 34 * (k % 5), 80 + 36 * (k // 5)] for k in range(21)])[rng.permutation(21)]
    for k, (x, y) in enumerate(places):
        image[y - 12 : y + 13, x - 12 : x + 13] = (100 + 5 * k, 0, 255)
    box = np.concatenate([places.min(0), places.max(0)]).astype(np.float32)
    detector = OpenPoseHand(_Marker(), "0" * 64, scales=scales)
    found = detector.detect([image], box[None], [side])
    assert np.abs(found.keypoints_px[0] - places).max() < 5
    assert (found.confidence > 0.3).all() and found.presence[0] == pytest.approx(found.confidence.mean())


class _Recorder(HandPoseNet):
    """Keeps the images it is shown."""

    def forward(self, image):
        self.seen = image
        return torch.rand(len(image), 22, image.shape[2] // 8, image.shape[3] // 8, generator=torch.manual_seed(0))


def test_a_left_hand_is_shown_as_the_right_hand_in_the_mirror(monkeypatch):
    monkeypatch.setitem(BATCH_SIZE, "cpu", 2)
    image = np.random.default_rng(0).integers(0, 256, (120, 150, 3), dtype=np.uint8)
    box = np.array([[30.0, 20.0, 90.0, 100.0]])
    mirrored_box = 149 - box[:, [2, 1, 0, 3]]
    mirrored_box[:, [1, 3]] = box[:, [1, 3]]
    net = _Recorder()
    detector = OpenPoseHand(net, "0" * 64, input_px=96)
    left = detector.detect([image], box, ["left"])
    shown = net.seen
    right = detector.detect([image[:, ::-1].copy()], mirrored_box, ["right"])
    assert torch.allclose(net.seen, shown, atol=2 / 256)
    np.testing.assert_allclose(left.keypoints_px * [-1, 1] + [149, 0], right.keypoints_px, atol=0.05)
    detector.detect([image], box)
    assert net.seen.shape[0] == 2 and torch.allclose(net.seen[1:], shown, atol=1e-6), "unknown side: both looks"


@pytest.mark.parametrize("at_once", [1, 4])
def test_hands_together_are_found_as_each_alone(at_once, monkeypatch):
    monkeypatch.setitem(BATCH_SIZE, "cpu", at_once)
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (200 + 7 * k, 240, 3), dtype=np.uint8) for k in range(9)]
    boxes = np.array([[30.0 + k, 20, 120 + 3 * k, 130] for k in range(9)])
    sides = ["right", None, "left", None, None, "left", "right", None, None]
    torch.manual_seed(5)
    detector = OpenPoseHand(HandPoseNet().eval().requires_grad_(False), "0" * 64, input_px=64, scales=(0.9, 1.1))
    together = detector.detect(images, boxes, sides)
    assert together.keypoints_px.shape == (9, 21, 2) and len(detector.detect([], np.zeros((0, 4)))) == 0
    for k in range(9):
        alone = detector.detect(images[k : k + 1], boxes[k : k + 1], sides[k : k + 1])
        for field in ("keypoints_px", "confidence", "presence", "right_probability"):
            np.testing.assert_allclose(getattr(together, field)[k], getattr(alone, field)[0], atol=0.02 * (at_once > 1))


def test_version_names_weights_and_scales():
    single, multi = OpenPoseHand(_Marker(), "ab" * 32), OpenPoseHand(_Marker(), "ab" * 32, scales=(0.8, 1.2))
    assert single.version == "abababababab-1" and multi.version == "abababababab-1-0.8x1.2"
