"""The network with its weights as a file for other runtimes, held to what it was made from: `hmf export`.

TorchScript by scripting, with metadata and inference.json inside, as MONAI's ckpt_export writes it; ONNX for
any batch, height and width; OpenVINO from that. All in float32, input "image", output "pred".
"""

import json
import tempfile
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hmf_networks.atomic import write_whole
from hmf_networks.engines.needed import network_with
from hmf_networks.naming import unknown_word
from monai.bundle import ConfigParser
from monai.data import save_net_with_metadata
from monai.networks.utils import convert_to_onnx, convert_to_torchscript
from torch import Tensor, nn

MADE_AT = (1, 256, 256)  # batch, height, width
ASKED_AT = ((1, 160, 192), (2, 96, 128))
ALLOWED = 1e-3  # of an image in [-1, 1]
REPEATS = 3
TORCH_FOR_ONNX = (2, 9)  # MONAI scripts for older ones, which their exporter refuses

Answers = Callable[[Tensor], Tensor]


class Verified(NamedTuple):
    """The largest difference at every size, the seconds of one plane, and these over those of the network."""

    differences: dict[tuple[int, int, int], float]
    seconds: float
    times_eager: float


class Format(NamedTuple):
    """The files of a runtime: the one that is named, last, after what it needs beside it."""

    suffixes: tuple[str, ...]
    packages: tuple[str, ...]
    write: Callable[[nn.Module, Path], None]
    open: Callable[[Path], Answers]


def export(
    bundle: Path, weights: Path, kind: str, path: Path | None = None, *, overwrite: bool = False
) -> tuple[Path, Verified]:
    """Write the network of `weights` for another runtime, after that runtime gave the same as the network.

    Args:
        bundle: whose inference.json goes into TorchScript, as these weights need it.
        weights: model.pt, with its model.json.
        kind: "torchscript", "onnx" or "openvino".
        path: ends in .ts, .onnx or .xml (OpenVINO's weights lie beside it, as .bin). Default: `models/model`
            of the bundle.
        overwrite: replace files that are there.

    Raises:
        ValueError: another kind, another ending, or the runtime cannot do it or says something else.
        FileExistsError: it is there.
        ImportError: a package of the extra `export` is missing.
    """
    made = _usable_format(kind)
    path = path or bundle / "models" / f"model{made.suffixes[-1]}"
    if path.suffix != made.suffixes[-1]:
        raise ValueError(f"{path}: the name of a file of {kind} ends in {made.suffixes[-1]}")
    files = [path.with_suffix(suffix) for suffix in made.suffixes]
    for file in files:
        if file.exists() and not overwrite:
            raise FileExistsError(f"{file} exists; remove it, name another or replace it with --overwrite")
    network, config = network_with(bundle, weights)
    with tempfile.TemporaryDirectory() as folder:
        draft = Path(folder) / path.name
        try:
            made.write(network, draft)
            if kind == "torchscript":
                own = bundle / "models" / "model.pt"
                _tell_torchscript(draft, config, bundle if own.is_file() and weights.samefile(own) else None)
            found = verify(network, draft, kind)
        except RuntimeError as error:
            raise ValueError(f"{kind}: not with these versions ({str(error).splitlines()[0]})") from error
        if len(files) > 1:
            path.unlink(missing_ok=True)  # an old one would lie beside new weights, were we killed
        for file in files:
            write_whole(file, (Path(folder) / file.name).read_bytes())
    return path, found


def verify(network: nn.Module, path: Path, kind: str) -> Verified:
    """Ask the file and the network at sizes that it was not made with.

    Raises:
        ValueError: they differ by more than `ALLOWED`, or are no numbers.
    """
    exported = FORMATS[kind].open(path)
    differences = {}
    with torch.inference_mode():
        for size in ASKED_AT:
            image = example(network, size)
            differences[size] = (exported(image) - network(image)).abs().max().item()
        if not all(difference <= ALLOWED for difference in differences.values()):
            raise ValueError(f"{kind} does not give what the network gives: they differ by {differences}")
        image = example(network, ASKED_AT[0])
        eager, other = (_seconds(answers, image) for answers in (network, exported))
    return Verified(differences, other, other / eager)


