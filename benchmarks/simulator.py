"""How fast the simulator of training draws slices, on one core.

    OMP_NUM_THREADS=1 python benchmarks/simulator.py MAP.nii.gz [--slices 100] [--json OUT.json]

Processor time, all ten images of a slice: five as scanners take them, five as labels.
"""

import argparse
import time
from pathlib import Path

from hmf_networks.physics.head import Head
from hmf_networks.transforms.simulate import LoadHeadd, SimulateContrastsd
from machine import report

SIZES = ((112, 128), (160, 192), (256, 256))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("label_map", type=Path)
    parser.add_argument("--slices", type=int, default=100)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    started = time.process_time()
    head = LoadHeadd()({"labels": str(options.label_map)})["head"]
    print(f"a head is ready after {time.process_time() - started:.1f} s")
    rows = {
        f"{height} x {width}": {
            "slices/s": rate(head, (height, width), options.slices, fine_label=False),
            "slices/s, label of 0.5 mm": rate(head, (height, width), options.slices, fine_label=True),
        }
        for height, width in SIZES
    }
    report("Slices simulated from a label map", list(next(iter(rows.values()))), rows, options.json)


def rate(head: Head, size: tuple[int, int], slices: int, *, fine_label: bool) -> float:
    simulate = SimulateContrastsd("head", size=size, fine_label=fine_label)
    simulate.set_random_state(seed=0)
    simulate({"head": head})
    started = time.process_time()
    for _ in range(slices):
        simulate({"head": head})
    return slices / (time.process_time() - started)


if __name__ == "__main__":
    main()
