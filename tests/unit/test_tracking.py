"""Runs, files and the alias gate, on a database file; a registered model's prediction is in tests/integration."""

from __future__ import annotations

import contextlib
import json
import math
import multiprocessing
import pickle
import shutil
import sqlite3
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import mlflow
import numpy as np
import pytest
import yaml
from mlflow.tracking._tracking_service import utils as tracking_utils

from maskhand.promotion import Score, judge
from maskhand.provenance import code_digest
from maskhand.storage import StorageError
from maskhand.tracking import (
    MODEL,
    TEXT_MODEL,
    Lineage,
    ModelVersion,
    RunReporter,
    Tracker,
    TrackingServerError,
    database,
    pages,
    server_version,
)
from maskhand.tracking import runs as tracked_runs
from maskhand.tracking.store import opening
from support.training_fakes import small_recipe
from support.warned import warnings_of


@pytest.fixture(scope="module")
def tracker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tracker]:
    root = tmp_path_factory.mktemp("tracking")
    yield Tracker(f"sqlite:///{root / 'deep' / 'mlflow.db'}", root / "artifacts")


@pytest.fixture(scope="module")
def client(tracker: Tracker) -> Any:
    Path(tracker.uri.removeprefix("sqlite:///")).parent.mkdir(parents=True, exist_ok=True)
    return mlflow.MlflowClient(tracker.uri, tracker.uri)


def test_a_run_holds_recipe_code_and_data(tracker: Tracker, client: Any) -> None:
    recipe = small_recipe()
    data = Lineage("freihand_synth/training", "/shards/freihand_synth/training", "abc123")
    run_id = tracker.start_run("transformer", recipe, {"identity": "id-1", "manifest.x": "d1"}, [data], run_name="mine")
    run = client.get_run(run_id)
    assert run.data.params == recipe.flat() and len(run.data.params) > 100, "more than one batch of parameters"
    assert run.data.tags["recipe_digest"] == recipe.digest() and run.data.tags["code_digest"] == code_digest()
    assert run.data.tags["manifest.x"] == "d1" and run.data.tags["kind"] == "transformer" and run.data.tags["git_sha"]
    (lineage,) = run.inputs.dataset_inputs
    assert (lineage.dataset.name, lineage.dataset.digest) == (data.name, data.digest)
    assert json.loads(lineage.dataset.source) == {"uri": data.uri}
    path = client.download_artifacts(run_id, "recipe.yaml")
    assert yaml.safe_load(Path(path).read_text()) == recipe.model_dump(mode="json")
    assert run.info.status == "RUNNING"
    tracker.end_run(run_id)
    assert client.get_run(run_id).info.status == "FINISHED"
    assert tracker.find_run("transformer", "id-1") == run_id
    assert tracker.find_run("tokenizer", "id-1") is None and tracker.find_run("transformer", "id-2") is None


def test_a_run_ends_with_its_block(tracker: Tracker, client: Any) -> None:
    with tracker.ending(tracker.start_run("evaluation", small_recipe(), {})) as good:
        assert not tracker.is_finished(good)
    bad = tracker.start_run("evaluation", small_recipe(), {})
    with pytest.raises(OSError, match="lost"), tracker.ending(bad):
        raise OSError("lost")
    assert tracker.is_finished(good) and client.get_run(bad).info.status == "FAILED"
    stopped = tracker.start_run("evaluation", small_recipe(), {})
    with pytest.raises(SystemExit), tracker.ending(stopped):
        raise SystemExit(143)
    assert client.get_run(stopped).info.status == "KILLED"
    tracker.resume(stopped)
    assert client.get_run(stopped).info.status == "RUNNING"


def test_a_reporter_travels_and_writes_every_step(tracker: Tracker, client: Any) -> None:
    run_id = tracker.start_run("tokenizer", small_recipe(), {})
    reporter = pickle.loads(pickle.dumps(RunReporter(tracker.uri, run_id)))
    for step in (10, 20, 30):
        reporter(step, {"train/loss": 1.0 / step, "train/lr": 0.1, "train/broken": math.nan})
    reporter.close()
    history = client.get_metric_history(run_id, "train/loss")
    assert [(m.step, m.value) for m in sorted(history, key=lambda m: m.step)] == [(10, 0.1), (20, 0.05), (30, 1 / 30)]
    assert "train/broken" not in client.get_run(run_id).data.metrics


