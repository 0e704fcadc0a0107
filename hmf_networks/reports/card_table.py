"""Tables of the model card from results files, one function a view; `results.VIEWS` names them."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hmf_networks.reports.results import weights_hash
from hmf_networks.reports.table import DIGITS, aligned, figure, number

NETWORK, REGRESSION, COPIES = "HMF-MambaINR", "voxelwise linear", "copy of "  # as benchmarks name them
AS_IT_IS = "as it is"
LEVELS = (50, 80, 95)  # of coverage, percent

Content = Mapping[str, Any]
Lines = list[list[str]]


def card_table(content: Content, view: str) -> str:
    """Markdown: a line that says what is below, and the table.

    Raises:
        ValueError: the file does not hold what the table is made of.
    """
    try:
        heading, lines = TABLES[view](content)
    except (KeyError, TypeError, AttributeError, IndexError) as error:
        raise ValueError(f"no table {view!r} can be made of these results ({error!r})") from error
    if len(lines) < 2:
        raise ValueError(f"the results hold nothing for the table {view!r}")
    return f"{heading}\n\n{aligned(lines, num_words=_num_words(lines))}"


def score_cell(score: Any, digits: int) -> str:
    """A mean with its interval, or a bare number."""
    if not isinstance(score, Mapping):
        return figure(score, digits)
    mean, low, high = (figure(score.get(key), digits) for key in ("mean", "low", "high"))
    return mean if low == "-" else f"{mean} ({low} to {high})"


def score_entries(content: Content, protocol: str) -> Iterator[tuple[str, Content, Content | None]]:
    """Who, and what a method scored in the brain and in the whole volume; single copies left out."""
    here = [entry for entry in content["summary"] if entry["protocol"] == protocol]
    for entry in here:
        if entry["region"] == "brain" and not entry["method"].startswith(COPIES):
            key = _place(entry) | {"region": "whole"}
            whole = next((other for other in here if _place(other) == key), None)
            variant = entry.get("variant", AS_IT_IS)
            who = str(entry.get("group", "")) + ("" if variant == AS_IT_IS else f", {variant}")
            yield who, entry, whole


def _place(entry: Content) -> dict[str, Any]:
    return {key: entry.get(key) for key in ("group", "task", "variant", "method", "region")}


def _scores(protocol: str) -> Callable[[Content], tuple[str, Lines]]:
    def table(content: Content) -> tuple[str, Lines]:
        lines = [["task", "who", "method", "n", "brain PSNR dB", "above linear dB", "brain SSIM"]]
        lines[0] += ["whole PSNR dB", "whole SSIM"]
        entries = list(score_entries(content, protocol))
        linear = {(w, e["task"]): e["psnr"]["mean"] for w, e, _ in entries if e["method"] == REGRESSION}
        for who, brain, whole in entries:
            above = number(brain["psnr"]["mean"]) - number(linear.get((who, brain["task"])))
            gain = f"{above:+.2f}" if brain["method"] == NETWORK and above == above else ""
            regions = [brain, whole or {"psnr": None, "ssim": None}]
            cells = [
                score_cell(r[metric], DIGITS[metric] - (metric == "ssim"))
                for r in regions
                for metric in ("psnr", "ssim")
            ]
            start = [brain["task"], who, brain["method"], str(brain["num_subjects"])]
            lines.append([*start, cells[0], gain, *cells[1:]])
        return f"Protocol {protocol}, mean over n patients (95 % interval){_of_weights(content)}", lines

    return table


def _lesions(content: Content) -> tuple[str, Lines]:
    lines = [["task", "who", "method", "n", "lesions PSNR dB", "rest of the brain dB", "difference dB"]]
    for entry in content["lesions"]:
        if entry["method"].startswith(COPIES):
            continue
        cells = [score_cell(entry[key], 2) for key in ("lesion", "rest", "difference")]
        lines.append([entry["task"], entry["group"], entry["method"], str(entry["num_subjects"]), *cells])
    return f"PSNR of lesions and of the rest of the brain, protocol volume{_of_weights(content)}", lines


def _decoding(content: Content) -> tuple[str, Lines]:
    lines = [["task", "pixels mm", "n", "coordinates PSNR dB", "resampled PSNR dB", "difference dB"]]
    lines[0] += ["gradients: coordinates", "resampled", "the truth, resampled"]
    for entry in content["decoding_summary"]:
        psnr, ratio = entry["psnr"], entry["gradient_ratio"]
        cells = [score_cell(psnr[key], 2) for key in ("coordinates", "resample")]
        cells.append(score_cell(entry["difference"], 3))
        cells += [score_cell(ratio[key], 2) for key in ("coordinates", "resample", "truth")]
        lines.append([entry["task"], f"{entry['spacing_mm']:g}", str(entry["num_subjects"]), *cells])
    about = "Decoded at the source's own pixels, or resampled; gradient energy beside the truth's, 1 is the truth"
    return f"{about}{_of_weights(content)}", lines


def _uncertainty(content: Content) -> tuple[str, Lines]:
    lines = [["task", "who", "Spearman", "AUSE", *(f"covered by {level} %" for level in LEVELS)]]
    for entry in _with_tasks(content):
        cells = [score_cell(_found(entry, word), 3) for word in ("spearman", "ause")]
        cells += [score_cell(_covered(entry, level), 3) for level in LEVELS]
        who = [
            str(entry[key]) for key in ("group", "kind", "data", "variant", "region") if isinstance(entry.get(key), str)
        ]
        lines.append([str(entry["task"]), ", ".join(who), *cells])
    about = "Does the map of uncertainty rank errors, and do its intervals hold the truth as often as they say"
    return f"{about}{_of_weights(content)}", lines


def _speed(content: Content) -> tuple[str, Lines]:
    lines = [["", "seconds", "peak memory MB"]]
    for name, row in content["rows"].items():
        lines.append([name, figure(row.get("seconds", row.get("total")), 1), figure(row["peak MB"], 0)])
    machine = content["machine"]
    return f"{content['title']}; {machine['cpu']}, {machine['threads']} threads{_of_weights(content)}", lines


TABLES: dict[str, Callable[[Content], tuple[str, Lines]]] = {
    "volume": _scores("volume"),
    "affine": _scores("affine"),
    "lesions": _lesions,
    "decoding": _decoding,
    "uncertainty": _uncertainty,
    "speed": _speed,
}


def _with_tasks(content: Content) -> list[dict[str, Any]]:
    """The entries that name a task, under whichever key; means before single rows."""
    for key in ("summary", "tasks", *content):
        part = content.get(key)
        if isinstance(part, Mapping) and all(isinstance(value, Mapping) for value in part.values()):
            part = [{"task": task, **entry} for task, entry in part.items()]
        if isinstance(part, list) and part and all(isinstance(e, Mapping) and "task" in e for e in part):
            scored = [dict(entry) for entry in part if _found(entry, "spearman") is not None]
            if scored:
                return scored
    return []


def _covered(entry: Content, level: int) -> Any:
    for path, value in _leaves(entry):
        levels = [float(digits) for digits in re.findall(r"\d+(?:\.\d+)?", path)]
        if "cover" in path and {level, level / 100} & set(levels):
            return value
    return None


def _found(entry: Content, word: str) -> Any:
    return next((value for path, value in _leaves(entry) if word in path), None)


def _leaves(entry: Content, above: str = "") -> Iterator[tuple[str, Any]]:
    """Numbers and means with intervals, by the words of their keys."""
    for key, value in entry.items():
        path = f"{above} {key}".lower().strip()
        if isinstance(value, Mapping) and "mean" not in value:
            yield from _leaves(value, path)
        elif isinstance(value, Mapping | int | float) and not isinstance(value, bool):
            yield path, value


def _of_weights(content: Content) -> str:
    known = weights_hash(content)
    return f"; weights {known[:8]}" if known else ""


def _num_words(lines: Sequence[Sequence[str]]) -> int:
    """Columns of words before the first column of figures."""
    heads = lines[0]
    return next((index for index, head in enumerate(heads) if head in ("n", "seconds", "pixels mm", "Spearman")), 1)
