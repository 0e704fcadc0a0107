"""A head of nested balls: labels of brain, fluid, skull and skin, small enough for tests."""

import numpy as np

CORTEX, WHITE, VENTRICLE, FLUID, BONE, SKIN, SOFT = 3, 2, 4, 24, 515, 511, 507
SIZE = 104


def ball_labels() -> np.ndarray:
    """(104, 104, 104), 1 mm: ventricle, white matter, folded cortex, fluid, bone, soft tissue, skin."""
    axis = np.arange(SIZE) - (SIZE - 1) / 2
    x, y, z = np.meshgrid(axis, axis, axis, indexing="ij", sparse=True)
    radius = np.sqrt(x * x + y * y + z * z)
    folds = 1.5 * np.sin(x / 4) * np.sin(y / 4 + 1) * np.sin(z / 4)
    labels = np.zeros((SIZE,) * 3, np.int32)
    for outer, label in ((46, SKIN), (44, SOFT), (41, BONE), (38, FLUID)):
        labels[radius < outer] = label
    labels[radius + folds < 34] = CORTEX
    labels[radius + folds < 30] = WHITE
    labels[radius < 7] = VENTRICLE
    return labels
