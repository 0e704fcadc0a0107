"""A request of a MONAI Label client becomes a record: its file, the files beside that, and what it names."""

import logging
import re
import sys
from collections.abc import Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hmf_networks.data.folder import find_subjects
from hmf_networks.naming import CONTRASTS, RECORD_KEYS, Record, bare_name, check_contrasts, unknown_word
from hmf_networks.nifti.read import read_header
from monai.transforms import MapTransform

logger = logging.getLogger(__name__)

USUAL = {2: ("t1", "flair"), 5: CONTRASTS}  # by number of volumes of a 4-D file that nobody names
FIRST_ASKED = ("t2", "flair", "t1", "pd")  # where several are missing and a client shows one
UNPROCESSABLE = 422  # status: understood, but of no use
WHAT_IS_MISSING = "what is missing"  # as the target of a request


class LoadStudyd(MapTransform):
    """Load a record, or what a client asks for: `image`, a path, becomes the record of a study.

    Sources, the first that there are: files named in the request (`{"t1": path, "flair": path}`); the volumes
    of a 4-D file, called by `contrasts` of the request ("t1,flair"), or by its name ("x_t1_flair.nii.gz"), or
    as USUAL; the file and its siblings by the naming rules (docs/data.md).

    Args:
        keys: one, where a client puts the path.
        load: reads records, `transforms.load.LoadContrastsd`.
        targets: contrasts that the network makes.

    `target` of the request says what to make; without it the first of FIRST_ASKED that is missing.

    Raises:
        ValueError: the contrasts of the file cannot be told, nothing is missing, the network does not make
            the target, or what `load` raises. In a server, for a request, its HTTPException with that text.
    """

    def __init__(self, keys: str = "image", *, load: MapTransform, targets: Sequence[str]) -> None:
        super().__init__(keys)
        self.load, self.targets = load, tuple(targets)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        path = data.get(self.keys[0])
        if not isinstance(path, str | Path):
            return self.load(data)
        try:
            return self.load(self.record({str(key): value for key, value in data.items()}, Path(path)))
        except ValueError as error:
            raise _for_a_client(error) from error

    def record(self, request: Mapping[str, Any], path: Path) -> dict[str, Any]:
        """Of a request for the file at `path`."""
        scans = _named(request) or _volumes(path, request) or _siblings(path)
        of_records = (*RECORD_KEYS, "targets", "volumes", self.keys[0])  # not to be had from a request
        others = {key: value for key, value in request.items() if key not in of_records}
        study = {"patient": bare_name(path.name), "session": ""} | scans
        return others | study | {"target": self._target(request, study)}

    def _target(self, request: Mapping[str, Any], study: Mapping[str, Any]) -> str:
        asked = request.get("target", WHAT_IS_MISSING)
        if isinstance(asked, str) and asked != WHAT_IS_MISSING:  # a list: all that a client might have chosen
            if asked not in self.targets:
                raise ValueError(unknown_word("target", asked, self.targets))
            return asked
        missing = [name for name in FIRST_ASKED if name in self.targets and name not in study]
        if not missing:
            raise ValueError(f"{study['patient']} lacks none of {', '.join(FIRST_ASKED)}; name a target")
        return missing[0]


def _for_a_client(error: Exception) -> Exception:
    """FastAPI shows the text of exceptions of its own; any other is a 500 without words."""
    server = sys.modules.get("starlette.exceptions")
    return error if server is None else server.HTTPException(UNPROCESSABLE, str(error))


def _named(request: Mapping[str, Any]) -> dict[str, Any]:
    return {name: str(request[name]) for name in CONTRASTS if request.get(name)}


def _volumes(path: Path, request: Mapping[str, Any]) -> dict[str, Any]:
    """Of a 4-D file: which contrast is which volume of it; nothing for any other."""
    count = read_header(path).num_volumes
    if count < 2:
        return {}
    named = request.get("contrasts") or [
        word for word in re.split(r"[_\-.\s]", bare_name(path.name).lower()) if word in CONTRASTS
    ]
    names = named.replace(" ", "").split(",") if isinstance(named, str) else named
    if not isinstance(names, list):
        raise ValueError(f'contrasts are {named!r}; name them in their order: "t1,flair"')
    if not names and count in USUAL:
        names = list(USUAL[count])
        logger.warning("%s: its %d volumes are taken for %s", path.name, count, ", ".join(names))
    check_contrasts(names)
    if len(set(names)) != count or len(names) != count:
        raise ValueError(
            f"{path.name} has {count} volumes and {len(names)} names for them; "
            'say which contrasts they are, in their order: {"contrasts": "t1,flair"}'
        )
    return {name: str(path) for name in names} | {"volumes": {name: n for n, name in enumerate(names)}}


def _siblings(path: Path) -> Record:
    try:
        (record,) = find_subjects(path, [])
    except ValueError as error:
        raise ValueError(f'{path.name}: {error}; or say so in the request: {{"t1": "/path/of/it.nii.gz"}}') from error
    return record