def example(network: nn.Module, size: tuple[int, int, int]) -> Tensor:
    """Sources of noise in [-1, 1], all of them there: (batch, sources and masks, height, width)."""
    arguments: Any = network.arguments
    generator = torch.Generator().manual_seed(0)
    image = 2 * torch.rand(size[0], arguments["in_channels"], *size[1:], generator=generator) - 1
    image[:, image.shape[1] - arguments["num_masks"] :] = 1
    return image


def _usable_format(kind: str) -> Format:
    """How to write it, where that can be done here."""
    if kind not in FORMATS:
        raise ValueError(unknown_word("format", kind, FORMATS))
    made = FORMATS[kind]
    missing = [name for name in made.packages if find_spec(name) is None]
    if missing:
        raise ImportError(f"{kind} needs {', '.join(missing)}: pip install 'hmf-networks[export]'")
    version = tuple(int(part) for part in torch.__version__.split(".")[:2])
    if made.packages and version < TORCH_FOR_ONNX:
        raise ValueError(f"{kind} needs torch 2.9 or newer, this is {torch.__version__}")
    return made


def _write_torchscript(network: nn.Module, path: Path) -> None:
    torch.jit.save(convert_to_torchscript(network), str(path))


def _tell_torchscript(path: Path, config: ConfigParser, bundle: Path | None) -> None:
    """Put the config inside, and the bundle's metadata where the weights are its own."""
    plain = {key: value for key, value in config.get().items() if key != "_meta_"}
    metadata = bundle and json.loads((bundle / "configs" / "metadata.json").read_text(encoding="utf-8"))
    save_net_with_metadata(
        _open_torchscript(path),
        str(path),
        include_config_vals=False,
        append_timestamp=False,
        meta_values=metadata,
        more_extra_files={"inference.json": json.dumps(plain).encode()},
    )


def _open_torchscript(path: Path) -> Any:
    return torch.jit.load(path)  # type: ignore[no-untyped-call]


def _write_onnx(network: nn.Module, path: Path) -> None:
    names: dict[str, Any] = {"input_names": ["image"], "output_names": ["pred"]}
    names["dynamic_axes"] = {"image": [0, 2, 3]}
    with tempfile.TemporaryDirectory() as folder:  # torch leaves the weights beside it
        file = str(Path(folder) / path.name)
        model = convert_to_onnx(network, [example(network, MADE_AT)], filename=file, use_trace=False, **names)
        path.write_bytes(model.SerializeToString())


def _open_onnx(path: Path) -> Answers:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda image: torch.from_numpy(session.run(["pred"], {"image": image.numpy()})[0])


def _write_openvino(network: nn.Module, path: Path) -> None:
    import openvino

    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.onnx"
        _write_onnx(network, file)
        model = openvino.Core().read_model(file)  # convert_model would report its use to its makers
        openvino.save_model(model, path, compress_to_fp16=False)


def _open_openvino(path: Path) -> Answers:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": torch.get_num_threads(), "INFERENCE_PRECISION_HINT": "f32"}
    model = openvino.Core().compile_model(path, "CPU", settings)
    return lambda image: torch.from_numpy(model({"image": image.numpy()})["pred"])


FORMATS = {
    "torchscript": Format((".ts",), (), _write_torchscript, _open_torchscript),
    "onnx": Format((".onnx",), ("onnx", "onnxscript", "onnxruntime"), _write_onnx, _open_onnx),
    "openvino": Format((".bin", ".xml"), ("onnx", "onnxscript", "openvino"), _write_openvino, _open_openvino),
}


def _seconds(answers: Answers, image: Tensor) -> float:
    """The least of several runs, after one that warms up."""
    answers(image)
    found = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        answers(image)
        found.append(time.perf_counter() - start)
    return min(found)
