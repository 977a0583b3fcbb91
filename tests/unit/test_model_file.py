"""Hand model files: MANO's pickles read without chumpy, anything else refused without running it."""

from __future__ import annotations

import collections
import importlib.util
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import torch

from maskhand.hand.model_file import (
    MANO_DIR_VARIABLE,
    OPEN_HAND_FOLDER,
    HandModelError,
    UnsafePickleError,
    default_hand_path,
    load_hand_model,
)
from support.hand_models import random_fields


@pytest.fixture
def chumpy_like(monkeypatch):
    """Classes that pickle under chumpy's names, registered only while a test writes its file."""
    ch, reordering = types.ModuleType("chumpy.ch"), types.ModuleType("chumpy.reordering")
    for module, name in ((ch, "Ch"), (reordering, "Select")):
        setattr(module, name, type(name, (), {"__module__": module.__name__, "__qualname__": name}))
    monkeypatch.setitem(sys.modules, "chumpy", types.ModuleType("chumpy"))
    monkeypatch.setitem(sys.modules, "chumpy.ch", ch)
    monkeypatch.setitem(sys.modules, "chumpy.reordering", reordering)
    return ch.Ch, reordering.Select


def write(path: Path, value: object, protocol: int = 2) -> Path:
    path.write_bytes(pickle.dumps(value, protocol=protocol))
    return path


def assert_same(model, fields) -> None:
    np.testing.assert_array_equal(model.v_template_m, fields["v_template"])
    np.testing.assert_array_equal(model.faces, fields["f"])
    np.testing.assert_array_equal(model.j_regressor, fields["J_regressor"])
    np.testing.assert_array_equal(model.shapedirs, fields["shapedirs"])
    np.testing.assert_array_equal(model.posedirs, fields["posedirs"])
    np.testing.assert_array_equal(model.hands_mean_aa.ravel(), fields["hands_mean"])
    assert model.parents[0] == -1 and model.side == "right"


@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_plain_numpy_in_every_protocol(tmp_path, protocol):
    fields = random_fields()
    stored = fields | {"J_regressor": scipy.sparse.csc_matrix(fields["J_regressor"])}
    assert_same(load_hand_model(write(tmp_path / "MANO_RIGHT.pkl", stored, protocol)), fields)


def test_the_spread_of_poses_is_that_of_the_stored_coefficients(tmp_path):
    fields = random_fields()
    stored = fields["hands_coeffs"] * np.arange(1, 46)
    with_poses = load_hand_model(write(tmp_path / "MANO_RIGHT.pkl", fields | {"hands_coeffs": stored}))
    np.testing.assert_allclose(with_poses.hands_std, np.sqrt(((stored - stored.mean(0)) ** 2).mean(0)))
    del fields["hands_coeffs"]
    assert load_hand_model(write(tmp_path / "without.pkl", fields)).hands_std is None
    for wrong, said in ((stored[:, :12], r"shape \(30, 12\), expected \(30, 45\)"), (stored[:1], "holds 1 pose")):
        with pytest.raises(HandModelError, match=rf"wrong\.pkl: field 'hands_coeffs' .*{said}"):
            load_hand_model(write(tmp_path / "wrong.pkl", fields | {"hands_coeffs": wrong}))


@pytest.mark.parametrize("protocol", [0, 2])
def test_chumpy_expressions_are_read_without_chumpy(tmp_path, chumpy_like, monkeypatch, protocol):
    fields = random_fields()
    make_ch, make_select = chumpy_like
    every_direction, v_template, shapedirs = make_ch(), make_ch(), make_select()
    padded = np.concatenate([fields["shapedirs"], np.ones((778, 3, 10))], axis=2)
    every_direction.__dict__.update(x=padded, _dirty_vars=set())
    v_template.__dict__.update(x=fields["v_template"])
    idxs = np.arange(padded.size).reshape(padded.shape)[:, :, :10].ravel()
    shapedirs.__dict__.update(a=every_direction, idxs=idxs, preferred_shape=(778, 3, 10))
    stored = fields | {
        "v_template": v_template,
        "shapedirs": shapedirs,
        "J_regressor": scipy.sparse.csc_matrix(fields["J_regressor"]),
    }
    path = write(tmp_path / "MANO_RIGHT.pkl", stored, protocol)
    for name in ("chumpy", "chumpy.ch", "chumpy.reordering"):
        monkeypatch.delitem(sys.modules, name)

    assert importlib.util.find_spec("chumpy") is None
    assert b"chumpy.reordering" in path.read_bytes()
    assert_same(load_hand_model(path), fields)


