"""Places and names from outside: what would lead elsewhere is refused, what is relative made absolute, and no password
is shown."""

from __future__ import annotations

import io
import os
import traceback
from pathlib import Path

import pytest

from maskhand.catalog import CatalogError, load_spec
from maskhand.cli import main, sentence
from maskhand.errors import MaskhandError, without_passwords
from maskhand.path_names import PathNameError, path_name
from maskhand.progress import print_facts, print_table
from maskhand.storage import StorageError
from maskhand.tracking import TrackingServerError
from maskhand.workspace import PlaceError, Workspace, absolute_tracking_uri


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "-w", "a/b", "a\\b", "a\0b", "a\nb", "a%2e", "a?b", "x" * 121]
)
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PathNameError, match="becomes part of a path"):
        path_name(name)
    with pytest.raises(CatalogError, match="unknown dataset"):
        load_spec(name)
    if name != "a/b":
        with pytest.raises(PathNameError, match="becomes part of a path"):
            Workspace.at(tmp_path).shard_set(f"freihand/{name}/x")


def test_ordinary_names_pass(tmp_path: Path) -> None:
    for name in ("tiny", "e14_2048x128", "masked80.5-seed1", "größe", "lr=3e-4, second"):
        assert path_name(name) == name
    assert (
        Workspace.at(tmp_path).shard_set("freihand/training-masked80")
        == f"{tmp_path}/shards/freihand/training-masked80"
    )


@pytest.mark.parametrize("place", ["s3://bucket/prefix", "s3:/bucket", "gs://bucket", "https://host/x", "file:///data"])
def test_a_workspace_is_a_folder(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MASKHAND_WORKSPACE", place)
    with pytest.raises(PlaceError, match=r"expected a folder .*MASKHAND_SHARDS=s3://bucket/prefix"):
        Workspace.at()
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "after"),
    [
        (["quickstart", "-w", ""], " after -w"),
        (["doctor", "--workspace="], " after --workspace"),
        (["export", ""], " after export"),
        (["inspect", "  "], " after inspect"),
        (["train-vq-mano", "--label", "", "-w", ""], " after -w"),
    ],
)
def test_an_unset_variable_of_the_shell_is_not_the_current_folder(
    words: list[str], after: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit, match="1"):
        main(words)
    assert capsys.readouterr().err == (
        f"error: an argument{after} is empty, expected a text; is a variable of the shell unset?\n"
    )
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["data?v=2", "My%20Project", "two\nlines"])
def test_a_workspace_that_databases_cannot_be_opened_under_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(PlaceError, match="choose a folder without"):
        Workspace.at(tmp_path / name)
    for good in ("with space", "it's", "é#1"):
        assert Workspace.at(tmp_path / good).root == tmp_path / good


