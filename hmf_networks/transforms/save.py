"""Write what was synthesised: NIfTI on the grid of the first source, a JSON sidecar, a picture."""

import contextlib
import errno
import hashlib
import json
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import MapTransform
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

from hmf_networks import __version__
from hmf_networks.atomic import FileChangedError, write_whole
from hmf_networks.background import in_background
from hmf_networks.hashing import file_hash
from hmf_networks.naming import beside, check_switch, error_path, output_path, targets_of
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.files import volume_hash, volume_state
from hmf_networks.nifti.geometry import upright
from hmf_networks.nifti.read import read_header
from hmf_networks.nifti.write import encode_like
from hmf_networks.transforms.expected_error import interval_factors
from hmf_networks.transforms.intensity import OUTPUT_MAXIMUM
from hmf_networks.transforms.preview import three_planes_png

GENERATOR = {"Name": "hmf_networks", "Version": __version__}
VOLUME_HASH = "VolumeSha256"  # in the sidecar of an error: which volume it is of
CALIBRATED = (
    "Expected absolute error of the synthetic volume beside it, in its units "
    f"(0..{OUTPUT_MAXIMUM:g}). The percentages of IntervalFactors tell how many of the true values are "
    "expected within value +- factor * error. It was fitted on few patients and knows nothing of disease "
    "that the sources do not show. Not for diagnosis."
)
SPREAD = (
    f"Standard deviation of a small ensemble, in the units of the volume beside it (0..{OUTPUT_MAXIMUM:g}): "
    "where it is large the synthesis hangs on little. The weights hold no calibration, so it is no error "
    "that could be expected. Not for diagnosis."
)
LARGEST_BRAIN_MM3 = 2.0e6  # with its fluid; a head with skull has 3 litres and more
UNKNOWN = {"t1c": "enhancement unknown"}  # what no network can tell, for the caption
ERROR_SHOWN = 250.0  # white in the picture
WARNINGS = {  # for the sidecar
    "t1c": "Enhancement cannot be computed from other contrasts: where a contrast agent would go is not "
    "known, and what looks bright or dark here says nothing about it."
}
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class Ledger(Protocol):
    """Who is told what became of an output (`outputs/folder.py`), and knows what made it."""

    weights_hash: str | None

    def settings_hash(self) -> str:
        """Of what the outputs depend on."""

    def written(self, sample: Mapping[Any, Any], content_hash: str, source_hashes: Mapping[str, str]) -> None:
        """The sample's "target" is there, whole."""

    def failed(self, record: Mapping[Any, Any], error: BaseException) -> None:
        """The record's "target" could not be written."""


class NoRoomError(OSError):
    """An output cannot be written for a reason that the next one would meet, too."""


