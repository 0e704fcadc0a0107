"""manifest.json and errors.json of an output folder: what was made of what, and what could not be made.

Both speak of the whole folder, not of the last run: processes and later runs add to them, one at a time.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from filelock import FileLock

from hmf_networks.atomic import write_whole
from hmf_networks.outputs.claim import sweep

logger = logging.getLogger(__name__)

MANIFEST, ERRORS, LOCK = "manifest.json", "errors.json", ".manifest.lock"
RELIED_ON = {"subject", "sha256", "sources", "weights_sha256", "finished"}  # of an output


class Manifest:
    """The two files of `folder`.

    manifest.json is `{"run": {...}, "outputs": {relative path: {...}}}`, errors.json a list of
    `outputs.failure.failure`; the latter is there only as long as it names somebody.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._seen: dict[str, tuple[tuple[int, int, int], Any]] = {}  # of thousands of outputs, parsed once

    def outputs(self) -> dict[str, dict[str, Any]]:
        """Relative path -> what is known of the output."""
        return self._load(MANIFEST, {}).get("outputs", {})

    def update(
        self,
        *,
        run: Mapping[str, Any] | None = None,
        made: Mapping[str, Mapping[str, Any]] | None = None,
        failed: Mapping[str, str] | None = None,
    ) -> None:
        """Note a run, or outputs that were made, or a subject that failed."""
        with _Alone(self.folder):
            content = self._load(MANIFEST, {})
            outputs = content.get("outputs", {}) | {key: dict(value) for key, value in (made or {}).items()}
            content = {"run": dict(run or content.get("run", {})), "outputs": dict(sorted(outputs.items()))}
            write_whole(self.folder / MANIFEST, json.dumps(content, indent=1) + "\n")
            named = {entry["subject"] for entry in (made or {}).values()} | {(failed or {}).get("subject")}
            before = self._load(ERRORS, [])
            errors = [entry for entry in before if entry["subject"] not in named]
            errors += [dict(failed)] if failed else []
            if errors:
                errors.sort(key=lambda entry: entry["subject"])
                write_whole(self.folder / ERRORS, json.dumps(errors, indent=1) + "\n")
            elif before:
                (self.folder / ERRORS).unlink(missing_ok=True)

    def _load(self, name: str, empty: Any) -> Any:
        path = self.folder / name
        if not path.is_file():
            return empty
        stat = path.stat()
        state = (stat.st_ino, stat.st_mtime_ns, stat.st_size)
        if name in self._seen and self._seen[name][0] == state:
            return self._seen[name][1]
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            if _is_sound(content) and isinstance(content, type(empty)):
                self._seen[name] = (state, content)
                return content
        except ValueError:
            pass
        aside = path.with_name(f"{path.stem}-unreadable.json")
        logger.warning("%s cannot be read: moved to %s", path, aside.name)
        path.replace(aside)
        return empty


def _is_sound(content: Any) -> bool:
    """Whether it could have been written here: what others changed may lack what is relied on."""
    if isinstance(content, list):
        return all(isinstance(entry, dict) and isinstance(entry.get("subject"), str) for entry in content)
    if not isinstance(content, dict):
        return False
    run, outputs = content.get("run", {}), content.get("outputs", {})
    return (
        isinstance(run, dict)
        and isinstance(outputs, dict)
        and all(isinstance(entry, dict) and entry.keys() >= RELIED_ON for entry in outputs.values())
    )


class _Alone:
    """Within it no other process changes the two files; litter of a killed one is gone afterwards."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lock = FileLock(folder / LOCK)

    def __enter__(self) -> None:
        self.lock.acquire(poll_interval=0.01)
        for name in (MANIFEST, ERRORS):
            sweep(self.folder / name)

    def __exit__(self, *_: object) -> None:
        (self.folder / LOCK).unlink(missing_ok=True)
        self.lock.release()
