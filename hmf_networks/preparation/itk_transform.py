"""Rigid ways as ITK, ANTs and 3D Slicer read them: text files of an affine transform, LPS.

Shapes: matrices (4, 4), between points in mm, RAS+.
"""

from pathlib import Path

import numpy as np
from hmf_networks.preparation.scan import LPS, Affine

HEAD = "#Insight Transform File V1.0\n#Transform 0\nTransform: AffineTransform_double_3_3\n"


def as_text(matrix: Affine) -> str:
    """As ITK resamples, it takes points of the fixed scan to those of the moving one."""
    in_lps = LPS @ matrix @ LPS
    numbers = [*in_lps[:3, :3].ravel(), *in_lps[:3, 3]]
    return f"{HEAD}Parameters: {' '.join(f'{number:.9g}' for number in numbers)}\nFixedParameters: 0 0 0\n"


def read(path: str | Path) -> Affine:
    """The inverse, of any matrix with a centre.

    Raises:
        ValueError: it is no such file.
    """
    try:
        lines = dict(line.split(": ", 1) for line in Path(path).read_text().splitlines() if ": " in line)
        numbers, centre = (np.array(lines[key].split(), float) for key in ("Parameters", "FixedParameters"))
        in_lps = np.eye(4)
        in_lps[:3, :3] = numbers[:9].reshape(3, 3)
        in_lps[:3, 3] = numbers[9:] + centre - in_lps[:3, :3] @ centre
    except (KeyError, ValueError, OSError) as error:
        raise ValueError(f"{path} is no affine transform of ITK; run hmf prepare again") from error
    return LPS @ in_lps @ LPS
