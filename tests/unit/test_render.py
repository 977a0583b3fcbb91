"""Images: drawn at the projected positions only, and deterministic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskhand.conventions import BONES
from maskhand.render import (
    FINGER_RGB,
    bar_tile,
    contact_sheet,
    draw_joints,
    draw_keypoints,
    draw_labels,
    error_rgb,
    framed,
    label_text_px,
    legend,
    overlay_mesh,
    place_labels,
    png_bytes,
)
from maskhand.render.outline import depth_edges
from maskhand.render.scale import ERROR_MM

K_PX = np.array([[200.0, 0, 60], [0, 200.0, 40], [0, 0, 1]])
SIZE = (90, 130)


def gray(value: int = 128) -> np.ndarray:
    return np.full((*SIZE, 3), value, np.uint8)


def sphere(center, radius: float, rows: int = 40, columns: int = 60) -> tuple[np.ndarray, np.ndarray]:
    """A closed sphere of quads cut in two, outward winding."""
    lat = np.linspace(0, np.pi, rows)[:, None]
    lon = np.linspace(0, 2 * np.pi, columns, endpoint=False)[None]
    ball = np.stack([np.sin(lat) * np.cos(lon), np.sin(lat) * np.sin(lon), np.cos(lat) + 0 * lon], axis=-1)
    i, j = np.meshgrid(np.arange(rows - 1), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    faces = np.concatenate([np.stack([a, a + columns, b], -1), np.stack([b, a + columns, b + columns], -1)])
    return ball.reshape(-1, 3) * radius + center, faces.reshape(-1, 3)


@pytest.mark.parametrize("turn_deg", [0, 30, 90, -150])
def test_a_sphere_covers_its_projection_and_nothing_else(turn_deg):
    vertices, faces = sphere([0.02, 0.01, 1.0], 0.1)
    c, s = np.cos(np.radians(turn_deg)), np.sin(np.radians(turn_deg))
    K_px = K_PX @ [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    image = overlay_mesh(gray(), vertices, faces, K_px, opacity=1.0)
    changed = (image != 128).any(-1)
    ray = np.array([0.02 * c - 0.01 * s, 0.02 * s + 0.01 * c, 1.0])
    v, u = np.mgrid[: SIZE[0], : SIZE[1]]
    directions = np.stack([(u - 60) / 200, (v - 40) / 200, np.ones_like(u)], -1)
    cosine = directions @ ray / np.linalg.norm(directions, axis=-1) / np.linalg.norm(ray)
    angle, limit = np.arccos(cosine), np.arcsin(0.1 / np.linalg.norm(ray))
    pixel = 1 / 200
    assert changed[angle < limit - pixel].all()
    assert not changed[angle > limit + pixel].any()


def test_edges_are_anti_aliased_and_the_image_shows_through():
    vertices, faces = sphere([0, 0, 1.0], 0.1)
    flat = (200, 200, 200)
    black = overlay_mesh(gray(0), vertices, faces, K_PX, flat, opacity=0.5)
    white = overlay_mesh(gray(255), vertices, faces, K_PX, flat, opacity=0.5)
    through = white[..., 0].astype(int) - black[..., 0]
    assert through[40, 60] == pytest.approx(127.5, abs=1)  # half of the background's range inside
    assert through[0, 0] == 255
    partial = np.unique(through[(through > 130) & (through < 250)])
    assert len(partial) >= 3  # one, two or three of four rays


def test_light_comes_from_the_upper_left_and_the_near_surface_wins():
    vertices, faces = sphere([0, 0, 1.0], 0.1)
    image = overlay_mesh(gray(0), vertices, faces, K_PX, opacity=1.0).astype(int).sum(-1)
    assert image[32, 52] > image[48, 68]
    behind, _ = sphere([0, 0, 1.5], 0.1)
    both = overlay_mesh(
        gray(0), np.concatenate([behind, vertices]), np.concatenate([faces, faces + len(vertices)]), K_PX, opacity=1.0
    )
    assert np.abs(both.astype(int).sum(-1) - image).mean() < 6  # only ambient occlusion differs


def test_meshes_may_leave_the_image_but_not_stand_behind_the_camera():
    vertices, faces = sphere([0, 0, 1.0], 0.1)
    assert (overlay_mesh(gray(), vertices + np.array([5, 0, 0]), faces, K_PX) == 128).all()
    cut = overlay_mesh(gray(), vertices + np.array([-0.3, 0, 0]), faces, K_PX)
    assert (cut[:, 100:] == 128).all() and (cut[:, :10] != 128).any()
    with pytest.raises(ValueError, match="in front of the camera"):
        overlay_mesh(gray(), vertices - np.array([0, 0, 1.0]), faces, K_PX)
    with pytest.raises(ValueError, match="finite"):
        overlay_mesh(gray(), vertices * np.nan, faces, K_PX)


def test_rendering_repeats_exactly():
    vertices, faces = sphere([0.01, 0, 0.9], 0.1)
    first, second = (overlay_mesh(gray(), vertices, faces, K_PX) for _ in range(2))
    np.testing.assert_array_equal(first, second)


def hand_points() -> np.ndarray:
    """A fan of five straight fingers."""
    points = np.zeros((21, 2))
    points[0] = (65, 85)
    for finger in range(5):
        for k in range(4):
            points[1 + 4 * finger + k] = (25 + 20 * finger, 65 - 15 * k)
    return points


def test_joints_have_their_fingers_color_where_they_are():
    image = draw_keypoints(gray(), hand_points())
    for finger, color in enumerate(FINGER_RGB):
        for k in range(4):
            x, y = hand_points()[1 + 4 * finger + k].astype(int)
            np.testing.assert_allclose(image[y, x], color, atol=1)
    for a, b in BONES:
        x, y = np.round((hand_points()[a] + hand_points()[b]) / 2).astype(int)
        assert (image[y, x] != 128).any()
    assert (image[:, :10] == 128).all()


def test_confidence_sets_radius_and_opacity_and_zero_hides():
    points = hand_points() * 3
    canvas = np.full((300, 400, 3), 128, np.uint8)
    changed = []
    for value in (1.0, 0.5, 0.1):
        conf = np.zeros(21)
        conf[7] = value
        changed.append(np.abs(draw_keypoints(canvas, points, conf).astype(int) - 128).sum())
    assert changed[0] > changed[1] > changed[2] > 0
    for conf in (np.zeros(21), np.full(21, np.nan)):
        np.testing.assert_array_equal(draw_keypoints(canvas, points, conf), canvas)
    lost = points.copy()
    lost[3] = np.nan
    assert (draw_keypoints(canvas, lost) != canvas).any()


def test_keypoints_far_outside_are_harmless():
    far = hand_points() + 1e4
    np.testing.assert_array_equal(draw_keypoints(gray(), far), gray())


def test_covered_joints_are_rings_that_show_the_image():
    points, canvas = hand_points() * 3, np.full((300, 400, 3), 128, np.uint8)
    image = draw_keypoints(canvas, points, occluded=np.arange(21) == 8)
    for joint, hollow in ((8, True), (12, False)):
        x, y = points[joint].astype(int)
        assert (image[y, x] == 128).all() == hollow
        row = image[y, x - 20 : x + 21].astype(int)
        assert (np.abs(row - FINGER_RGB[(joint - 1) // 4]).max(1) <= 3).any(), "the finger's color around it"


@pytest.mark.parametrize("color", FINGER_RGB)
def test_bones_are_outlined_on_their_own_color(color):
    """On a busy image every color comes up somewhere behind a bone."""
    points = np.zeros((21, 2))
    points[1], points[2] = (20, 45), (110, 45)
    conf = np.isin(np.arange(21), (1, 2)).astype(float)
    image = draw_keypoints(np.full((*SIZE, 3), color, np.uint8), points, conf)
    column = image[35:56, 65].astype(int).sum(1)
    assert column[:11].min() < 0.7 * sum(color) and column[10:].min() < 0.7 * sum(color)


def test_joints_show_their_colors_ringed_on_any_image():
    colors = error_rgb(np.linspace(0, ERROR_MM, 21))
    points = hand_points() * 3
    points[7] = np.nan
    for background in (0, 128, 255):
        image = draw_joints(np.full((300, 400, 3), background, np.uint8), points, colors)
        for j in set(range(21)) - {7}:
            x, y = points[j].astype(int)
            np.testing.assert_allclose(image[y, x], colors[j], atol=1)
            around = image[y - 9 : y + 10, x - 9 : x + 10].astype(int).sum(-1)
            assert around.min() < 90 and around.max() > 600, "a dark ring in a light one"
    np.testing.assert_array_equal(draw_joints(gray(), points * np.nan, colors), gray())


def test_the_error_scale_is_ordered_for_every_kind_of_color_vision():
    rgb = error_rgb(np.linspace(0, ERROR_MM, 11)) / 255
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    luminance = linear @ (0.2126, 0.7152, 0.0722)
    lightness = 116 * np.cbrt(np.maximum(luminance, 0.008856)) - 16
    assert np.diff(lightness).min() > 4 and np.diff(lightness).max() < 12, "even steps"
    # Machado, Oliveira and Fernandes 2009, severity 1: protanopia, deuteranopia, tritanopia
    for seen in (
        [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
        [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
        [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    ):
        assert (np.diff((linear @ np.transpose(seen)).clip(0) @ (0.2126, 0.7152, 0.0722)) > 0).all()
    assert (error_rgb(np.array([99.0])) == error_rgb(np.array([ERROR_MM]))).all(), "larger errors have its last color"
    assert len(set(error_rgb(np.array(np.nan)).tolist())) == 1, "an unknown error is gray"
    tile = legend("expected error", 14)
    assert {tuple(c) for c in tile[22].tolist()} >= {tuple(c) for c in error_rgb(np.linspace(0, 20, 140)).tolist()}


def test_a_vertex_may_have_a_color_of_its_own():
    vertices, faces = sphere([0, 0, 1.0], 0.1)
    blue_left = np.where(vertices[:, :1] < 0, [[40, 40, 220]], [[220, 40, 40]])
    image = overlay_mesh(gray(), vertices, faces, K_PX, blue_left, opacity=1.0).astype(int)
    assert image[40, 50, 2] > image[40, 50, 0] + 50 and image[40, 70, 0] > image[40, 70, 2] + 50
    one = overlay_mesh(gray(), vertices, faces, K_PX, (150, 190, 240))
    np.testing.assert_array_equal(
        overlay_mesh(gray(), vertices, faces, K_PX, np.tile((150, 190, 240), (len(vertices), 1))), one
    )


def test_depth_edges_are_steps_and_not_slopes():
    focal_px, z = 200.0, np.full((30, 40), 1.0, np.float32)
    z[:, 20:] = 1.02
    edges = depth_edges(z, focal_px)
    assert set(np.nonzero(edges)[1]) == {19}, "one column: the nearer side"
    assert not depth_edges(np.where(z > 1, 1.001, z), focal_px).any(), "a millimeter is none"
    u = np.arange(40)[None] - 20
    slope = (1.0 / (1 - 3.0 * u / focal_px)).repeat(30, 0)  # the plane z = 1 + 3 x, its depth ninefold over the image
    assert not depth_edges(slope, focal_px).any()
    z[:, 20:] = np.inf
    assert not depth_edges(z, focal_px).any(), "beside the mesh is the silhouette"


def test_outlines_follow_the_silhouette_and_parts_in_front():
    back, faces = sphere([0, 0, 1.2], 0.15)
    front, _ = sphere([0.02, 0, 1.0], 0.05)
    vertices, both = np.concatenate([back, front]), np.concatenate([faces, faces + len(back)])
    K_px = K_PX * [[2], [2], [1]]
    plain, lined = (
        overlay_mesh(np.full((180, 260, 3), 128, np.uint8), vertices, both, K_px, opacity=0.5, outline_px=width)
        for width in (0.0, 2.0)
    )
    v, u = np.nonzero((plain.astype(int).sum(-1) - lined.astype(int).sum(-1)) > 60)
    rays = np.stack([(u - 120) / 400, (v - 80) / 400, np.ones(len(u))], -1)
    rays /= np.linalg.norm(rays, axis=1, keepdims=True)
    off = [
        np.abs(np.arccos(rays @ center / np.linalg.norm(center)) - np.arcsin(radius / np.linalg.norm(center))) * 400
        for center, radius in ((np.array([0, 0, 1.2]), 0.15), (np.array([0.02, 0, 1.0]), 0.05))
    ]
    assert np.minimum(*off).max() < 3, "dark lines are at the two contours alone"
    for distance in off:
        turns = np.unique(np.round(np.arctan2(v - 80, u - 120)[distance < 3] * 10))
        assert len(turns) > 20, "and all around"
    light = (lined.astype(int).sum(-1) - plain.astype(int).sum(-1)) > 30
    assert light.any() and not light[plain[..., 2] != 128].all(), "a light line around the silhouette"


@pytest.mark.parametrize("size_px", [(150, 200), (480, 640), (3000, 4000)], ids=str)
def test_labels_are_inside_and_apart(size_px):
    height, width = size_px
    rng, text_px = np.random.default_rng(height), label_text_px(size_px)
    for count in (1, 2, 6):
        low = rng.uniform(-0.1, 0.9, (count, 2)) * (width, height)
        boxes = np.hstack([low, low + rng.uniform(0.02, 0.4, (count, 2)) * (width, height)])
        texts = [[f"{k} right, 7 mm, score 0.93", f"{k} right, 7 mm", str(k)] for k in range(count)]
        labels = place_labels(texts, boxes, size_px, text_px)
        placed = np.array([label.box_xyxy_px for label in labels])
        assert (placed[:, :2] >= 0).all() and (placed[:, 2:] <= (width, height)).all()
        for k in range(count):
            common = np.minimum(placed[k, 2:], placed[:k, 2:]) - np.maximum(placed[k, :2], placed[:k, :2])
            assert not (common > 0).all(1).any(), "labels cover each other"
            assert labels[k].text in texts[k]
        if count == 1 and width > 200:
            assert labels[0].text == texts[0][0]


def test_a_label_stands_above_its_box_and_can_be_read():
    box = np.array([[100.0, 200.0, 300.0, 400.0]])
    for value in (0, 255):
        image = np.full((480, 640, 3), value, np.uint8)
        (label,) = labels = place_labels([["hand"]], box, (480, 640), 20)
        drawn = draw_labels(image, labels, box, 20)
        ys, xs = np.nonzero((drawn != value).any(-1))
        x0, y0, x1, y1 = label.box_xyxy_px
        assert (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1) == pytest.approx((x0, y0, x1, y1), abs=3)
        assert y1 == pytest.approx(200, abs=1) and (x0 + x1) / 2 == pytest.approx(200, abs=1)
        inside = drawn[int(y0) : int(y1), int(x0) : int(x1)]
        assert inside.min() < 90 and inside.max() > 230, "light on dark"


def test_a_sheet_of_rows_keeps_every_image_as_it_is():
    rows = [
        [np.full((30, 60, 3), 10, np.uint8), np.full((20, 40, 3), 20, np.uint8)],
        [np.full((5, 9, 3), 30, np.uint8)],
    ]
    sheet = framed(rows)
    for row in rows:
        for image in row:
            assert (sheet == image[0, 0]).all(-1).sum() == image.shape[0] * image.shape[1]
    assert sheet.shape == (30 + 6 + 5, 60 + 6 + 40, 3)


def decode(png: bytes) -> np.ndarray:
    return cv2.cvtColor(cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)


def test_contact_sheet_places_every_tile_upright():
    colors = [[(250, 0, 0), (0, 250, 0)], [(0, 0, 250)]]
    rows = [[np.full((30, 60, 3), color, np.uint8) for color in row] for row in colors]
    captions = [["first", "second\nline"], ["third"]]
    sheet = decode(contact_sheet(rows, captions, columns=("a", "b"), title="A title", tile_px=96))
    where = {}
    for row in colors:
        for color in row:
            ys, xs = np.nonzero((sheet == color).all(-1))
            where[color] = (ys.min(), xs.min(), ys.max() - ys.min() + 1, xs.max() - xs.min() + 1)
    assert {place[2:] for place in where.values()} == {(48, 96)}
    first, second, third = where.values()
    assert first[0] == second[0] and first[1] == third[1] and second[1] > first[1] and third[0] > first[0]
    without = decode(contact_sheet(rows, tile_px=96))
    assert without.shape[0] < sheet.shape[0]
    below = decode(contact_sheet(rows, tile_px=96, footer=np.full((20, 900, 3), 77, np.uint8)))
    assert below.shape == (without.shape[0] + 20, 900, 3) and (below[-20:] == 77).all()
    np.testing.assert_array_equal(below[: without.shape[0], : without.shape[1]], without)
    with pytest.raises(ValueError, match="no images"):
        contact_sheet([])


def test_bars_are_as_long_as_their_values():
    colors = [(200, 0, 0), (0, 200, 0), (0, 0, 200)]
    tile = bar_tile(np.array([1.0, 0.5, np.nan]), ["a", "b", "c"], colors, tile_px=300)
    lengths = [int((tile == color).all(-1).any(0).sum()) for color in colors]
    assert lengths[1] == pytest.approx(lengths[0] / 2, abs=2) and lengths[2] == 0


def test_png_is_lossless():
    image = np.random.default_rng(0).integers(0, 256, (7, 9, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decode(png_bytes(image)), image)