class SaveSynthesisd(MapTransform):
    """Write `pred`, already back on the grid of the first source that was read, and what belongs beside it.

    `pred` (T, X, Y, Z) has a channel for each contrast that is to be made (`naming.targets_of`); each becomes
    a file of its own. `source_names` and `source_paths` tell what it was made from. Where there is `error`,
    of the same shape, it becomes a volume beside it (`naming.error_path`), with a sidecar of its own;
    `familiarity` goes into the sidecar and the caption.

    Args:
        output_dir: `naming.output_path` tells the names below it.
        sources: contrasts of the channels of `image`, for the picture.
        weights_path: the weights used; their hash goes into the sidecar, where no `ledger` knows it.
        preview: also write a three-plane picture.
        calibration: what made the `error`; None: it is the spread of an ensemble.

    The sample gains `output_paths`. Files are there when the call returns; where `behind` was set, those of a
    subject are there before the next one's are begun, and the last after `finish`. Where `ledger` was set, it
    is told what was written and what could not be, and only NoRoomError is raised.
    """

    def __init__(
        self,
        keys: str = "pred",
        *,
        output_dir: str,
        sources: Sequence[str],
        weights_path: str | None = None,
        preview: bool = True,
        calibration: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(keys)
        self.output_dir = Path(output_dir).expanduser()
        self.sources = tuple(sources)
        self.weights_path = weights_path
        self.preview = check_switch("preview", preview)
        self.calibration = calibration
        self.behind = False
        self.ledger: Ledger | None = None
        self._writing: Future[None] | None = None

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        sample: dict[Any, Any] = dict(data)
        targets, prediction = targets_of(sample), sample[self.keys[0]]
        if len(prediction) != len(targets):
            raise ValueError(
                f"pred has {len(prediction)} channel(s), not one for each of {targets}; pick them"
            )
        _check_back_on_grid(prediction, sample["source_paths"][0])
        paths = [self.output_dir / output_path(sample, target) for target in targets]
        sample["output_paths"] = [str(path) for path in paths]
        self._wait()
        self._writing = in_background(self._write_all, sample, prediction, paths)
        if not self.behind:
            self._wait()
        return sample

    def finish(self) -> None:
        """Wait for the last file; from now on each call waits for its own."""
        self.behind = False
        self._wait()

    def _wait(self) -> None:
        if self._writing is not None:
            wait([self._writing])  # a signal may end this: then there is still something to wait for
            writing, self._writing = self._writing, None
            writing.result()

    def _write_all(self, sample: Mapping[Any, Any], prediction: torch.Tensor, paths: Sequence[Path]) -> None:
        errors = sample.get("error", [None] * len(paths))
        for target, channel, error, path in zip(targets_of(sample), prediction, errors, paths, strict=True):
            this = {**sample, "target": target, "error": None if error is None else _numpy(error)}
            self._write(this, _numpy(channel), path)

    def _write(self, sample: Mapping[Any, Any], values: NDArray[np.float32], path: Path) -> None:
        """The volume last: where it is, all is. Its hash in the sidecar tells it from an earlier one."""
        replaces = path.exists()
        written: list[Path] = []
        try:
            content = encode_like(sample["source_paths"][0], values, path)
            content_hash = hashlib.sha256(content).hexdigest()
            hashes = _source_hashes(sample)
            files, about_error = self._error_files(sample, path, content_hash)
            sidecar = self._sidecar(sample, content_hash, hashes) | about_error
            files[beside(path, ".json")] = json.dumps(sidecar, indent=2) + "\n"
            if self.preview:
                files[beside(path, ".png")] = self._picture(sample, values)
            files[path] = content
            for file, file_content in files.items():
                write_whole(file, file_content)
                written.append(file)
            if self.ledger is not None:
                self.ledger.written(sample, content_hash, hashes)
        except Exception as error:
            if not replaces and path not in written:
                for file in written:
                    with contextlib.suppress(OSError):
                        file.unlink()
            if self.ledger is None:
                raise
            self.ledger.failed(sample, error)
            if isinstance(error, OSError) and error.errno in NO_ROOM:
                raise NoRoomError(
                    error.errno,
                    f"{path} cannot be written: {error.strerror}; make room and go on with --skip-existing",
                ) from error

    def _sidecar(
        self, sample: Mapping[Any, Any], content_hash: str, source_hashes: Mapping[str, str]
    ) -> dict[str, Any]:
        target, paths = sample["target"], _source_paths(sample)
        names: Any = {name: Path(path).name for name, path in paths.items()}
        if sample.get("layout") == "bids":
            names = [bids_name(Path(path)) for path in paths.values()]
        return {
            "Description": f"Synthetic {target}: computed from other contrasts, not acquired. "
            "Not for diagnosis.",
            **({"Warning": WARNINGS[target]} if target in WARNINGS else {}),
            "Sources": names,
            "Target": target,
            "IntensityMap": f"value = (network output + 1) / 2 * {OUTPUT_MAXIMUM:g}, "
            f"clipped to 0..{OUTPUT_MAXIMUM:g}",
            "Sha256": content_hash,
            "SourcesSha256": dict(source_hashes),
            **self._made_with(),
            "SkullStripped": is_brain_alone(self._used_channels(sample)),
            **({"Familiarity": sample["familiarity"]} if "familiarity" in sample else {}),
            "GeneratedBy": GENERATOR,
        }

    def _error_files(
        self, sample: Mapping[Any, Any], path: Path, volume_hash: str
    ) -> tuple[dict[Path, str | bytes], dict[str, Any]]:
        """The expected error and its sidecar, and what that of the volume says of it; both empty without."""
        if sample["error"] is None:
            return {}, {}
        target, error = sample["target"], error_path(path)
        content = encode_like(sample["source_paths"][0], sample["error"], error)
        content_hash = hashlib.sha256(content).hexdigest()
        names = [bids_name(path)] if sample.get("layout") == "bids" else {target: path.name}
        factors = {} if self.calibration is None else interval_factors(self.calibration, target)
        sidecar = {
            "Description": CALIBRATED if factors else SPREAD,
            "Measure": "expected absolute error" if factors else "standard deviation of an ensemble",
            "Calibrated": bool(factors),
            **({"IntervalFactors": factors} if factors else {}),
            "Sources": names,
            "Target": target,
            "Sha256": content_hash,
            VOLUME_HASH: volume_hash,
            **self._made_with(),
            "SkullStripped": is_brain_alone(self._used_channels(sample)),
            "GeneratedBy": GENERATOR,
        }
        files: dict[Path, str | bytes] = {
            error: content,
            beside(error, ".json"): json.dumps(sidecar, indent=2) + "\n",
        }
        return files, {"ExpectedError": {"File": error.name, "Sha256": content_hash}}

    def _made_with(self) -> dict[str, str | None]:
        if self.ledger is not None:
            return {
                "WeightsSha256": self.ledger.weights_hash,
                "SettingsSha256": self.ledger.settings_hash(),
            }
        return {"WeightsSha256": file_hash(self.weights_path) if self.weights_path else None}

    def _picture(self, sample: Mapping[Hashable, Any], values: NDArray[np.float32]) -> bytes:
        affine = read_header(sample["source_paths"][0]).affine
        synthesised, place = upright(values, affine)
        used = self._used_channels(sample)
        volumes = {name: _numpy(channel) for name, channel in zip(sample["source_names"], used, strict=True)}
        volumes[_caption(sample)] = synthesised / OUTPUT_MAXIMUM * 2 - 1
        if sample["error"] is not None:
            measure = "spread" if self.calibration is None else "expected error"
            error, _ = upright(sample["error"], affine)
            volumes[f"{measure}, white is {ERROR_SHOWN:g}"] = error / ERROR_SHOWN * 2 - 1
        return three_planes_png(volumes, voxel_sizes(place).tolist())

    def _used_channels(self, sample: Mapping[Any, Any]) -> torch.Tensor:
        """Of `image`, those of contrasts that are there."""
        return sample["image"][[self.sources.index(name) for name in sample["source_names"]]]


def _caption(sample: Mapping[Hashable, Any]) -> str:
    words = ["synthetic"]
    words += [UNKNOWN[sample["target"]]] if sample["target"] in UNKNOWN else []
    words += [] if sample.get("familiarity", {}).get("familiar", True) else ["unusual input"]
    return f"{sample['target']} ({', '.join(words)})"


def _source_hashes(sample: Mapping[Any, Any]) -> dict[str, str]:
    """Contrast -> SHA-256 of the very bytes that were read; FileChangedError where they are gone."""
    paths = _source_paths(sample)
    try:
        hashes = {name: volume_hash(path) for name, path in paths.items()}
        states = [volume_state(path) for path in paths.values()]
    except (OSError, VolumeError) as error:
        raise FileChangedError("a source is no longer there") from error
    if states != sample.get("source_states", states):
        raise FileChangedError("a source is no longer what was read")
    return hashes


def _source_paths(sample: Mapping[Any, Any]) -> dict[str, str]:
    return dict(zip(sample["source_names"], sample["source_paths"], strict=True))


def _check_back_on_grid(prediction: torch.Tensor, source_path: str) -> None:
    """Left and right look much alike: a volume that was not brought back would pass for a good one."""
    affine = read_header(source_path).affine
    known = prediction.affine.cpu() if isinstance(prediction, MetaTensor) else np.full((4, 4), np.nan)
    if not np.allclose(known, affine, atol=1e-3):
        raise ValueError(
            f"the prediction is not on the grid of {source_path}; put Invertd before SaveSynthesisd"
        )


def _numpy(channel: torch.Tensor) -> NDArray[np.float32]:
    return torch.as_tensor(channel).detach().cpu().numpy()


def is_brain_alone(image: torch.Tensor) -> bool:
    """Whether what is not background in the first channel of (S, X, Y, Z) is small enough for a brain."""
    voxel_mm3 = abs(np.linalg.det(image.affine[:3, :3].numpy())) if isinstance(image, MetaTensor) else 1.0
    return float((image[0] > -1).sum()) * float(voxel_mm3) < LARGEST_BRAIN_MM3


def bids_name(path: Path) -> str:
    """sub-01/anat/sub-01_T1w.nii.gz: from the folder of the subject on; else the name alone."""
    folders = [number for number, part in enumerate(path.parts[:-1]) if part.startswith("sub-")]
    return "/".join(path.parts[folders[-1] if folders else -1 :])
