"""manifest.json and errors.json of an output folder: what was made of what, and what could not be made.

Both speak of the whole folder, not of the last run: processes and later runs add to them, one at a time.
"""

import itertools
import json
import logging
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock
from hmf_networks.atomic import sweep, write_whole

logger = logging.getLogger(__name__)

MANIFEST, ERRORS, LOCK = "manifest.json", "errors.json", ".manifest.lock"
RELIED_ON = {"subject": str, "sha256": str, "sources": dict, "finished": float}  # of an output


class Manifest:
    """The two files of `folder`.

    manifest.json is `{"run": {...}, "outputs": {relative path: {...}}}`, errors.json a list of
    `outputs.failure.failure`, one for each output that could not be made; it is there only as long as it
    names one.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, tuple[tuple[int, int, int], Any]] = {}  # of thousands of outputs, parsed once

    def check(self) -> None:
        """Raise ValueError or OSError, in one line, where the two files could not be kept."""
        for name in (MANIFEST, ERRORS):
            path = self.folder / name
            try:
                content = self._parsed(name)
            except OSError as error:
                raise PermissionError(f"{path} cannot be read ({error.strerror}); choose another output_dir") from error
            except (ValueError, RecursionError):
                continue  # damaged: `_load` puts it aside
            if content is not None and not _is_ours(content, name):
                raise ValueError(f"{path} is not one of ours and would be lost; choose another output_dir")

    def outputs(self) -> dict[str, dict[str, Any]]:
        """Relative path -> what is known of the output."""
        known = self._load(MANIFEST, {}).get("outputs", {})
        return {path: entry for path, entry in known.items() if _is_reliable(entry)}

    def output(self, path: str) -> dict[str, Any] | None:
        """What is known of one output, by its relative path."""
        entry = self._load(MANIFEST, {}).get("outputs", {}).get(path)
        return entry if _is_reliable(entry) else None

    def update(
        self,
        *,
        run: Mapping[str, Any] | None = None,
        made: Mapping[str, Mapping[str, Any]] | None = None,
        failed: Mapping[str, str] | None = None,
        fine: Collection[tuple[str, str]] = (),
    ) -> None:
        """Note a run, outputs that were made, one that failed, or those (subject, target) that are fine."""
        with self.alone():
            self._put_damaged_aside()
            content = self._load(MANIFEST, {})
            outputs = content.get("outputs", {}) | {key: dict(value) for key, value in (made or {}).items()}
            content = {"run": dict(run or content.get("run", {})), "outputs": dict(sorted(outputs.items()))}
            write_whole(self.folder / MANIFEST, json.dumps(content, indent=1) + "\n")
            noted = [*(made or {}).values(), *([failed] if failed else [])]
            settled = {*fine, *map(_output_of, noted)}
            before = self._load(ERRORS, [])
            errors = [entry for entry in before if _output_of(entry) not in settled]
            errors += [dict(failed)] if failed else []
            if errors:
                errors.sort(key=_output_of)
                write_whole(self.folder / ERRORS, json.dumps(errors, indent=1) + "\n")
            elif before:
                (self.folder / ERRORS).unlink(missing_ok=True)

    @contextmanager
    def alone(self, *more: str) -> Iterator[None]:
        """Within it no other process changes the two files, or `more`; litter of a killed one is gone."""
        lock = FileLock(self.folder / LOCK)
        with lock.acquire(poll_interval=0.01):
            try:
                for name in (MANIFEST, ERRORS, *more):
                    sweep(self.folder / name)
                yield
            finally:
                with suppress(PermissionError):  # Windows: it is open
                    (self.folder / LOCK).unlink(missing_ok=True)

    def _load(self, name: str, empty: Any) -> Any:
        """Its content; `empty` where it is not there, or damaged."""
        try:
            content = self._parsed(name)
        except (ValueError, RecursionError):
            return empty
        return content if content is not None and _is_ours(content, name) else empty

    def _parsed(self, name: str) -> Any:
        """None where it is not there."""
        path = self.folder / name
        try:
            stat = path.stat()
        except FileNotFoundError:
            return None
        state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if name not in self._seen or self._seen[name][0] != state:
            self._seen[name] = (state, json.loads(path.read_text(encoding="utf-8")))
        return self._seen[name][1]

    def _put_damaged_aside(self) -> None:
        """Only where no other process may be writing them: it would be a new one that went."""
        for name in (MANIFEST, ERRORS):
            try:
                content = self._parsed(name)
                if content is None or _is_ours(content, name):
                    continue
            except (ValueError, RecursionError):
                pass
            path = self.folder / name
            asides = (path.with_name(f"{path.stem}-unreadable-{n}.json") for n in itertools.count(1))
            aside = next(aside for aside in asides if not aside.exists())
            logger.warning("%s cannot be read: moved to %s", path, aside.name)
            path.replace(aside)


def _output_of(entry: Mapping[str, Any]) -> tuple[str, str]:
    return entry["subject"], str(entry.get("target", ""))


def _is_ours(content: Any, name: str) -> bool:
    """Whether it could have been written here, by whatever version."""
    if name == ERRORS:
        return isinstance(content, list) and all(
            isinstance(entry, dict) and isinstance(entry.get("subject"), str) and "code" in entry for entry in content
        )
    return (
        isinstance(content, dict)
        and content.keys() <= {"run", "outputs"}
        and all(isinstance(part, dict) for part in content.values())
    )


def _is_reliable(entry: Any) -> bool:
    """Whether an output's entry tells what is relied on: others may have changed it, or an older version."""
    return isinstance(entry, dict) and all(isinstance(entry.get(key), kind) for key, kind in RELIED_ON.items())
