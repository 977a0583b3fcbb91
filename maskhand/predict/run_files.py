"""The folder of a run: its file names, its options, whether it is finished; does not import torch."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from maskhand import storage
from maskhand.json_text import JsonError, parse_json_object
from maskhand.predict.inputs import Sources
from maskhand.predict.journal import Journal
from maskhand.predict.records import PredictError
from maskhand.predict.rows import Row

RUN, JOURNAL, LINES, TABLE = "run.json", "unfinished.jsonl", "hands.jsonl", "hands.parquet"
PAGE = "view.html"
"""The page that `maskhand view` makes of the folder."""


@dataclass(frozen=True)
class RunResult:
    """A finished run."""

    folder: Path
    counts: dict[str, int]
    """Number of `pictures`; of those with a `hand`, with `no hand`, and `unreadable` ones; number of `hands`."""
    files: tuple[Path, ...]
    """The files written for pictures, in the order of the pictures."""

    def rows(self) -> Iterator[Row]:
        """The rows of `hands.jsonl`."""
        with open(self.folder / LINES, "rb") as file:
            yield from map(json.loads, file)


def running(sources: Sources, options: Row) -> Row:
    """`run.json` at the start of a run: the options (`PredictRequest.facts`) and the input files."""
    return {"state": "running", "asked": options, "inputs": [asdict(source) for source in sources.files]}


def finished_run(out: Path, facts: Row) -> RunResult | None:
    """The run in the folder, if it has processed all requested files; None if there is something left to process.

    facts: `running` of the new request. Raises PredictError if the results there were made with other options.
    """
    earlier = run_facts(out)
    if earlier is None:
        return None
    new = added(out, earlier, facts)
    if new is None and (differs := difference(earlier, facts)) and not _is_addition(earlier, facts):
        raise other_options_error(out, differs)
    return result_of(out, earlier) if new == [] else None


def added(out: Path, earlier: Row, now: Row) -> list[Row] | None:
    """The requested files that the finished run in the folder, with the same options, has not processed yet.

    None if the run there is not finished, has other options, or some of its files have changed since.
    """
    whole = earlier["state"] == "finished" and (out / LINES).is_file() and (out / TABLE).is_file()
    return new_files(earlier, now) if whole and earlier["asked"] == now["asked"] else None


def new_files(earlier: Row, now: Row) -> list[Row] | None:
    """The files of `now` that are not in `earlier`; None if a common file has changed, or two files share a name."""
    seen = {source["path"]: source for source in earlier["inputs"]}
    new = [source for source in now["inputs"] if source["path"] not in seen]
    names = {source["name"] for source in earlier["inputs"]}
    changed = any(seen.get(source["path"], source) != source for source in now["inputs"])
    return None if changed or any(source["name"] in names for source in new) else new


def _is_addition(earlier: Row, now: Row) -> bool:
    """Does `now` equal the addition to a finished run that was interrupted?"""
    kept = earlier.get("kept", 0) if earlier["state"] == "running" else 0
    return kept > 0 and earlier["asked"] == now["asked"] and earlier["inputs"][kept:] == now["inputs"]


def result_of(out: Path, facts: Row) -> RunResult:
    """The `RunResult` of a finished run's facts."""
    return RunResult(out, facts["counts"], tuple(out / name for name in facts["files"]))


def run_facts(out: str | Path) -> Row | None:
    """The content of `run.json` in a folder or `s3://` prefix; None if there is none. Raises PredictError."""
    uri = storage.join(out, RUN)
    if not storage.exists(uri):
        return None
    try:
        facts = parse_json_object(storage.read_bytes(uri))
    except JsonError as error:
        raise PredictError(f"{uri}: {error}; remove the file, or choose another --out") from None
    if not {"state", "asked", "inputs"} <= facts.keys():
        raise PredictError(f"{uri}: not the facts of a prediction; choose another --out")
    return facts


def difference(earlier: Row, now: Row) -> str:
    """A description of how the options and files of two runs differ; empty if they do not."""
    differs = [
        f"{name} was {_shown(earlier['asked'].get(name))} and is {_shown(now['asked'].get(name))}"
        for name in now["asked"] | earlier["asked"]
        if earlier["asked"].get(name) != now["asked"].get(name)
    ]
    old, new = ({source["path"]: source for source in facts["inputs"]} for facts in (earlier, now))
    changes = {
        "new": [path for path in new if path not in old],
        "gone": [path for path in old if path not in new],
        "changed": [path for path in new if path in old and new[path] != old[path]],
    }
    for word, paths in changes.items():
        if paths:
            more = f" and {len(paths) - 3} more" if len(paths) > 3 else ""
            differs.append(f"{word}: {', '.join(paths[:3])}{more}")
    if not differs and list(old) != list(new):
        differs.append("the files are in another order")
    return "; ".join(differs)


def _shown(value: Any) -> str:
    if value is None:
        return "not given"
    return ", ".join(f"{k} {v}" for k, v in value.items()) if isinstance(value, Mapping) else repr(value)


def other_options_error(out: str | Path, differs: str) -> PredictError:
    """The error for a folder with results of other options or files. differs: the `difference`."""
    return PredictError(
        f"{out}: the results there were made with other options or files: {differs}; choose another --out, or "
        "--again replaces them"
    )


def remove_run(out: Path) -> None:
    """Remove what an earlier run wrote, and the page of it; nothing else."""
    earlier = run_facts(out)
    if earlier is None:
        return
    files = list(earlier.get("files", ()))
    if (out / JOURNAL).is_file():
        with Journal(out / JOURNAL) as journal:
            files += journal.files
    for name in [RUN, JOURNAL, LINES, TABLE, PAGE, *files]:
        (out / name).unlink(missing_ok=True)