def test_a_python_2_pickle(tmp_path):
    """Python 2 says copy_reg, __builtin__, numpy.core and scipy.sparse.csc."""
    fields = random_fields()
    stored = fields | {"J_regressor": scipy.sparse.csc_matrix(fields["J_regressor"])}
    data = pickle.dumps(stored, protocol=0)
    for new, old in (
        (b"cnumpy._core.multiarray\n", b"cnumpy.core.multiarray\n"),
        (b"cscipy.sparse._csc\n", b"cscipy.sparse.csc\n"),
    ):
        assert new in data
        data = data.replace(new, old)
    assert b"ccopy_reg\n_reconstructor\n" in data and b"c__builtin__\nobject\n" in data
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(data)
    assert_same(load_hand_model(path), fields)


def test_python_2_string_buffers(tmp_path):
    """Arrays of Python 2 lie in the pickle as latin-1 `str`, here written by hand, opcode by opcode."""
    values = np.array([[1.5, -2.25], [1e-300, 3.0]])
    raw = values.tobytes()
    data = (
        b"\x80\x02}U\x0av_template"
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        b"(K\x01K\x02K\x02\x86cnumpy\ndtype\nU\x02f8K\x00K\x01\x87R(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        b"\x89T" + len(raw).to_bytes(4, "little") + raw + b"tbs."
    )
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(data)
    with pytest.raises(HandModelError, match=r"'v_template' has shape \(2, 2\), expected \(778, 3\)"):
        load_hand_model(path)


class Attack:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_a_malicious_pickle_executes_nothing(tmp_path, protocol):
    witness = tmp_path / "witness"
    attacks = {
        "system": Attack(os.system, f"touch {witness}"),
        "eval": Attack(eval, f"open({str(witness)!r}, 'w')"),
        "getattr": Attack(getattr, "", "join"),
        "__import__": Attack(__import__, "os"),
    }
    for name, attack in attacks.items():
        path = write(tmp_path / "MANO_RIGHT.pkl", random_fields() | {"v_template": attack}, protocol)
        with pytest.raises(UnsafePickleError, match=rf"MANO_RIGHT.pkl: refused, the pickle asks for \w+\.{name}"):
            load_hand_model(path)
        assert not witness.exists()
    pickle.loads(pickle.dumps(attacks["system"]))
    assert witness.exists(), "the attack itself must be a real one"


def test_dotted_names_do_not_reach_through_allowed_modules(tmp_path):
    """Protocol 4 resolves dotted names; `numpy.ndarray.__init__.__globals__` and the like must not pass."""
    path = tmp_path / "MANO_RIGHT.pkl"
    path.write_bytes(b"\x80\x04\x8c\x05numpy\x8c\x11ndarray.__class__\x93.")
    with pytest.raises(UnsafePickleError, match=r"numpy\.ndarray\.__class__"):
        load_hand_model(path)


def test_errors_name_file_and_field(tmp_path):
    fields = random_fields()
    path = tmp_path / "hand.pkl"
    with pytest.raises(FileNotFoundError, match=r"hand\.pkl"):
        load_hand_model(path)
    path.write_bytes(b"not a pickle")
    with pytest.raises(HandModelError, match=r"hand\.pkl: not a readable pickle"):
        load_hand_model(path)
    without = {k: v for k, v in fields.items() if k != "posedirs"}
    with pytest.raises(HandModelError, match="'posedirs' is missing"):
        load_hand_model(write(path, without))
    with pytest.raises(HandModelError, match=r"'f' has shape \(3, 3\), expected \(1538, 3\)"):
        load_hand_model(write(path, fields | {"f": np.zeros((3, 3))}))
    with pytest.raises(HandModelError, match="'weights' holds NaN"):
        load_hand_model(write(path, fields | {"weights": np.full((778, 16), np.nan)}))
    for changes, sentence in {
        "v_template": (1000, r"hand of 'v_template' is \d+ m large, expected .*millimeters"),
        "hands_mean": (57.3, r"'hands_mean' turns a joint by .* in degrees"),
        "J_regressor": (0, "rows of 'J_regressor' do not sum to one"),
    }.items():
        factor, message = sentence
        with pytest.raises(HandModelError, match=message):
            load_hand_model(write(path, fields | {changes: factor * fields[changes]}))
    with pytest.raises(HandModelError, match="'v_template' is not an array"):
        load_hand_model(write(path, fields | {"v_template": [[10**400, 0, 0]] * 778}))
    with pytest.raises(HandModelError, match="name says left, but the mesh is a right hand"):
        load_hand_model(write(tmp_path / "MANO_LEFT.pkl", fields))


