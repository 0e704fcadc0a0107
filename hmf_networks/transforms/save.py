"""Write what was synthesised: NIfTI on the grid of the first source, a JSON sidecar, a picture."""

import contextlib
import errno
import hashlib
from collections.abc import Hashable, Mapping, Sequence
from concurrent.futures import Future, wait
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from hmf_networks.atomic import FileChangedError, write_whole
from hmf_networks.background import in_background
from hmf_networks.hashing import file_hash
from hmf_networks.naming import beside, check_switch, error_path, output_path, targets_of
from hmf_networks.nifti.codes import VolumeError
from hmf_networks.nifti.files import volume_hash, volume_state
from hmf_networks.nifti.geometry import upright
from hmf_networks.nifti.read import read_header
from hmf_networks.nifti.write import encode_like
from hmf_networks.transforms.intensity import OUTPUT_MAXIMUM
from hmf_networks.transforms.preview import three_planes_png
from hmf_networks.transforms.sidecar import as_text, error_sidecar, is_brain_alone, source_paths, volume_sidecar
from monai.data import MetaTensor
from monai.transforms import MapTransform, SaveImaged
from nibabel.affines import voxel_sizes
from numpy.typing import NDArray

UNKNOWN = {"t1c": "enhancement unknown"}  # what no network can tell, for the caption
ERROR_SHOWN = 250.0  # white in the picture
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


class SaveSynthesisd(SaveImaged):
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
        # A SaveImaged in name alone: MONAI Label, which saves itself, leaves those out.
        MapTransform.__init__(self, keys)
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
            raise ValueError(f"pred has {len(prediction)} channel(s), not one for each of {targets}; pick them")
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
            made_with = self._made_with() | {"SkullStripped": is_brain_alone(self._used_channels(sample))}
            about = volume_sidecar(sample, content_hash, hashes, made_with)
            files: dict[Path, str | bytes] = {}
            if sample["error"] is not None:
                error_file = error_path(path)
                error_content = encode_like(sample["source_paths"][0], sample["error"], error_file)
                files[error_file] = error_content
                error_hash = hashlib.sha256(error_content).hexdigest()
                told = error_sidecar(sample, path, error_hash, content_hash, made_with, self.calibration)
                files[beside(error_file, ".json")] = as_text(told)
                about["ExpectedError"] = {"File": error_file.name, "Sha256": error_hash}
            files[beside(path, ".json")] = as_text(about)
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
                    error.errno, f"{path} cannot be written: {error.strerror}; make room and go on with --skip-existing"
                ) from error

    def _made_with(self) -> dict[str, Any]:
        if self.ledger is not None:
            return {"WeightsSha256": self.ledger.weights_hash, "SettingsSha256": self.ledger.settings_hash()}
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
    paths = source_paths(sample)
    try:
        hashes = {name: volume_hash(path) for name, path in paths.items()}
        states = [volume_state(path) for path in paths.values()]
    except (OSError, VolumeError) as error:
        raise FileChangedError("a source is no longer there") from error
    if states != sample.get("source_states", states):
        raise FileChangedError("a source is no longer what was read")
    return hashes


def _check_back_on_grid(prediction: torch.Tensor, source_path: str) -> None:
    """Left and right look much alike: a volume that was not brought back would pass for a good one."""
    affine = read_header(source_path).affine
    known = prediction.affine.cpu() if isinstance(prediction, MetaTensor) else np.full((4, 4), np.nan)
    if not np.allclose(known, affine, atol=1e-3):
        raise ValueError(f"the prediction is not on the grid of {source_path}; put Invertd before SaveSynthesisd")


def _numpy(channel: torch.Tensor) -> NDArray[np.float32]:
    return torch.as_tensor(channel).detach().cpu().numpy()
