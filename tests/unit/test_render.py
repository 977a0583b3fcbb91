"""Images: drawn at the projected positions only, and deterministic."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from maskhand.conventions import BONES
from maskhand.render import FINGER_RGB, bar_tile, contact_sheet, draw_keypoints, draw_label, overlay_mesh, png_bytes

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


@pytest.mark.parametrize("corner", [(30.0, 40.0), (-50.0, -50.0), (500.0, 500.0)])
def test_a_label_stands_over_its_corner_and_inside_the_image(corner):
    image = draw_label(gray(), "hand 1", corner)
    ys, xs = np.nonzero((image != 128).any(-1))
    assert len(ys) > 50, "whole, wherever the corner is"
    whole = np.nonzero((draw_label(gray(), "hand 1", (30, 40)) != 128).any(-1))
    assert (np.ptp(ys), np.ptp(xs)) == (np.ptp(whole[0]), np.ptp(whole[1]))
    if corner == (30.0, 40.0):
        assert 28 <= xs.min() <= 33 and 36 <= ys.max() <= 41
    assert image.min() < 60 and image.max() > 200, "light on dark: to be read on any image"


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