def _faces(change):
    return lambda fields: {"f": change(fields["f"].copy())}


def _put(place, values):
    def change(array):
        array = array.copy()
        array[place] = values
        return array

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_faces(lambda f: f[:, ::-1]), r"faces of 'f' look inwards, .* Store f\[:, ::-1\]"),
        (lambda fields: {"v_template": fields["v_template"] * [1, -1, 1]}, "look inwards, .* mirrored"),
        (_faces(_put(7, [5, 5, 9])), r"face 7 of 'f' is \[5, 5, 9\], expected three different vertices"),
        (_faces(_put((0, 0), 778)), r"'f' names vertices outside 0\.\.777"),
        (_faces(lambda f: 0 * f + [3, 1, 2]), "'f' makes no surface: .* of another mesh"),
        (_faces(lambda f: np.concatenate([f[:769], f[769:, ::-1]])), "'f' makes no surface.* some turned around"),
        (_faces(lambda f: (f[:, :1] + [0, 100, 300]) % 778), "'f' makes no surface"),
        (lambda fields: {"weights": fields["weights"] + 0.3 * np.eye(16)[0] - 0.3 * np.eye(16)[1]}, "'weights' of v"),
        (lambda fields: {"shapedirs": 1000 * fields["shapedirs"]}, "'shapedirs' moves a vertex by .* millimeters"),
        (lambda fields: {"posedirs": 1000 * fields["posedirs"]}, "'posedirs' moves a vertex by .* millimeters"),
    ],
)  # fmt: skip
def test_a_surface_that_is_no_hands(tmp_path, change, message):
    """Mirrored without its faces, faces of another mesh, skin that is pushed away by a joint, units."""
    fields = random_fields()
    path = tmp_path / "MANO_RIGHT.pkl"
    with pytest.raises(HandModelError, match=f"{path}: .*{message}"):
        load_hand_model(write(path, fields | change(fields)))


@pytest.mark.parametrize("side", ["RIGHT", "LEFT"])
def test_a_side_in_a_hundred_may_be_open_and_a_weight_rounded(tmp_path, side):
    """A surface somebody has cut for a sleeve, and weights that were fitted, pass."""
    fields = dict(pickle.loads((OPEN_HAND_FOLDER / f"OPEN_HAND_{side}.pkl").read_bytes()))
    weights = fields["weights"] - 5e-4 * np.eye(16)[3] + 5e-4 * np.eye(16)[4]
    assert load_hand_model(write(tmp_path / f"MANO_{side}.pkl", fields | {"weights": weights})).faces.shape == (1538, 3)


def test_side_and_digest_come_from_the_content(tmp_path):
    fields = random_fields()
    mirrored = fields | {"v_template": fields["v_template"] * [-1.0, 1.0, 1.0], "f": fields["f"][:, ::-1]}
    left = load_hand_model(write(tmp_path / "a.pkl", mirrored))
    right = load_hand_model(write(tmp_path / "b.pkl", fields))
    again = load_hand_model(write(tmp_path / "c.pkl", fields))
    assert (left.side, right.side) == ("left", "right")
    assert right.digest == again.digest != left.digest and len(right.digest) == 12


def test_default_path(tmp_path, monkeypatch):
    monkeypatch.delenv(MANO_DIR_VARIABLE, raising=False)
    assert default_hand_path("left").name == "OPEN_HAND_LEFT.pkl"
    monkeypatch.setenv(MANO_DIR_VARIABLE, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"MANO_RIGHT\.pkl: not found; \$MASKHAND_MANO_DIR"):
        default_hand_path()
    (tmp_path / "MANO_RIGHT.pkl").touch()
    assert default_hand_path() == tmp_path / "MANO_RIGHT.pkl"


@pytest.mark.parametrize("kind", ["ordered", "npz"])
def test_models_that_other_tools_have_saved_again(tmp_path, kind):
    """As an OrderedDict, and as the npz that smplx reads, where what is no array is an array around it."""
    fields = random_fields()
    path = tmp_path / "MANO_RIGHT.pkl"
    if kind == "ordered":
        write(path, collections.OrderedDict(fields))
    else:
        regressor = np.array(scipy.sparse.csc_matrix(fields["J_regressor"]), object)
        with path.open("wb") as stream:
            np.savez(stream, **fields | {"J_regressor": regressor})
    assert_same(load_hand_model(path), fields)
    with pytest.raises(HandModelError, match=r"part of a larger file|not a whole npz|'v_template' is missing"):
        torch.save(dict.fromkeys(("a", "b"), torch.zeros(2)), path)
        load_hand_model(path)
