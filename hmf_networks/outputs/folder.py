"""The folder that outputs go to: nothing replaced unasked, nothing made twice, everything written down."""

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmf_networks.atomic import PART_SUFFIX_BYTES
from hmf_networks.hashing import file_hash
from hmf_networks.naming import (
    CONTRASTS,
    RESERVED,
    beside,
    check_switch,
    check_weights,
    error_path,
    is_named,
    output_path,
    printable,
    subject_name,
    usable_sources,
)
from hmf_networks.outputs import bids
from hmf_networks.outputs.claim import Claim, claim
from hmf_networks.outputs.existing import Scans, in_the_way, reason_to_make_again, scans_of, stale_error
from hmf_networks.outputs.failure import SubjectError, SubjectsFailed, failure, told
from hmf_networks.outputs.manifest import ERRORS, MANIFEST, Manifest

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]
Entry = dict[str, Any]
Output = tuple[str, str]  # subject and target

LONGEST_NAME_BYTES = 255  # that file systems allow


class OutputFolder:
    """Which outputs are to be made, are being made, were made and could not be made.

    A record stands for one output: its key "target" says which contrast of the subject.

    Args:
        output_dir: made when it is not there; `naming.output_path` tells the names below it.
        sources: contrasts that outputs can be made from.
        given: only these of them may be used; None for all.
        overwrite: replace outputs that exist; without it, and without `skip_existing`, they are refused.
        skip_existing: leave outputs alone that are still what manifest.json and their sidecar say, made of
            the same sources with the same weights and settings; make the others anew.
        weights_path: of the network; its hash is written down.
        settings: plain data that the outputs depend on; their hash is written down.

    Its methods may be called from several threads, and several processes may share a folder.
    """

    def __init__(
        self,
        output_dir: str | Path,
        *,
        sources: Sequence[str] = CONTRASTS,
        given: Sequence[str] | None = None,
        overwrite: bool = False,
        skip_existing: bool = False,
        weights_path: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder = Path(output_dir).expanduser()
        self.sources, self.given = sources, given
        self.overwrite = check_switch("overwrite", overwrite)
        self.skip_existing = check_switch("skip_existing", skip_existing)
        if overwrite and skip_existing:
            raise ValueError("overwrite and skip_existing contradict each other: choose one")
        self.weights_path = weights_path
        self.settings = dict(settings or {})
        self.manifest = Manifest(self.folder)
        self.fates: dict[str, list[Output]] = {"made": [], "skipped": [], "elsewhere": [], "failed": []}
        self.weights_hash: str | None = None  # who loads the weights may know better, see `open`
        self._started = time.time()
        self._claims: dict[Output, tuple[Claim, float]] = {}
        self._new: list[Path] = []  # folders that were not there before
        self._adopted: dict[str, Entry] = {}  # outputs of others that only their sidecars knew
        self._known_before: dict[str, Any] = {}
        self._targets: set[str] = set()
        self._said: set[str] = set()  # one bad scan stands in the way of several outputs
        self._scans = Scans([])
        self._alone = threading.RLock()
        self._is_over = threading.Event()  # a thread that reads ahead shall claim no more

    def open(self, records: Sequence[Record]) -> None:
        """Before any work: the folder can be written to, and nothing is in the way.

        Raises:
            OSError: it cannot be written to, or there are no weights.
            ValueError: its manifest.json is not one of ours, it is the BIDS dataset that is read, or a record
                has no target.
            FileExistsError: outputs exist and nothing was said of them.
        """
        self._started = time.time()
        self._is_over.clear()
        self.fates = {fate: [] for fate in self.fates}
        self._targets, self._said = _targets(records), set()
        if self.weights_path is not None:
            check_weights(self.weights_path)
            self.weights_hash = file_hash(self.weights_path)
        self._check_apart(records)
        self._check_writable()
        self.manifest.check()
        self._known_before = self.manifest.outputs()
        self._scans = Scans(records)
        if self.overwrite or self.skip_existing:
            return
        paths = (self.folder / output_path(record, record["target"]) for record in records if is_named(record))
        existing = [there for path in paths if (there := in_the_way(path)) is not None]
        if existing:
            raise FileExistsError(
                f"{len(existing)} output(s) exist already, e.g. {existing[0]}; ask for overwrite to replace "
                "them or skip_existing to keep them, or choose another output folder"
            )

    def claim(self, record: Record, *, wait: bool = False) -> str:
        """Try to get an output: "free" when it is now ours to make, "done", or "busy" in another process.

        With `wait` it is busy only where the run is over (`release_all`).

        Raises:
            SubjectError: E_NAME, E_EXISTS or E_SOURCE.
        """
        path = self.path(record)
        mine = claim(path, self.folder, wait=wait, give_up=self._is_over)
        if mine is None:
            return "busy"
        try:
            fate = self._fate_of_existing(path, record)
        except BaseException:
            mine.release()
            raise
        if fate is not None:
            mine.release()
            self._note(fate, _output(record))
            return "done"
        with self._alone:
            if self._is_over.is_set():
                mine.release()
                return "busy"
            self._claims[_output(record)] = (mine, time.time())
        return "free"

    def sources_of(self, record: Record) -> list[str]:
        """Contrasts that its output is made from."""
        return usable_sources(record, self.sources, self.given)

    def path(self, record: Record) -> Path:
        """Where an output goes; E_NAME also where a link would lead out of the folder."""
        try:
            path = self.folder / output_path(record, record["target"])
        except ValueError as error:
            raise SubjectError("E_NAME", str(error)) from error
        if len(os.fsencode(error_path(path).name)) + PART_SUFFIX_BYTES > LONGEST_NAME_BYTES:
            raise SubjectError("E_NAME", f"{path.name} is too long for a file name")
        if beside(path, ".json").name.casefold() in RESERVED:
            raise SubjectError("E_NAME", f"{path.name}: its sidecar would be {beside(path, '.json').name}")
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise SubjectError("E_NAME", f"{path.parent.name} is a link that leads out of the output folder")
        return path

    def written(self, sample: Record, content_hash: str, source_hashes: Mapping[str, str]) -> None:
        """An output is there, whole. `source_hashes`: contrast -> SHA-256 of its file."""
        if sample.get("layout") == "bids" and not bids.is_described(self.folder):
            with self.manifest.alone(*bids.FILES):
                bids.describe(self.folder)
        for file in stale_error(self.path(sample), content_hash):
            file.unlink(missing_ok=True)
        _, started = self._claims[_output(sample)]
        now = time.time()
        entry = self._entry(sample, content_hash, source_hashes, now) | {"seconds": round(now - started, 2)}
        self.manifest.update(made={self._relative(self.path(sample)): entry})
        self._note("made", _output(sample))
        self.release(sample)

    def failed(self, record: Record, error: BaseException) -> None:
        """An output cannot be made: written down, and the run goes on."""
        entry = failure(record, error)
        code, cause, cure = told(error)
        culprit = f"{entry['file']}: " if "file" in entry else ""
        text = f"{entry['subject']} left out: {code} {culprit}{cause}; {cure}"
        if text not in self._said:
            logger.error("%s", printable(text))
            self._said.add(text)
        logger.debug("%s", entry["subject"], exc_info=error)
        with contextlib.suppress(OSError):  # where the disk is full this cannot be written, either
            self.manifest.update(failed=entry)
        self._note("failed", (entry["subject"], entry["target"]))
        self.release(record)

    def release(self, record: Record) -> None:
        """Give an output back, whatever became of it."""
        with self._alone:
            mine, _ = self._claims.pop(_output(record), (None, 0.0)) if is_named(record) else (None, 0.0)
        if mine is not None:
            mine.release()

    def release_all(self) -> None:
        """Give back what was claimed and not made; until the next `open` nothing more is claimed."""
        with self._alone:
            self._is_over.set()
            for mine, _ in self._claims.values():
                mine.release()
            self._claims.clear()
            adopted, self._adopted = self._adopted, {}
        if adopted:
            with contextlib.suppress(OSError):  # their sidecars go on knowing them
                self.manifest.update(made=adopted)

    def abandon(self) -> None:
        """After a run that came to nothing: no empty folders stay that were not there before."""
        with contextlib.suppress(OSError):  # it is not empty
            for folder in self._new:
                folder.rmdir()

    def close(self, about: Mapping[str, Any], fates: Mapping[str, Sequence[Output]]) -> None:
        """Write down the run: what is known about it, its settings, how many outputs had which fate."""
        run = {
            **about,
            "targets": sorted(self._targets),
            "settings": self.settings,
            "settings_sha256": self.settings_hash(),
            "weights_sha256": self.weights_hash,
            "seconds": round(time.time() - self._started, 2),
            **{fate: len(outputs) for fate, outputs in fates.items()},
        }
        fine = [output for fate in ("made", "skipped", "elsewhere") for output in fates.get(fate, ())]
        try:
            self.manifest.update(run=run, fine=fine)
        except OSError as error:
            raise PermissionError(
                f"{self.manifest.folder / MANIFEST} cannot be written ({error.strerror}); outputs are whole, "
                "make room and go on with --skip-existing"
            ) from error

    def settings_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def _check_apart(self, records: Sequence[Record]) -> None:
        """In a raw BIDS dataset a description of derivatives would be wrong, and BIDS wants them apart."""
        folder = self.folder.resolve()
        of_bids = [record for record in records if record.get("layout") == "bids"]
        if any(bids.dataset_of(scan) == folder for scan in scans_of(of_bids)):
            raise ValueError(
                f"output folder {self.folder} is the BIDS dataset itself; choose another, e.g. "
                f"{self.folder / 'derivatives' / 'hmf'}"
            )

    def _check_writable(self) -> None:
        self._new = [folder for folder in (self.folder, *self.folder.parents) if not folder.exists()]
        if self.folder.is_symlink() and self._new:
            raise FileNotFoundError(f"output_dir {self.folder} is a link to nowhere; choose another folder")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=self.folder):
                pass
        except OSError as error:
            problem = f"output_dir {self.folder} cannot be written to ({error.strerror}); choose another folder"
            raise PermissionError(problem) from error

    def _fate_of_existing(self, path: Path, record: Record) -> str | None:
        """What is there already means for an output; None: it is to be made, or made anew."""
        for file in (path, error_path(path)):
            if self._scans.hold(file):
                problem = f"{self._relative(file)} is one of the scans, or has its name"
                raise SubjectError("E_SOURCE", problem)
        there = in_the_way(path)
        if there is None:
            return None
        known = self.manifest.output(self._relative(path))
        if self.skip_existing:
            if there != path:
                raise SubjectError("E_EXISTS", f"{self._relative(there)} exists, and nothing says whose it is")
            sidecar = bids.read_sidecar(path)
            if known is None and file_hash(path) != sidecar.get("Sha256"):
                problem = f"{self._relative(path)} exists, and neither manifest.json nor a sidecar knows it"
                raise SubjectError("E_EXISTS", problem)
            made_with = (self.weights_hash, self.settings_hash())
            reason = reason_to_make_again(path, record, self.sources_of(record), known, sidecar, made_with)
            if reason is None:
                if known is None:  # the manifest was lost, or the run killed that had just written this
                    modified = path.stat().st_mtime
                    known_of = {"familiarity": sidecar["Familiarity"]} if "Familiarity" in sidecar else {}
                    entry = self._entry({**record, **known_of}, sidecar["Sha256"], sidecar["SourcesSha256"], modified)
                    with self._alone:
                        self._adopted[self._relative(path)] = entry
                return "skipped"
            logger.warning("%s is made again: %s", self._relative(path), reason)
            return None
        if not self.overwrite or (known is not None and known != self._known_before.get(self._relative(path))):
            return "elsewhere"  # it was not there, or not this one, when this run began
        return None

    def _entry(self, record: Record, content_hash: str, sources: Mapping[str, str], finished: float) -> Entry:
        """Of an output, for the manifest."""
        return {
            "subject": subject_name(record),
            "target": record["target"],
            "sha256": content_hash,
            "sources": dict(sources),
            "weights_sha256": self.weights_hash,
            "settings_sha256": self.settings_hash(),
            **({"familiarity": record["familiarity"]} if "familiarity" in record else {}),
            "finished": round(finished, 3),
        }

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _note(self, fate: str, output: Output) -> None:
        with self._alone:
            self.fates[fate].append(output)


