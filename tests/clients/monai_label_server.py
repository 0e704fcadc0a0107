"""MONAI Label's server where torchvision is built for CUDA and torch is not: two operators are declared.

Run by `tests/clients/monai_label.py`, in an environment of its own; the arguments are those of `monailabel`.
"""

import sys

import torch

operators = torch.library.Library("torchvision", "DEF")
for name in ("nms", "qnms"):  # else importing torchvision fails; nothing here calls them
    operators.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

from monailabel.main import Main  # noqa: E402

sys.argv[0] = "monailabel"
Main().run()