def test_a_dead_tracker_costs_a_sentence_not_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    warned = warnings_of("maskhand.tracking.runs", monkeypatch)
    reporter = RunReporter("sqlite:////proc/no/such/place.db", "run")
    reporter(1, {"train/loss": 1.0})
    reporter(2, {"train/loss": 1.0})
    told = reporter.close()
    assert told is not None and told.startswith(
        "not all points of its curves reached sqlite:////proc/no/such/place.db ("
    )
    began_s = time.monotonic()
    Tracker("http://127.0.0.1:9").end_failed("run", ValueError("the error that people are to see"))
    (sentence,) = warned
    assert "the end of run run is not recorded: the MLflow server at http://127.0.0.1:9 does not answer" in sentence
    assert time.monotonic() - began_s < 30


def test_a_database_that_fails_is_a_sentence_and_no_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    run_id = tracker.start_run("tokenizer", small_recipe(), {})
    database = sqlite3.connect(tmp_path / "mlflow.db")
    database.execute("ALTER TABLE runs RENAME TO gone")
    database.close()
    warned = warnings_of("maskhand.tracking.runs", monkeypatch)
    tracker.end_failed(run_id, ValueError("the error that people are to see"))
    (sentence,) = warned
    assert "is not recorded: the database of runs cannot be used (no such table: runs" in sentence
    assert "SQL" not in sentence + "".join(capfd.readouterr())


def test_the_curves_of_a_tracker_that_was_away_are_filled(tracker: Tracker, client: Any, tmp_path: Path) -> None:
    run_id = tracker.start_run("tokenizer", small_recipe(), {})
    rows = [{"step": step, "train/loss": 1 / step} | ({"val/error": 2.0 * step} if step % 4 == 0 else {}) for step in
            range(1, 9)]  # fmt: skip
    rows[6]["train/loss"] = math.nan
    for row in rows[:3]:
        tracker.log_metrics(run_id, {name: value for name, value in row.items() if name != "step"}, int(row["step"]))
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert tracker.log_history(run_id, tmp_path / "metrics.jsonl") == 4 + 2
    assert tracker.log_history(run_id, tmp_path / "metrics.jsonl") == 0, "once"
    for name in ("train/loss", "val/error"):
        found = {point.step: point.value for point in client.get_metric_history(run_id, name)}
        assert found == {row["step"]: row[name] for row in rows if name in row and math.isfinite(row[name])}


def test_curves_and_images_are_kept(tracker: Tracker, client: Any, tmp_path: Path) -> None:
    run_id = tracker.start_run("tokenizer", small_recipe(), {})
    rows = [{"step": step, "train/loss": 1 / step, "train/lr": 0.1} for step in (10, 20, 10, 20, 30)]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    tracker.log_history(run_id, tmp_path / "metrics.jsonl")
    image = np.zeros((8, 8, 3), np.uint8)
    tracker.log_image(run_id, "sheets/sheet.png", cv2.imencode(".png", image)[1].tobytes())
    names = {file.path for file in client.list_artifacts(run_id)} | {
        f.path for f in client.list_artifacts(run_id, "sheets")
    }
    assert {"metrics.jsonl", "curves.png", "sheets/sheet.png"} <= names
    curves = cv2.imread(client.download_artifacts(run_id, "curves.png"))
    assert curves is not None and curves.std() > 5


@pytest.mark.parametrize(
    ("ours", "mean", "digest", "champion", "expected", "because"),
    [
        (6.0, 10.0, "a", None, True, "there was no champion"),
        (7.1, 10.0, "a", None, False, "30 % below it are required"),
        (7.0, 10.0, "a", None, True, "30.0 % below"),
        (5.0, 10.0, "a", Score(6.0, 10.0, "a"), True, "better than the former champion's 6.00 mm"),
        (6.0, 10.0, "a", Score(6.0, 10.0, "a"), False, "not better than the champion's 6.00 mm"),
        (5.0, 10.0, "a", Score(6.0, 10.0, "b"), False, "measured on other data"),
        (7.5, 10.0, "a", Score(9.0, 10.0, "a"), False, "30 % below it are required"),
        (math.nan, 10.0, "a", None, False, "not a number"),
    ],
)
def test_the_gate(ours: float, mean: float, digest: str, champion: Score | None, expected: bool, because: str) -> None:
    better, reason = judge(Score(ours, mean, digest), champion, None if champion is None else "version 1")
    assert better is expected and because in reason, reason