def _output(record: Record) -> Output:
    return subject_name(record), record["target"]


def _targets(records: Sequence[Record]) -> set[str]:
    for record in records:
        if "target" not in record:
            raise ValueError(f"record {dict(record)} does not say what to make: give it a target, e.g. 't2'")
    return {record["target"] for record in records}


def report(fates: Mapping[str, Sequence[Output]], folder: Path) -> None:
    """Say what a run did, in volumes; SubjectsFailed where it could not do all."""
    counts = {fate: len(outputs) for fate, outputs in fates.items()}
    lines = [f"{counts['made']} synthesised in {folder}"]
    if counts["skipped"]:
        lines.append(f"{counts['skipped']} left as they are, checked by hash")
    if counts["elsewhere"]:
        lines.append(f"{counts['elsewhere']} made by another run meanwhile")
    logger.info("%s", "; ".join(lines))
    if counts["failed"]:
        subjects = list(dict.fromkeys(subject for subject, _ in fates["failed"]))
        raise SubjectsFailed(
            f"{counts['failed']} volume(s) of {len(subjects)} subject(s) could not be made "
            f"({printable(', '.join(subjects[:3]))}{', ...' if len(subjects) > 3 else ''}), "
            f"{counts['made']} could: see {folder / ERRORS}"
        )
