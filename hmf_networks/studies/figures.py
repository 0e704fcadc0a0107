"""Figures of a study: PSNR per subject as boxes, and images side by side with their errors and a detail enlarged."""

import importlib.util
import io
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from hmf_networks.atomic import write_whole
from hmf_networks.reports.table import Row, subject_means
from hmf_networks.studies.runs import Place, scores_folder
from hmf_networks.studies.study import Run, Study, file_name
from hmf_networks.studies.tables import table_name
from numpy.typing import NDArray

LARGEST_ERROR = 0.5  # of the range of values: the end of the colour scale
DETAIL = 1 / 4  # side of the enlarged square, of the plane's shorter side
PANEL_INCHES = 1.6

Planes = Mapping[str, NDArray[np.float32]]
Curves = Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]


def check_can_draw() -> None:
    """Raise ImportError, with the cure, before hours of training and not after."""
    if importlib.util.find_spec("matplotlib") is None:
        raise ImportError("figures need matplotlib: pip install 'hmf-networks[compare]'")


def draw_figures(study: Study, place: Place, rows: Sequence[Row]) -> list[Path]:
    """box_<task>.png, drop_<task>.png where there are levels, and panel_<task>_<subject>.png."""
    drawn = []
    for task in dict.fromkeys(str(row["task"]) for row in rows):
        some = [row for row in rows if row["task"] == task]
        drawn.append(place.output_dir / f"box_{file_name(task)}.png")
        draw_boxes(some, drawn[-1], task)
    for task in study.tasks:
        if curves := drops(study, task, rows):
            drawn.append(place.output_dir / f"drop_{file_name(task)}.png")
            draw_drops(curves, drawn[-1], task)
        for subject, planes in _planes(study, place, task).items():
            drawn.append(place.output_dir / f"panel_{file_name(task)}_{subject}.png")
            draw_panel(planes, drawn[-1])
    return drawn


def draw_boxes(rows: Sequence[Row], path: Path, task: str) -> None:
    """One box a method over the subjects' means, the best median first."""
    chosen = [row for row in rows if (row["protocol"], row["region"]) == ("volume", "brain")]
    methods = dict.fromkeys(str(row["method"]) for row in chosen)
    of_method = {name: [row for row in chosen if row["method"] == name] for name in methods}
    means = {name: subject_means(some, "psnr").values() for name, some in of_method.items()}
    values = {name: [value for value in some if math.isfinite(value)] for name, some in means.items()}
    ordered = sorted((name for name in values if values[name]), key=lambda name: -float(np.median(values[name])))
    figure, axes = _figure(7, 0.32 * len(ordered) + 1)
    axes.boxplot([values[name] for name in reversed(ordered)], orientation="horizontal", widths=0.6)
    axes.set_yticks(range(1, len(ordered) + 1), list(reversed(ordered)))
    axes.set_xlabel("PSNR dB in the brain, protocol volume, one value a subject")
    axes.set_title(task)
    _save(figure, path)


def drops(study: Study, task: str, rows: Sequence[Row]) -> Curves:
    """Kind of corruption -> method -> (level, mean PSNR in the brain), level 0 clean; of kinds with several levels."""
    levels: dict[str, dict[int, str]] = {}
    for condition, changes in study.conditions.items():
        kind, level = changes.get("corruption#kind"), changes.get("corruption#level")
        if isinstance(level, int) and changes.get("corruption#sources", "all") == "all":
            levels.setdefault(str(kind), {0: table_name(task, "")})[level] = table_name(task, condition)
    chosen = [row for row in rows if (row["protocol"], row["region"]) == ("volume", "brain")]
    curves: dict[str, dict[str, list[tuple[int, float]]]] = {}
    for kind, tables in levels.items():
        for method in study.methods:
            for level, table in sorted(tables.items()):
                some = [row for row in chosen if (row["task"], row["method"]) == (table, method)]
                if some and len(tables) > 2:
                    mean = float(np.mean(list(subject_means(some, "psnr").values())))
                    curves.setdefault(kind, {}).setdefault(method, []).append((level, mean))
    return curves


def draw_drops(curves: Curves, path: Path, task: str) -> None:
    """A field a corruption, a line a method."""
    figure, grid = _figure(2.4 * len(curves) + 1, 3, 1, len(curves))
    for axes, (kind, lines) in zip(np.atleast_1d(grid), curves.items(), strict=True):
        for method, points in lines.items():
            axes.plot(*zip(*points, strict=True), marker=".", label=method)
        axes.set_title(kind)
        axes.set_xlabel("level")
    np.atleast_1d(grid)[0].set_ylabel(f"PSNR dB in the brain, {task}")
    np.atleast_1d(grid)[-1].legend(fontsize=6)
    _save(figure, path)


def draw_panel(methods: Mapping[str, Planes], path: Path) -> None:
    """Rows: image, error, detail; columns: the sources, the truth, one for each method."""
    first = next(iter(methods.values()))
    truth = first["label"][0]
    sources = {f"source {n + 1}": plane for n, plane in enumerate(first["image"])}
    images = {**sources, "truth": truth, **{name: planes["pred"][0] for name, planes in methods.items()}}
    rows, columns = _detail(truth)
    figure, grid = _figure(PANEL_INCHES * len(images), PANEL_INCHES * 3.3, 3, len(images))
    for (name, image), (top, middle, bottom) in zip(images.items(), grid.T, strict=True):
        top.imshow(image, cmap="gray", vmin=-1, vmax=1)
        top.set_title(name, fontsize=7)
        if name in methods:
            middle.imshow(np.abs(image - truth) / 2, cmap="inferno", vmin=0, vmax=LARGEST_ERROR)
        bottom.imshow(image[rows, columns], cmap="gray", vmin=-1, vmax=1)
        for axes in (top, middle, bottom):
            axes.axis("off")
    _save(figure, path)


def _detail(truth: NDArray[np.float32]) -> tuple[slice, slice]:
    """The square where the truth has most contrast."""
    size = max(8, int(min(truth.shape) * DETAIL))
    step = max(1, size // 4)
    corners = [
        (row, column)
        for row in range(0, truth.shape[0] - size + 1, step)
        for column in range(0, truth.shape[1] - size + 1, step)
    ]
    row, column = max(corners, key=lambda at: float(truth[at[0] : at[0] + size, at[1] : at[1] + size].std()))
    return slice(row, row + size), slice(column, column + size)


def _planes(study: Study, place: Place, task: str) -> dict[str, dict[str, Planes]]:
    """Subject -> method -> planes, of the first seed."""
    found: dict[str, dict[str, Planes]] = {}
    for method in study.methods:
        for path in sorted((scores_folder(place.of(Run(task, method, study.seeds[0])), "") / "planes").glob("*.npz")):
            with np.load(path) as file:
                found.setdefault(path.stem, {})[method] = {name: file[name] for name in file.files}
    return found


def _figure(width: float, height: float, num_rows: int = 1, num_columns: int = 1) -> tuple[Any, Any]:
    """A figure that needs no screen and changes no setting of matplotlib's."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(num_rows, num_columns)


def _save(figure: Any, path: Path) -> None:
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=120)
    write_whole(path, content.getvalue())
