"""The folder that outputs go to: nothing replaced unasked, nothing made twice, everything written down."""

import contextlib
import hashlib
import json
import logging
import os
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hmf_networks.hashing import file_hash
from hmf_networks.naming import check_switch, check_weights, is_named, output_path, subject_name
from hmf_networks.outputs import bids
from hmf_networks.outputs.claim import Claim, claim
from hmf_networks.outputs.failure import SubjectError, SubjectsFailed, failure, told
from hmf_networks.outputs.manifest import ERRORS, Manifest

logger = logging.getLogger(__name__)

Record = Mapping[str, Any]


class OutputFolder:
    """Which outputs are to be made, are being made, were made and could not be made.

    Args:
        output_dir: made when it is not there; `naming.output_path` tells the names below it.
        target: contrast that is made.
        overwrite: replace outputs that exist; without it, and without `skip_existing`, they are refused.
        skip_existing: leave outputs alone that are still what manifest.json says, made of the same sources
            with the same weights; make the others anew.
        weights_path: of the network; its hash is written down.
        settings: plain data that the outputs depend on; their hash is written down.

    Its methods may be called from several threads, and several processes may share a folder.
    """

    def __init__(
        self,
        output_dir: str | Path,
        target: str,
        *,
        overwrite: bool = False,
        skip_existing: bool = False,
        weights_path: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.folder, self.target = Path(output_dir), target
        self.overwrite = check_switch("overwrite", overwrite)
        self.skip_existing = check_switch("skip_existing", skip_existing)
        if overwrite and skip_existing:
            raise ValueError("overwrite and skip_existing contradict each other: choose one")
        self.weights_path = weights_path
        self.settings = dict(settings or {})
        self.manifest = Manifest(self.folder)
        self.fates: dict[str, list[str]] = {"made": [], "skipped": [], "elsewhere": [], "failed": []}
        self._started = time.time()
        self._claims: dict[str, tuple[Claim, float]] = {}
        self._weights_hash: str | None = None
        self._alone = threading.RLock()
        self._is_over = threading.Event()  # a thread that reads ahead shall claim no more

    def open(self, records: Sequence[Record]) -> None:
        """Before any work: the folder can be written to, and no output is in the way.

        Raises:
            OSError: it cannot be written to, or there are no weights.
            FileExistsError: outputs exist and nothing was said of them.
        """
        self._started = time.time()
        self._is_over.clear()
        self.fates = {fate: [] for fate in self.fates}
        if self.weights_path is not None and self._weights_hash is None:
            check_weights(self.weights_path)
            self._weights_hash = file_hash(self.weights_path)
        self._check_writable()
        if self.overwrite or self.skip_existing:
            return
        paths = (self.folder / output_path(record, self.target) for record in records if is_named(record))
        existing = [path for path in paths if path.exists()]
        if existing:
            raise FileExistsError(
                f"{len(existing)} output(s) exist already, e.g. {existing[0]}; set overwrite to True to "
                "replace them or skip_existing to True to keep them, or choose another output_dir"
            )

    def claim(self, record: Record, *, wait: bool = False) -> str:
        """Try to get a subject: "free" when it is now ours to make, "done", or "busy" in another process.

        With `wait` it is busy only where the run is over (`release_all`).

        Raises:
            SubjectError: E_NAME, or E_EXISTS.
        """
        path = self.path(record)
        mine = claim(path, wait=wait, give_up=self._is_over)
        if mine is None:
            return "busy"
        try:
            fate = self._fate_of_existing(path, record) if path.exists() else None
        except BaseException:
            mine.release()
            raise
        if fate is not None:
            mine.release()
            self._note(fate, record)
            return "done"
        with self._alone:
            if self._is_over.is_set():
                mine.release()
                return "busy"
            self._claims[subject_name(record)] = (mine, time.time())
        return "free"

    def path(self, record: Record) -> Path:
        """Where the output of a subject goes; E_NAME also where a link would lead out of the folder."""
        try:
            path = self.folder / output_path(record, self.target)
        except ValueError as error:
            raise SubjectError("E_NAME", str(error)) from error
        if not path.parent.resolve().is_relative_to(self.folder.resolve()):
            raise SubjectError("E_NAME", f"{path.parent.name} is a link that leads out of the output folder")
        return path

    def written(self, sample: Record, content_hash: str, source_hashes: Mapping[str, str]) -> None:
        """An output is there, whole. `source_hashes`: contrast -> SHA-256 of its file."""
        if sample.get("layout") == "bids":
            bids.describe(self.folder)
        _, started = self._claims[subject_name(sample)]
        entry = {
            "subject": subject_name(sample),
            "target": self.target,
            "sha256": content_hash,
            "sources": dict(source_hashes),
            "weights_sha256": self._weights_hash,
            "settings_sha256": self.settings_hash(),
            "seconds": round(time.time() - started, 2),
            "finished": round(time.time(), 3),
        }
        self.manifest.update(made={self._relative(self.path(sample)): entry})
        self._note("made", sample)
        self.release(sample)

    def failed(self, record: Record, error: BaseException) -> None:
        """A subject cannot be done: written down, and the run goes on."""
        entry = failure(record, error)
        logger.error("%s left out: %s %s; %s", entry["subject"], *told(error))
        logger.debug("%s", entry["subject"], exc_info=error)
        with contextlib.suppress(OSError):  # where the disk is full this cannot be written, either
            self.manifest.update(failed=entry)
        self._note("failed", record, entry["subject"])
        self.release(record)

    def release(self, record: Record) -> None:
        """Give a subject back, whatever became of it."""
        with self._alone:
            mine, _ = self._claims.pop(subject_name(record) if is_named(record) else "", (None, 0.0))
        if mine is not None:
            mine.release()

    def release_all(self) -> None:
        """Give back what was claimed and not made; until the next `open` nothing more is claimed."""
        with self._alone:
            self._is_over.set()
            for mine, _ in self._claims.values():
                mine.release()
            self._claims.clear()

    def close(self, about: Mapping[str, Any], fates: Mapping[str, Sequence[str]]) -> None:
        """Write down the run: what is known about it, its settings, how many subjects had which fate."""
        run = {
            **about,
            "target": self.target,
            "settings": self.settings,
            "settings_sha256": self.settings_hash(),
            "weights_sha256": self._weights_hash,
            "seconds": round(time.time() - self._started, 2),
            **{fate: len(names) for fate, names in fates.items()},
        }
        self.manifest.update(run=run)

    def settings_hash(self) -> str:
        return hashlib.sha256(json.dumps(self.settings, sort_keys=True).encode()).hexdigest()

    def _check_writable(self) -> None:
        probe = self.folder / f".probe-{os.getpid()}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            probe.write_bytes(b"")
            probe.unlink()
        except OSError as error:
            problem = (
                f"output_dir {self.folder} cannot be written to ({error.strerror}); choose another folder"
            )
            raise PermissionError(problem) from error

    def _fate_of_existing(self, path: Path, record: Record) -> str | None:
        """What an output that is there means for its subject; None: it is to be made anew."""
        known = self.manifest.outputs().get(self._relative(path))
        if self.skip_existing:
            reason = self._reason_to_make_again(path, record, known)
            if reason is None:
                return "skipped"
            logger.warning("%s is made again: %s", self._relative(path), reason)
            return None
        if not self.overwrite or (known is not None and known["finished"] > self._started):
            return "elsewhere"  # it was not there, or not this one, when this run began
        return None

    def _reason_to_make_again(
        self, path: Path, record: Record, known: Mapping[str, Any] | None
    ) -> str | None:
        content = file_hash(path)
        if known is None:
            if content != bids.read_sidecar(path).get("Sha256"):
                raise SubjectError("E_EXISTS", f"{self._relative(path)} exists, but not in manifest.json")
            return "the run that wrote it was killed before it was done"
        if content != known["sha256"]:
            return "it is not what was written, by its hash"
        if any(
            name not in record or file_hash(record[name]) != source
            for name, source in known["sources"].items()
        ):
            return "its sources have changed"
        if known["weights_sha256"] != self._weights_hash:
            return "it was made with other weights"
        return None

    def _relative(self, path: Path) -> str:
        return path.relative_to(self.folder).as_posix()

    def _note(self, fate: str, record: Record, name: str | None = None) -> None:
        with self._alone:
            self.fates[fate].append(name or subject_name(record))


def report(fates: Mapping[str, Sequence[str]], folder: Path) -> None:
    """Say what a run did; SubjectsFailed where it could not do all."""
    counts = {fate: len(names) for fate, names in fates.items()}
    lines = [f"{counts['made']} synthesised in {folder}"]
    if counts["skipped"]:
        lines.append(f"{counts['skipped']} left as they are, checked by hash")
    if counts["elsewhere"]:
        lines.append(f"{counts['elsewhere']} made by another run meanwhile")
    logger.info("%s", "; ".join(lines))
    if counts["failed"]:
        raise SubjectsFailed(
            f"{counts['failed']} subject(s) could not be done ({', '.join(fates['failed'][:3])}"
            f"{', ...' if counts['failed'] > 3 else ''}), {counts['made']} could: see {folder / ERRORS}"
        )
