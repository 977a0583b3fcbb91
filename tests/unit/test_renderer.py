"""The renderer: smooth closed surface, images that agree with the camera, light that behaves like light."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest
import trimesh
from scipy.spatial import cKDTree

from maskhand.synth import background, film, look, solids, surface, view
from maskhand.synth.renderer import Layer, render
from maskhand.synth.scene import Studio, open_studio
from maskhand.synth.shading import Light
from maskhand.synth.surface import Arm

SIZE = (112, 96)
K = np.array([[260.0, 0, 55.5], [0, 260.0, 47.5], [0, 0, 1]])
# columns: elbow down the image, palm to the camera, thumb to the right
PALM_TO_CAMERA = np.array([[0.0, 0, 1], [1, 0, 0], [0, 1, 0]])
NO_SLEEVE = Arm(flexion_rad=0.1, deviation_rad=0.0, sleeve_from_m=9.0, sleeve_slack=0.1)


@pytest.fixture(scope="module")
def studio() -> Studio:
    return open_studio()


@pytest.fixture(scope="module")
def vertices(studio: Studio) -> np.ndarray:
    points = studio.surface.model.v_template_m @ PALM_TO_CAMERA.T
    return (points - (points.max(0) + points.min(0)) / 2 + [0, 0, 0.62]).astype(np.float32)


def shoot(studio: Studio, vertices: np.ndarray, objects=(), light: Light | None = None) -> Layer:
    rng = np.random.default_rng(1)
    skin, sun = look.sample_skin(rng), look.sample_light(rng)
    _, cloth = look.sample_arm(rng)
    arm = studio.surface.build(vertices, PALM_TO_CAMERA, NO_SLEEVE)
    return render(
        studio.surface, arm, objects, studio.maps, skin, cloth, light or sun, K, SIZE, np.random.default_rng(2)
    )  # fmt: skip


def project(points: np.ndarray) -> np.ndarray:
    uvw = points @ K.T
    return uvw[:, :2] / uvw[:, 2:]


def gray_light(to_key: list[float], key: float = 3.0) -> Light:
    one = np.ones(3, np.float32)
    direction = np.array(to_key, np.float32)
    up = np.array([0, -1, 0], np.float32)
    return Light(direction / np.linalg.norm(direction), key * one, 0.05, up, 0.4 * one, 0.4 * one)


def test_subdivision_is_trimeshs_loop_scheme(studio: Studio) -> None:
    model = studio.surface.model
    smooth, faces = surface.loop_subdivision(model.faces, len(model.v_template_m))
    ours = smooth @ model.v_template_m
    theirs, _ = trimesh.remesh.subdivide_loop(model.v_template_m, model.faces, iterations=1)
    assert ours.shape == theirs.shape and faces.shape == (4 * len(model.faces), 3)
    np.testing.assert_allclose(np.asarray(smooth.sum(1)).ravel(), 1, atol=1e-6)
    assert cKDTree(theirs).query(ours)[0].max() < 1e-7


@pytest.mark.parametrize("flexion", [-0.8, 0.0, 0.7])
def test_hand_and_forearm_are_one_closed_outward_surface(studio: Studio, vertices: np.ndarray, flexion: float) -> None:
    arm = studio.surface.build(vertices, PALM_TO_CAMERA, replace(NO_SLEEVE, flexion_rad=flexion, deviation_rad=0.2))
    mesh = trimesh.Trimesh(arm.vertices_m, arm.faces, process=False)
    assert mesh.is_watertight and mesh.volume > 0
    assert (mesh.vertex_normals * arm.normals).sum(1).min() > 0.5


def test_the_wrist_bends_the_way_it_is_told(studio: Studio, vertices: np.ndarray) -> None:
    def elbow(**bend: float) -> np.ndarray:
        arm = studio.surface.build(vertices, PALM_TO_CAMERA, replace(NO_SLEEVE, **bend))
        return PALM_TO_CAMERA.T @ (arm.vertices_m[-1] - vertices.mean(0))

    straight = elbow(flexion_rad=0.0)
    # in the rest frame the palm looks to -y and the thumb lies to +z; the arm moves, the hand stays
    assert elbow(flexion_rad=0.5)[1] < straight[1] - 0.1
    assert elbow(flexion_rad=0.0, deviation_rad=0.3)[2] < straight[2] - 0.1


def test_hand_mask_is_the_projected_mesh(studio: Studio, vertices: np.ndarray) -> None:
    layer = shoot(studio, vertices)
    # polygons are drawn with their border, so draw them 8 times larger and average
    fine = np.zeros((8 * SIZE[1], 8 * SIZE[0]), np.float32)
    for triangle in (project(vertices)[studio.surface.model.faces] + 0.5) * 8 - 0.5:
        cv2.fillConvexPoly(fine, np.rint(triangle).astype(np.int32), 1)
    expected = cv2.resize(fine, SIZE, interpolation=cv2.INTER_AREA) > 0.5
    mask = layer.hand > 0.5
    assert mask.sum() > 500
    assert (mask & expected).sum() / (mask | expected).sum() > 0.95
    # the forearm belongs to the foreground, not to the hand
    assert (layer.alpha > 0.5).sum() > mask.sum() + 50


def test_outlines_are_antialiased(studio: Studio, vertices: np.ndarray) -> None:
    layer = shoot(studio, vertices)
    partial = (layer.alpha > 0) & (layer.alpha < 1)
    outline = cv2.morphologyEx((layer.alpha > 0.5).astype(np.uint8), cv2.MORPH_GRADIENT, np.ones((3, 3), np.uint8))
    assert partial.sum() > 0.25 * outline.sum()
    assert not (partial & (outline == 0)).any()


def test_light_from_the_camera_is_brighter_than_from_behind(studio: Studio, vertices: np.ndarray) -> None:
    front, back = (shoot(studio, vertices, light=gray_light([0.2, -0.3, z])) for z in (-1.0, 1.0))
    inside = front.hand == 1
    assert front.light[inside].mean() > 2 * back.light[inside].mean()


def test_an_object_throws_a_shadow_and_hides_the_hand(studio: Studio, vertices: np.ndarray) -> None:
    finish = solids.Finish(np.full(3, 0.2, np.float32), np.full(3, 0.2, np.float32), "plain", 1, 0, 0)
    light = gray_light([1.0, 0, -1.0])
    plain = shoot(studio, vertices, light=light)
    palm = vertices.mean(0)
    # beside the camera's line of sight, on the light's way to the palm
    shade = solids.make_solid("box", palm + np.array([0.10, 0, -0.10]), np.eye(3), np.array([0.02, 0.05, 0.02]), finish)
    at = tuple(np.rint(project(palm[None])[0]).astype(int)[::-1])
    shaded = shoot(studio, vertices, [shade], light)
    assert shaded.hand[at] == 1
    assert shaded.light[at].sum() < 0.6 * plain.light[at].sum()
    hider = solids.make_solid("ellipsoid", palm * 0.8, np.eye(3), np.full(3, 0.02), finish)
    hidden = shoot(studio, vertices, [hider], light)
    assert hidden.hand[at] == 0 and hidden.alpha[at] == 1
    assert hidden.hand.sum() < plain.hand.sum() - 20


@pytest.mark.parametrize("kind", solids.KINDS)
def test_solids_are_closed_and_face_outwards(kind: str) -> None:
    finish = solids.Finish(np.zeros(3, np.float32), np.ones(3, np.float32), "checks", 3, 0, 0)
    solid = solids.make_solid(kind, np.array([0.0, 0, 1]), np.eye(3), np.array([0.02, 0.03, 0.05]), finish)
    mesh = trimesh.Trimesh(solid.vertices_m.astype(np.float64), solid.faces, process=False)
    corners = solid.normals[solid.faces].mean(1)
    real = mesh.area_faces > 1e-12  # the poles of the ellipsoid hold empty triangles
    assert ((mesh.face_normals * corners).sum(1)[real] > 0.5).all()
    mesh.merge_vertices(merge_norm=True, merge_tex=True)
    assert mesh.volume > 0
    np.testing.assert_allclose(np.ptp(solid.vertices_m, axis=0), [0.04, 0.06, 0.10], rtol=0.02)


def test_an_unknown_solid_or_background_is_refused() -> None:
    finish = solids.Finish(np.zeros(3), np.zeros(3), "plain", 1, 0, 0)
    with pytest.raises(ValueError, match="teapot"):
        solids.make_solid("teapot", np.zeros(3), np.eye(3), np.ones(3), finish)
    with pytest.raises(ValueError, match="moon"):
        background.make_background(np.random.default_rng(0), (8, 8), "moon")


def test_an_empty_layer_shows_the_background_through_the_film() -> None:
    height, width = 40, 50
    empty = Layer.empty(height, width)
    wall = np.full((height, width, 3), (200, 120, 40), np.uint8)
    neutral = film.Grade(1.0, np.ones(3, np.float32), 1.0, 0.3, 0.0, 0.0, 0.0, 0.0, 95)
    image = film.develop(empty, 1.0, wall, neutral, np.random.default_rng(0))
    assert np.abs(image.astype(int) - wall).max() <= 1


@pytest.mark.parametrize("kind", background.KINDS)
def test_backgrounds_are_repeatable_and_varied(kind: str) -> None:
    first, again, other = (background.make_background(np.random.default_rng(s), (64, 48), kind) for s in (4, 4, 5))
    assert first.shape == (48, 64, 3) and first.dtype == np.uint8
    assert np.array_equal(first, again)
    assert np.abs(first.astype(int) - other).mean() > 3


def test_the_meter_makes_hands_comparable_in_any_light(studio: Studio, vertices: np.ndarray) -> None:
    means = []
    for strength in (0.5, 8.0):
        layer = shoot(studio, vertices, light=gray_light([0.3, -0.5, -1.0], strength))
        rng, wall = np.random.default_rng(0), np.zeros((SIZE[1], SIZE[0], 3), np.uint8)
        image = film.develop(layer, film.meter(layer, 0.3), wall, film.sample_grade(rng), rng)
        means.append(image[layer.hand == 1].mean())
    assert abs(means[0] - means[1]) < 15


def test_views_show_the_whole_hand_at_freihands_size() -> None:
    rng = np.random.default_rng(0)
    cloud = rng.uniform(-1, 1, (100, 3)) * [0.08, 0.05, 0.03] + [3, 4, 5]
    for _ in range(30):
        shot = view.fit_view(cloud, rng)
        uvw = (cloud + shot.transl_m) @ shot.K_px.T
        uv = uvw[:, :2] / uvw[:, 2:]
        extent = np.ptp(uv, axis=0).max()
        assert view.FILL[0] * view.SIZE_PX - 2 < extent < view.FILL[1] * view.SIZE_PX + 2
        assert uv.min() > 0 and uv.max() < view.SIZE_PX
        assert np.linalg.norm((uv.max(0) + uv.min(0)) / 2 - view.PRINCIPAL_PX) < 45


def test_orientations_are_proper_and_rarely_hide_behind_the_arm() -> None:
    rng = np.random.default_rng(0)
    rotations = np.stack([view.sample_orientation(rng) for _ in range(600)])
    np.testing.assert_allclose(np.linalg.det(rotations), 1)
    elbow = rotations[:, :, 0]
    assert (elbow[:, 2] < -view.ELBOW_TO_CAMERA).mean() < 0.05  # a uniform choice would have 0.22
    assert 0.05 < elbow[:, 1].mean() < 0.4
    palm_to_camera = rotations[:, 2, 1] > 0
    assert 0.4 < palm_to_camera.mean() < 0.6


def test_betas_are_normal_within_their_limit() -> None:
    rng = np.random.default_rng(0)
    betas = np.stack([view.sample_betas(rng) for _ in range(500)])
    assert np.abs(betas).max() <= view.BETA_LIMIT
    assert abs(betas.mean()) < 0.05 and abs(betas.std() - 0.96) < 0.05
