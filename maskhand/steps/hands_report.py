"""Sentences about the hands of a run."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice

from maskhand.predict.rows import Row
from maskhand.predict.run_files import LINES, RunResult

SHOWN_REASONS = 10
"""Pictures that could not be read, of which the command says why."""


def report(result: RunResult) -> list[str]:
    """Sentences about a run: each hand of a single picture, or how many there are; and where the files are."""
    counts = result.counts
    lines = [str(path) for path in result.files] if counts["pictures"] == 1 else []
    lines.append(str(result.folder / LINES))
    if counts["pictures"] == 1:
        return [*lines, *findings(list(result.rows()))]
    lines.append(
        f"{counts['pictures']} pictures: {counts['hands']} hands in {counts['hand']} of them, no hand in "
        f"{counts['no hand']}, {counts['unreadable']} could not be read"
    )
    unreadable = (row for row in result.rows() if row["status"] == "unreadable")
    lines += [f"{row['picture']}: {row['reason']}" for row in islice(unreadable, SHOWN_REASONS)]
    if counts["unreadable"] > SHOWN_REASONS:
        lines.append(f"and {counts['unreadable'] - SHOWN_REASONS} more, each with its reason in {LINES}")
    return lines


def findings(rows: Sequence[Row]) -> list[str]:
    """Sentences about the rows of one picture."""
    if rows[0]["status"] != "hand":
        box = "; give its box: --box X0,Y0,X1,Y1 --again" if rows[0]["status"] == "no hand" else ""
        return [f"{rows[0]['picture']}: {rows[0]['reason']}{box}"]
    lines = []
    for k, hand in enumerate(rows):
        found = "" if hand["detection_score"] is None else f", found with {hand['detection_score']:.2f}"
        seen = sum(hand["keypoints_confidence"]) / len(hand["keypoints_confidence"])
        lines.append(f"hand {k}: {hand['side'] or 'side unknown'}{found}, keypoints seen with {seen:.2f}")
        if hand["guess"]:
            lines.append(f"hand {k}: a guess, its keypoints were hardly seen")
        elif hand["joint_error_mm"] is not None:
            errors, within = hand["joint_error_mm"], hand["p_within_10mm"]
            lines.append(
                f"hand {k}: a joint is expected to be {sum(errors) / len(errors):.0f} mm off, "
                f"{100 * sum(within) / len(within):.0f} % of them within 10 mm"
            )
        if "hypotheses" in hand:
            spread = sum(hand["joint_spread_mm"][1:]) / (len(hand["joint_spread_mm"]) - 1)
            lines.append(f"hand {k}: {len(hand['hypotheses'])} different hypotheses, joints spread by {spread:.1f} mm")
            shares = ", ".join(f"{100 * mode['share']:.0f} %" for mode in hand["modes"][:6])
            lines.append(f"hand {k}: {len(hand['modes'])} distinct mode{'s' * (len(hand['modes']) > 1)}: {shares}")
    source = rows[0]["camera"]["source"]
    if source == "assumed":
        lines.append("the focal length is assumed: sizes and places in the image hold, depth does not (--focal PX)")
    elif source == "exif":
        lines.append(f"the focal length is EXIF's, {rows[0]['camera']['K_px'][0][0]:.0f} px")
    return lines