@pytest.mark.parametrize(
    ("given", "absolute"),
    [
        ("sqlite:///tracking.db", "sqlite:///{here}/tracking.db"),
        ("sqlite:///a/b.db?timeout=9", "sqlite:///{here}/a/b.db?timeout=9"),
        ("sqlite:////abs/tracking.db", "sqlite:////abs/tracking.db"),
        ("sqlite:///:memory:", "sqlite:///:memory:"),
        ("./mlruns", "{here}/mlruns"),
        ("file:mlruns", "{here}/mlruns"),
        ("file:///abs", "file:///abs"),
        ("http://host:5000/ ", "http://host:5000"),
        ("HTTPS://host/mlflow", "https://host/mlflow"),
        ("postgresql://u:p@host/db", "postgresql://u:p@host/db"),
        ("databricks", "databricks"),
    ],
)
def test_a_tracking_address_holds_in_every_process(
    given: str, absolute: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", given)
    assert Workspace.at(tmp_path).mlflow_uri == absolute.format(here=tmp_path)
    for server in ("localhost:5000", "localhost", "mlflow.local:80/x"):
        with pytest.raises(PlaceError, match=f"write http://{server} for a server"):
            absolute_tracking_uri(server)
    for nothing in ("http://", "sqlite:runs.db", "sqlite://runs.db", "sqlite:/runs.db"):
        with pytest.raises(PlaceError, match="expected http://HOST:PORT or sqlite:///FILE"):
            absolute_tracking_uri(nothing)


SECRETS = (
    "postgresql+psycopg2://maskhand:hidden@db:5432/mlflow", "https://user:hid%40den@host/a?b=1", "redis://:hidden@h",
    "postgresql://h/db?user=u&password=hidden", "https://u:hid@den@host", "https://h/?Token=hidden&x=1",
    "https://user:hid/den@host",
)  # fmt: skip


@pytest.mark.parametrize("address", SECRETS)
def test_passwords_are_not_shown(address: str) -> None:
    class Both(MaskhandError, OSError):
        pass

    text = f"{address} does not answer; see http://host:4200/api and me@example.org"
    stream = io.StringIO()
    print_table("doctor", ("what", "found"), [("MLflow", address)], stream)
    print_facts("where", [("MLflow", address)], stream)
    shown = [str(Both(text)), str(StorageError(text)), sentence(LookupError(text)), sentence(RuntimeError(text))]
    for words in (*shown, stream.getvalue(), without_passwords(text)):
        assert "hid" not in words and "den@" not in words and "***" in words
    assert without_passwords(text).endswith("see http://host:4200/api and me@example.org")


def test_no_representation_of_an_error_has_a_password() -> None:
    for kind in (PlaceError, StorageError, TrackingServerError):
        error = kind("https://me:hidden@host/x is not there")
        for shown in (str(error), repr(error), "".join(traceback.format_exception(error))):
            assert "hidden" not in shown and "https://me:***@host/x" in shown


def test_a_server_s_credentials_leave_its_address(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("USERNAME", "PASSWORD"):
        monkeypatch.delenv(f"MLFLOW_TRACKING_{name}", raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:p%40ss@host:5000/mlflow/")
    home = Workspace.at(tmp_path)
    for _ in range(2):
        assert home.mlflow_uri == "https://host:5000/mlflow"
        assert os.environ["MLFLOW_TRACKING_URI"] == "https://host:5000/mlflow/"
        assert os.environ["MLFLOW_TRACKING_USERNAME"] == "me" and os.environ["MLFLOW_TRACKING_PASSWORD"] == "p@ss"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://me:p/ss@host:5000/a")
    assert home.mlflow_uri == "https://host:5000/a" and os.environ["MLFLOW_TRACKING_PASSWORD"] == "p/ss"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000/a@b")
    assert home.mlflow_uri == without_passwords(home.mlflow_uri) == "http://host:5000/a@b"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://me:hidden@host/db")
    assert home.mlflow_uri == "postgresql://me:hidden@host/db"  # databases have no such variables


@pytest.mark.parametrize(
    "arguments",
    [
        ["export", "s3://bucket/x"],
        ["generate", "the letter A", "--out", "s3://bucket/x"],
        ["score", "freihand", "--gt", "gt", "--pred", "p", "--json", "s3:/bucket/x.json"],
    ],
)
def test_an_address_is_no_folder_called_s3(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as end:
        main(arguments)
    assert end.value.code == 1 and not list(tmp_path.iterdir())
    assert "expected a folder of this machine" in (said := capsys.readouterr().err) or "mind the two slashes" in said


def test_home_is_found_behind_an_equals_sign(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Where shells leave it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit):
        main(["score", "freihand", "--gt=~/gt", "--pred", "~/pred.json", "--json=~/folder/scores.json"])
    assert f"{tmp_path}/gt/evaluation_xyz.json" in capsys.readouterr().err


@pytest.mark.parametrize("out", ["hands.jsonl", "link"])
def test_a_page_is_not_written_over_its_result(out: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "hands.jsonl").write_text("{}\n")
    (tmp_path / "link").symlink_to("hands.jsonl")
    for what in (tmp_path, tmp_path / "hands.jsonl"):
        with pytest.raises(SystemExit, match="1"):
            main(["view", str(what), "--out", str(tmp_path / out)])
        assert "this file is read, so nothing is written over it" in capsys.readouterr().err
    assert (tmp_path / "hands.jsonl").read_text() == "{}\n"