def test_a_champion_without_a_score_stays() -> None:
    better, reason = judge(Score(5.0, 10.0, "a"), None, "version 3")
    assert not better and "version 3" in reason and "never measured" in reason


def test_aliases_follow_the_gate(tracker: Tracker, client: Any, tmp_path: Path) -> None:
    client.create_registered_model(MODEL)

    def register(score: Score | None) -> ModelVersion:
        made = client.create_model_version(MODEL, source=tmp_path.as_uri(), tags=score.as_tags() if score else {})
        return ModelVersion(MODEL, int(made.version))

    def holder(alias: str) -> int:
        return int(client.get_model_version_by_alias(MODEL, alias).version)

    first = tracker.promote(register(Score(6.0, 10.0, "a")))
    assert first.aliases == ("challenger", "champion") and holder("champion") == 1
    worse = tracker.promote(register(Score(6.5, 10.0, "a")))
    assert worse.aliases == ("challenger",) and (holder("champion"), holder("challenger")) == (1, 2)
    assert client.get_model_version(MODEL, "2").tags["promotion"] == worse.reason
    better = tracker.promote(register(Score(5.0, 10.0, "a")))
    assert better.aliases == ("challenger", "champion") and (holder("champion"), holder("challenger")) == (3, 3)
    with pytest.raises(ValueError, match="without an evaluation"):
        tracker.promote(register(None))
    assert tracker.aliases(better.version) == ("challenger", "champion") and tracker.aliases(first.version) == ()
    assert tracker.resolve("models:/maskhand@champion") == better.version
    there = r"there are maskhand@challenger \(version 3\), maskhand@champion \(version 3\), maskhand/1, maskhand/2, "
    for mistaken in ("models:/maskhand@nobody", "models:/maskhand/9", "models:/maskhand"):
        with pytest.raises(LookupError, match=f"{mistaken}: no such model in .*; {there}"):
            tracker.bundle_folder(mistaken)
    with pytest.raises(LookupError, match="registered are maskhand"):
        tracker.resolve("models:/hand@champion")


