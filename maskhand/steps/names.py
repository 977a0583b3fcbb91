"""Names that steps share: files of exported models, the metrics that count, the flow run that asked for a step."""

from __future__ import annotations

import os

TOKENIZER_FILE = "tokenizer.json"
BUNDLE_FILE = "bundle.json"
"""Written last into the folder of an exported tokenizer, and of an exported model."""
PRODUCT = "product"
"""Key of the metrics of the estimator that a model uses, whichever that is: comparable over models and time."""
FLOW_RUN = "MASKHAND_FLOW_RUN"
"""Environment variable with the id of the flow run that asked for this step."""


def flow_tags() -> dict[str, str]:
    """The flow run that a tracked run belongs to; `pipelines` names it in the environment."""
    return {"prefect_run_id": os.environ[FLOW_RUN]} if FLOW_RUN in os.environ else {}
