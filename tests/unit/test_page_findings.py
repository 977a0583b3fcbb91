"""What the page of an evaluation says about ranges of hands."""

from __future__ import annotations

import numpy as np
import pandas as pd

from maskhand.evaluation.page.findings import thirds


def test_thirds_hold_equally_many_hands_and_name_their_ends() -> None:
    names = thirds(pd.Series(np.arange(90.0)), "{:.0f} to {:.0f}")
    assert names.value_counts().tolist() == [30, 30, 30]
    assert next(iter(names.cat.categories)).startswith("0 to") and list(names.cat.categories)[-1].endswith("to 89")


def test_thirds_that_read_the_same_are_left_out() -> None:
    assert thirds(pd.Series([0.0041, 0.0042, 0.0043]), "{:.2f} to {:.2f}").isna().all()
    assert thirds(pd.Series([1.0, 1.0, 2.0]), "{:.2f} to {:.2f}").isna().all()
