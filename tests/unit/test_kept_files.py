"""Files of a workspace that another command left: cut short, edited or of another form, they end in a sentence."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from maskhand.cluster.run_folder import acquire, finished, unfinished_beside
from maskhand.comparison.records import BY_HAND
from maskhand.evaluation.summary import EvaluationSummary, SummaryError
from maskhand.kept_json import KeptFileError, read_kept, read_steps
from maskhand.steps.kept_results import curves_of, hands_of, joints_of
from maskhand.synth.freihand_layout import _already_there


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (b"", "not valid JSON"),
        (b'{"steps": 5', "not valid JSON.*cut short or edited: delete it"),
        (b"\xff\xfe\xfa{}", "not UTF-8"),
        (b"[]", "found a list"),
        (b"{}", "steps is 'missing', expected a whole number.*: delete it"),
        (b'{"steps": true, "name": ""}', "steps is True, expected a whole number"),
        (b'{"steps": 5, "name": null}', "name is None, expected a text"),
        (b'\xef\xbb\xbf{"steps": 5, "name": "a", "more": 1}', ""),
    ],
)
def test_a_record_that_is_no_longer_one(tmp_path: Path, text: bytes, said: str) -> None:
    (path := tmp_path / "record.json").write_bytes(text)
    if not said:
        assert read_kept(path, "delete it", steps=int, name=str)["steps"] == 5
        return
    with pytest.raises(KeptFileError, match=f"{path}: .*{said}"):
        read_kept(path, "delete it", steps=int, name=str)


@pytest.mark.parametrize("line", ["{", "[1]", "{}", '{"step": "2"}', '{"step": 1, "train/loss": "x"}', "\x00"])
def test_a_report_of_a_training_that_is_none(tmp_path: Path, line: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 2, "train/loss": NaN}\n' + line + "\n")
    with pytest.raises(KeptFileError, match=rf"{path}, line 2: expected a JSON record of numbers with a `step`"):
        read_steps(path)
    path.write_text('{"step": 4, "val/a": 1.5}\n{"step": 2, "train/loss": 3}\n' + line)
    assert curves_of(path) == {"train/loss": [(2, 3)], "val/a": [(4, 1.5)]}, "a last line that is not whole"


def test_a_training_beside_damaged_ones(tmp_path: Path) -> None:
    """Its own record ends in a sentence, another's does not keep it from starting, and without an export it goes on."""
    mine, other = tmp_path / "transformer-quick-1", tmp_path / "transformer-quick-2"
    acquire(mine, "1", {"seed": "0"})
    acquire(other, "2", {"seed": "1"})
    assert "seed was 1 and is 0" in unfinished_beside(mine, {"seed": "0"})
    (other / "run.json").write_text('{"identity": "2"')
    assert f"one that cannot be read: {other / 'run.json'}" in unfinished_beside(mine, {"seed": "0"})
    (mine / "finished.json").write_text('{"steps": 500, "metrics": {}, "restarts": 0}')
    assert finished(mine) is None, "the export is gone"
    (mine / "export").mkdir()
    assert finished(mine) == {"steps": 500, "metrics": {}, "restarts": 0}
    (mine / "finished.json").write_text('{"steps": 500}')
    with pytest.raises(KeptFileError, match=r"finished\.json: metrics is 'missing', .*ends anew from its last"):
        finished(mine)
    (mine / "run.json").write_text("{}")
    with pytest.raises(KeptFileError, match=rf"run\.json: identity is 'missing', .* delete the folder {mine}"):
        acquire(mine, "1", {"seed": "0"})
    (tmp_path / "synth.json").write_text("")
    with pytest.raises(KeptFileError, match=r"synth\.json: not valid JSON.*--rebuild"):
        _already_there(tmp_path, {})


def parquet(change: Callable[[pd.DataFrame], pd.DataFrame]) -> bytes:
    texts = {"key": ["a", "b", "a"], "side": "left", "failure": "", "predictor": ["product", "product", "mean"]}
    numbers = dict.fromkeys([name for name in BY_HAND if name not in texts], 1.0)
    change(pd.DataFrame(texts | numbers | {"pa_mpjpe_mm": 9.0})).to_parquet(stream := io.BytesIO())
    return stream.getvalue()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (parquet(lambda t: t)[:-100], "no Parquet file of"),
        (b"", "no Parquet file of 0 bytes"),
        (parquet(lambda t: t.drop(columns="predictor")), "no column predictor"),
        (parquet(lambda t: t.drop(columns="pa_mm.wrist")), r"no column pa_mm\.wrist"),
        (parquet(lambda t: t.assign(pa_mpjpe_mm="x")), r"pa_mpjpe_mm holds \['x'\], expected numbers"),
        (parquet(lambda t: t.assign(key="a")), "hand a is there twice for product"),
        (parquet(lambda t: t), ""),
    ],
)
def test_the_rows_of_hands(tmp_path: Path, data: bytes, said: str) -> None:
    (path := tmp_path / "samples.parquet").write_bytes(data)
    if not said:
        assert list(hands_of(str(path), "product", *BY_HAND).key) == ["a", "b"]
        return
    with pytest.raises(KeptFileError, match=rf"{path}: {said}.*`maskhand evaluate`"):
        hands_of(str(path), "product", *BY_HAND)


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({}, r"index has shape \(0,\)"),
        ({"index": np.zeros(2, int), "joints_px": np.zeros((3, 21, 2))}, r"joints_px \(3, 21, 2\), expected"),
        ({"index": np.array([{}]), "joints_px": np.zeros((1, 21, 2))}, "expected"),
        (None, "not a whole npz file"),
    ],
)
def test_placed_joints(tmp_path: Path, arrays: dict[str, Any] | None, said: str) -> None:
    path = tmp_path / "joints.npz"
    if arrays is None:
        path.write_bytes(b"PK\3\4")
    else:
        np.savez(path, **arrays)
    with pytest.raises(KeptFileError, match=f"{path}: .*{said}.*`maskhand evaluate`"):
        joints_of(str(path))


def test_a_summary_without_sets_or_without_its_own_row(tmp_path: Path) -> None:
    row = {"name": "a", "key": "a", "passes": 1, "failed": 0, "metrics": {}}
    one = {"set": "s", "data_digest": "", "model_digest": "", "count": 1, "with_joints": 1, "with_mesh": 0,
           "product": "a", "gain_over_mean_pose": None, "facts": {}, "rows": [row]}  # fmt: skip
    for sets, said in (({}, "sets: "), ({"x": one | {"product": "b"}}, r"sets\.x: .*no row of its `product` 'b'")):
        (path := tmp_path / "evaluation.json").write_text(
            json.dumps({"model": "m", "model_digest": "", "page": "", "sets": sets})
        )
        with pytest.raises(SummaryError, match=f"{path}: {said}"):
            EvaluationSummary.read(str(path))