def test_models_that_read_texts_have_a_champion_of_their_own(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    client = mlflow.MlflowClient(tracker.uri, tracker.uri)
    for name, score in ((MODEL, Score(6.0, 10.0, "a")), (TEXT_MODEL, Score(14.0, 30.0, "t", "pa_mpvpe_mm"))):
        client.create_registered_model(name)
        made = client.create_model_version(name, source=tmp_path.as_uri(), tags=score.as_tags())
        decision = tracker.promote(ModelVersion(name, int(made.version)))
        assert decision.aliases == ("challenger", "champion"), decision.reason
    assert "PA-MPVPE 14.00 mm, 53.3 % below" in decision.reason
    assert client.get_model_version(TEXT_MODEL, "1").description == decision.reason
    assert tracker.contenders(9) == (ModelVersion(MODEL, 1), [])


@pytest.mark.parametrize(
    ("own", "mean_pose", "expected"),
    [
        ({"pa_mpjpe_mm": 5.0, "pa_mpvpe_mm": 6.0}, {"pa_mpjpe_mm": 9.0}, Score(5.0, 9.0, "d")),
        ({"pa_mpjpe_mm": None, "pa_mpvpe_mm": 6.0}, {"pa_mpvpe_mm": 9.0}, Score(6.0, 9.0, "d", "pa_mpvpe_mm")),
        ({"pa_mpjpe_mm": math.nan, "pa_mpvpe_mm": 6.0}, {"pa_mpvpe_mm": 9.0}, Score(6.0, 9.0, "d", "pa_mpvpe_mm")),
    ],
)
def test_the_gate_looks_at_joints_or_else_at_meshes(own: dict, mean_pose: dict, expected: Score) -> None:
    found = Score.of_metrics(own, mean_pose, "d")
    assert found == expected == Score.of_tags(found.as_tags())
    empty = Score.of_metrics({"pck_005": 0.5}, {}, "d")
    assert math.isnan(empty.error_mm) and math.isnan(empty.mean_pose_mm)


def test_a_new_registrys_first_version_is_not_the_old_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fetch(artifact_uri: str, dst_path: str) -> str:
        bundle = Path(dst_path) / "model" / "artifacts" / "bundle"
        bundle.mkdir(parents=True)
        (bundle.parents[1] / "MLmodel").touch()
        fetched.append(artifact_uri)
        return str(bundle.parents[1])

    fetched: list[str] = []
    monkeypatch.setattr(mlflow.artifacts, "download_artifacts", fetch)
    folders = []
    for name in ("before.db", "after.db"):
        tracker = Tracker(f"sqlite:///{tmp_path / name}", tmp_path / "artifacts")
        client = mlflow.MlflowClient(tracker.uri, tracker.uri)
        client.create_registered_model(MODEL)
        run_id = tracker.start_run("transformer", small_recipe(), {})
        client.create_model_version(MODEL, source=tmp_path.as_uri(), run_id=run_id)
        folders += [tracker.bundle_folder(f"models:/{MODEL}/1") for _ in range(2)]
    assert folders[0] == folders[1] != folders[2] == folders[3] and len(fetched) == 2


def test_a_copied_workspace_has_its_files_and_its_model_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = tmp_path / "old place", tmp_path / "new"
    first = Tracker(f"sqlite:///{old / 'mlflow' / 'mlflow.db'}", old / "mlflow" / "artifacts")
    run_id = first.start_run("transformer", small_recipe(), {})
    kept = old / "mlflow" / "artifacts" / "models" / "m-1" / "artifacts"
    (kept / "artifacts" / "bundle").mkdir(parents=True)
    for part in ("MLmodel", "artifacts/bundle/bundle.json"):
        (kept / part).write_text("flavors: {}\n")
    client = mlflow.MlflowClient(first.uri, first.uri)
    client.create_registered_model(MODEL)
    client.create_model_version(MODEL, source=kept.as_uri(), run_id=run_id)
    shutil.copytree(old, new)
    old.rename(tmp_path / "gone")
    tracking_utils._artifact_repos_cache.clear()  # as in another process

    told = warnings_of("maskhand.tracking.moved", monkeypatch)
    moved = Tracker(f"sqlite:///{new / 'mlflow' / 'mlflow.db'}", new / "mlflow" / "artifacts")
    bundle = moved.bundle_folder(f"models:/{MODEL}/1")
    assert bundle.is_relative_to(new) and (bundle / "bundle.json").is_file()
    assert len(told) == 1 and "was moved or copied" in told[0] and f"{old}/mlflow/artifacts" in told[0]
    moved.log_file(run_id, new / "mlflow" / "mlflow.db", "copy")
    assert (new / "mlflow" / "artifacts" / run_id / "artifacts" / "copy" / "mlflow.db").is_file() and not old.exists()

    told.clear()
    shutil.rmtree(new / "mlflow" / "artifacts" / "models")
    shutil.rmtree(new / "mlflow" / "fetched")
    again = Tracker(moved.uri, new / "mlflow" / "artifacts")
    with pytest.raises(LookupError, match=rf"kept in {new}/mlflow/artifacts/models.*--model WORKSPACE/runs/RUN/export"):
        again.bundle_folder(f"models:/{MODEL}/1")
    assert not told and not (new / "mlflow" / "fetched").exists()
    elsewhere = Tracker(moved.uri, tmp_path / "another" / "mlflow" / "artifacts")  # a database of one's own
    (tmp_path / "another" / "mlflow" / "artifacts").mkdir(parents=True)
    elsewhere.log_file(run_id, tmp_path / "gone" / "mlflow" / "mlflow.db", "second")
    assert (new / "mlflow" / "artifacts" / run_id / "artifacts" / "second").is_dir()


@pytest.mark.parametrize(
    ("version", "runs", "words"),
    [
        ((200, "3.17.2"), (200, "{}"), ""),
        ((404, ""), (200, "{}"), ""),
        ((200, "2.22.1"), (200, "{}"), r"of version 2\.22\.1; 3\.0 or later is needed.*unset MLFLOW_TRACKING_URI"),
        ((401, ""), (200, "{}"), "MLFLOW_TRACKING_TOKEN"),
        ((200, "3.17.2"), (403, ""), "MLFLOW_TRACKING_TOKEN"),
        ((502, "<html>"), (200, "{}"), r"fails \(HTTP 502\); see its log"),
        ((200, "<html>"), (200, "<html>"), r"is no MLflow server \(HTTP 200 .*correct MLFLOW_TRACKING_URI"),
        ((404, ""), (404, ""), r"is no MLflow server \(HTTP 404"),
        (None, None, r"does not answer \(\w+\); start it, or unset"),
    ],
)
def test_a_server_is_looked_at_before_a_training(
    version: tuple[int, str] | None, runs: tuple[int, str] | None, words: str
) -> None:
    class Server(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, text = version if self.path == "/version" else runs  # type: ignore[misc]
            self.send_response(status)
            self.end_headers()
            self.wfile.write(text.encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Server) as http:
        uri = f"http://someone:hidden@127.0.0.1:{http.server_port}"
        thread = threading.Thread(target=http.serve_forever, daemon=True)
        if version:
            thread.start()
        else:
            http.server_close()
        try:
            if words:
                with pytest.raises(TrackingServerError, match=words) as error:
                    server_version(uri, retries=0)
                if version == (200, "2.22.1"):
                    with pytest.raises(TrackingServerError, match=words):
                        Tracker(uri).register_model("bundle", "run", Score(13.0, 20.0, "data"))
                assert "hidden" not in str(error.value)
                assert error.value.retryable is (version is None or version[0] == 502)
            else:
                assert server_version(uri + "/", retries=0) == (version[1] if version else "")
        finally:
            if version:
                http.shutdown()


def _sqlite(path: Path, *statements: str) -> str:
    with contextlib.closing(sqlite3.connect(path)) as database, database:
        for statement in statements:
            database.execute(statement)
    return f"sqlite:///{path}"


def test_a_store_without_a_server_is_looked_at_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """MLflow itself would ask a database ten times, a minute and a half in all."""
    monkeypatch.setattr(database, "_WAIT_S", 0.1)
    (tmp_path / "empty.db").touch()
    for good in ("new.db", "new/folder/new.db", "empty.db"):
        assert server_version(f"sqlite:///{tmp_path / good}") == ""
    assert sorted(path.name for path in tmp_path.iterdir()) == ["empty.db"], "looking makes nothing"
    (tmp_path / "damaged.db").write_bytes(b"no database" * 100)
    made = "CREATE TABLE alembic_version (version_num VARCHAR(32))", "INSERT INTO alembic_version VALUES "
    locked = _sqlite(tmp_path / "locked.db", made[0])
    refused = {
        f"sqlite:///{tmp_path / 'damaged.db'}": r"damaged.db cannot be used \(file is not a database\)",
        f"sqlite:///{tmp_path}": "this is a folder; name a file",
        "sqlite:////proc/nothing/x.db": "nothing can be written here",
        "sqlite:///:memory:": "ends with its process",
        _sqlite(tmp_path / "newer.db", made[0], made[1] + "('ffff')"): "of a newer version .* install that version",
        _sqlite(tmp_path / "older.db", made[0], made[1] + "('0a8213491aaa')"): "then run `mlflow db upgrade sqlite:///",
        locked: r"cannot be used \(database is locked\); end programs",
        "mysql+nodriver://me:hidden@127.0.0.1/db": r"cannot be used \(Can't load plugin.*correct its address",
        "postgres://me:hidden@127.0.0.1/db": "knows no postgres://; write .*postgresql://",
        str(tmp_path / "mlruns"): "keeps no runs in folders any more; write http",
    }
    with contextlib.closing(sqlite3.connect(tmp_path / "locked.db")) as other:
        other.execute("BEGIN EXCLUSIVE")
        for uri, words in refused.items():
            with pytest.raises((TrackingServerError, StorageError), match=words) as error:
                Tracker(uri).history("transformer")
            assert "hidden" not in str(error.value)


def test_a_database_that_is_being_made_is_no_older_one(tmp_path: Path) -> None:
    path = tmp_path / "half.db"
    made = (
        "CREATE TABLE alembic_version (version_num VARCHAR(32))",
        "INSERT INTO alembic_version VALUES ('0a8213491aaa')",
    )
    uri = _sqlite(path, *made)
    with ThreadPoolExecutor(1) as pool:
        with opening(uri):  # as the process that makes it
            looked = pool.submit(server_version, uri)
            time.sleep(0.5)
            _sqlite(path, "DELETE FROM alembic_version")
        assert looked.result() == ""


def test_a_server_that_is_gone_is_told_at_the_first_question(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracked_runs, "server_version", partial(server_version, retries=0))
    for query in (lambda t: t.resolve("models:/maskhand@champion"), lambda t: t.history("transformer")):
        with pytest.raises(TrackingServerError, match="does not answer"):
            query(Tracker("http://127.0.0.1:9"))


def test_only_an_absent_model_counts_as_absent(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    with pytest.raises(LookupError, match="none is registered"):
        tracker.resolve("models:/maskhand@champion")

    class Broken:
        def __getattr__(self, name: str) -> Any:
            raise mlflow.MlflowException("the database is locked")

    tracker.__dict__["_client"] = Broken()
    for query in (lambda: tracker.resolve("models:/maskhand/1"), lambda: tracker._alias(MODEL, "champion")):
        with pytest.raises(mlflow.MlflowException, match="locked"):
            query()


def _start_run(uri: str, artifacts: Path, place: int) -> str:
    return Tracker(uri, artifacts).start_run("tokenizer", small_recipe(), {"identity": str(place)})


def test_a_database_beside_which_no_lock_can_be_made_is_opened_all_the_same(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db.lock").mkdir()
    with opening(f"sqlite:///{tmp_path / 'mlflow.db'}"), opening("http://127.0.0.1:9"):
        pass


def test_processes_may_open_a_new_database_at_the_same_time(tmp_path: Path) -> None:
    uri = f"sqlite:///{tmp_path / 'new' / 'mlflow.db'}"
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        ids = [one.result() for one in [pool.submit(_start_run, uri, tmp_path / "artifacts", k) for k in range(2)]]
    assert len(set(ids)) == 2 and len(mlflow.MlflowClient(uri, uri).search_experiments()) == 2  # and MLflow's default


def test_contenders_history_and_a_recorded_decision(tmp_path: Path) -> None:
    tracker = Tracker(f"sqlite:///{tmp_path / 'mlflow.db'}", tmp_path / "artifacts")
    client = mlflow.MlflowClient(tracker.uri, tracker.uri)
    client.create_registered_model(MODEL)
    for _ in range(4):
        client.create_model_version(MODEL, source=tmp_path.as_uri())
    assert tracker.contenders(2) == (None, [ModelVersion(MODEL, 4), ModelVersion(MODEL, 3)])
    won = tracker.record_decision(ModelVersion(MODEL, 2), True, "it won")
    tracker.record_decision(ModelVersion(MODEL, 3), False, "it lost")
    assert won.aliases == ("champion",)
    assert tracker.contenders(9) == (ModelVersion(MODEL, 2), [ModelVersion(MODEL, 4), ModelVersion(MODEL, 3)])
    assert client.get_model_version(MODEL, "3").tags["promotion"] == "it lost"
    for value in (1.0, 2.0):
        run_id = tracker.start_run("re-evaluation", small_recipe(), {"model": "m"})
        tracker.log_metrics(run_id, {"eval/x/pa_mpjpe_mm": value})
        tracker.end_run(run_id)
    open_run = tracker.start_run("re-evaluation", small_recipe(), {})
    newest, before = tracker.history("re-evaluation")
    assert open_run not in (newest.run_id, before.run_id)
    assert (newest.metrics["eval/x/pa_mpjpe_mm"], before.metrics["eval/x/pa_mpjpe_mm"]) == (2.0, 1.0)
    assert newest.tags["model"] == "m" and newest.started_ms >= before.started_ms


def test_pages_of_a_server_are_its_own() -> None:
    assert pages("http://tracker:5000", "mlflow", "127.0.0.1") == [("MLflow pages", "http://tracker:5000")]
    (_, command), (_, where) = pages("sqlite:////ws/mlflow.db", "mlflow", "127.0.0.1")
    assert command == "mlflow server --host 127.0.0.1 --backend-store-uri sqlite:////ws/mlflow.db" and ":5000" in where
