"""Flow `re-evaluate`: champion and new challengers on all benchmarks here; flags drift, and the gate decides."""

from __future__ import annotations

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact
from prefect.cache_policies import NO_CACHE

from maskhand.pipelines.runtime import workspace_for
from maskhand.pipelines.step import is_worth_a_retry, progress_artifact, slug, table
from maskhand.steps import reevaluate
from maskhand.steps.receipt import Receipt
from maskhand.steps.reevaluate import VersionResult


@task(
    name="measure-again",
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=2,
    retry_delay_seconds=10,
    retry_condition_fn=is_worth_a_retry,
)
def measure_again(workspace: str, model: str, benchmark: str, set_name: str) -> Receipt:
    """Never cached: the flow checks whether the numbers are still the same."""
    with progress_artifact(f"{model} on {benchmark}", slug("progress-re-evaluate", benchmark)) as progress:
        return reevaluate.evaluate_version(workspace_for(workspace), model, benchmark, set_name, progress)


@flow(name="re-evaluate")
def re_evaluate(newest: int = 3, workspace: str | None = None) -> dict[str, str]:
    """Evaluate the champion and newer versions again and let the gate decide; returns its decisions by model.

    newest: number of versions registered after the champion; workspace: default `$MASKHAND_WORKSPACE`.
    """
    home = workspace_for(workspace)
    champion, challengers = reevaluate.contenders(home, newest)
    models = [*filter(None, [champion]), *challengers]
    found, flags, failures = dict[str, list[VersionResult]](), list[str](), list[str]()
    for model in models:
        found[model] = []
        for benchmark, set_name in reevaluate.benchmarks(home).items():
            state = measure_again(str(home.root), model, benchmark, set_name, return_state=True)
            if state.is_completed():
                found[model].append(VersionResult.of(state.result()))
            else:  # a pair that fails must not prevent the others
                failures.append(f"{model} on {benchmark}: {state.message}")
        if found[model]:
            flags += [f"{model}: {sentence}" for sentence in reevaluate.log(home, model, found[model])]
    if not any(found.values()):
        reason = "; ".join(failures) or "there is no registered model, or no benchmark's shards are here"
        raise ValueError(f"nothing to evaluate: {reason}")
    homes = {model: reevaluate.home_set(home, model) for model in models}
    decisions = dict(reevaluate.decide(home, champion, found, homes))
    table("re-evaluation", reevaluate.table(home), "champion and challengers by benchmark, the newest first")
    create_markdown_artifact(
        _summary(champion, decisions, flags, failures),
        key="promotion-gate",
        description=f"{len(decisions)} challengers, {len(flags)} drifts, {len(failures)} that could not be measured",
    )
    return decisions


def _summary(champion: str | None, decisions: dict[str, str], flags: list[str], failures: list[str]) -> str:
    lines = [f"The champion was {champion or 'nobody'}.", "", "## Decisions"]
    lines += [f"* **{model}**: {reason}" for model, reason in decisions.items()] or ["* no challenger"]
    lines += ["", "## Drift since the last evaluation", *(f"* {flag}" for flag in flags or ["none"])]
    lines += ["", "## Not measured", *(f"* {failure}" for failure in failures or ["none"])]
    return "\n".join(lines)
