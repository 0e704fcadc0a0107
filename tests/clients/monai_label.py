"""Our bundle in MONAI Label: the real server on loopback, asked as 3D Slicer would ask it.

    python tests/clients/monai_label.py [--environment DIR]

Installs MONAI Label 0.8.5 with the pins it needs into DIR (two minutes, some GB, once), packs the bundle,
starts the server over a folder with T1 and FLAIR of a simulated patient, and holds its answers to what
`hmf synthesize` writes. Ends with 0 where all is as it should be.
"""

import argparse
import contextlib
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from email.parser import BytesParser
from pathlib import Path

import nibabel
import numpy as np
from environment import python_with
from hmf_networks.bundles.find import bundle_root
from hmf_networks.bundles.pack import NAME, pack
from hmf_networks.cli import main as hmf

HERE = Path(__file__).parent
PINS = [
    *("torch==2.13.0", "monai==1.6.1", "monailabel==0.8.5", "torchvision==0.28.0"),
    *("pydicom==2.4.4", "pynetdicom==2.0.2", "dicomweb-client==0.59.1"),
]
SECONDS_TO_START = 180
TOLERANCE = 0.01  # of 1000: float32 written and read


@contextlib.contextmanager
def server(python: Path, work: Path, studies: Path) -> Iterator[str]:
    """Its address, from when it answers."""
    app = work / "monaibundle"
    samples = python.parent.parent / "monailabel" / "sample-apps" / "monaibundle"
    shutil.copytree(samples, app)
    shutil.copytree(work / NAME, app / "model" / NAME)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [python, HERE / "monai_label_server.py", "start_server", "--app", app, "--studies", studies]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for key, value in {"models": NAME, "zoo_source": "github", "sam2": "false", "skip_trainers": "true"}.items():
        command += ["--conf", key, value]
    environment = {**os.environ, "PATH": f"{python.parent}:{os.environ['PATH']}", "PYTHONPATH": ""}
    log = (work / "server.log").open("wb")
    process = subprocess.Popen(command, cwd=work, env=environment, stdout=log, stderr=log)
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + SECONDS_TO_START
        while time.monotonic() < deadline and process.poll() is None:
            with contextlib.suppress(OSError):
                urllib.request.urlopen(f"{address}/info/", timeout=5).read()
                break
            time.sleep(1)
        else:
            raise SystemExit(f"the server does not answer: {(work / 'server.log').read_text()[-3000:]}")
        yield address
    finally:
        process.terminate()
        process.wait()
        log.close()


def infer(address: str, image: str, **params: object) -> tuple[int, bytes, dict[str, object]]:
    """Status, the volume's bytes (or the words of an error), the parameters that come with it."""
    boundary = uuid.uuid4().hex
    field = f'Content-Disposition: form-data; name="params"\r\n\r\n{json.dumps(params)}'
    body = f"--{boundary}\r\n{field}\r\n--{boundary}--\r\n"
    request = urllib.request.Request(
        f"{address}/infer/{NAME}?{urllib.parse.urlencode({'image': image, 'output': 'all'})}",
        data=body.encode(),
        headers={"Content-Type": f"multipart/form-data; boundary={boundary}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=600) as answer:
            content, kind = answer.read(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        return error.code, error.read(), {}
    message = BytesParser().parsebytes(f"Content-Type: {kind}\r\n\r\n".encode() + content)
    parts = {part.get_param("name", header="content-disposition"): part for part in message.get_payload()}
    told = json.loads(parts["params"].get_payload(decode=True))
    return 200, parts["image"].get_payload(decode=True), told


def values(content: bytes) -> np.ndarray:
    import gzip

    with contextlib.suppress(gzip.BadGzipFile):
        content = gzip.decompress(content)
    image = nibabel.Nifti1Image.from_bytes(content)
    return nibabel.as_closest_canonical(image).get_fdata(dtype=np.float32)


def check(name: str, is_well: bool, found: object) -> bool:
    print(f"{'ok    ' if is_well else 'FAILED'} {name}: {found}", flush=True)
    return is_well


def checks(python: Path, work: Path) -> Iterator[bool]:
    pack(work, bundle_root())
    hmf(["simulate", str(work / "all"), "--subjects", "1", "--spacing", "2"])
    studies = work / "studies"
    studies.mkdir()
    for name in ("t1n", "t2f"):
        (scan,) = (work / "all").rglob(f"*-{name}.nii.gz")
        shutil.copy(scan, studies)
    t1, flair = (next(studies.glob(f"*-{name}.nii.gz")) for name in ("t1n", "t2f"))
    hmf(["synthesize", str(studies), str(work / "out"), "--target", "t2", "--no-preview"])
    (written,) = (work / "out").rglob("*_t2_synth.nii.gz")
    wanted = nibabel.as_closest_canonical(nibabel.load(written)).get_fdata(dtype=np.float32)
    images = [nibabel.load(path) for path in (t1, flair)]
    both = np.stack([image.get_fdata(dtype=np.float32) for image in images], axis=3)
    nibabel.save(nibabel.Nifti1Image(both, images[0].affine), work / "both_t1_flair.nii.gz")
    lonely = work / "elsewhere" / "scan.nii.gz"
    lonely.parent.mkdir()
    shutil.copy(t1, lonely)

    with server(python, work, studies) as address:
        info = json.load(urllib.request.urlopen(f"{address}/info/"))
        model = info["models"][NAME]
        yield check("/info", list(model["labels"]) == ["t1", "t1c", "t2", "flair", "pd"], model["labels"])
        yield check("weights to pick", model["config"]["model_filename"] == ["model.pt"], model["config"])
        identity = t1.name.removesuffix(".nii.gz")
        answers = {
            "a study of two files": infer(address, identity, target="t2"),
            "no target named": infer(address, identity),
            "an absolute path": infer(address, str(flair), target="t2"),
            "a 4-D file": infer(address, str(work / "both_t1_flair.nii.gz"), target="t2"),
            "files named": infer(address, str(lonely), t1=str(t1), flair=str(flair), target="t2"),
        }
        for name, (status, content, _) in answers.items():
            yield check(name, status == 200, status if status == 200 else content[:300])
            if status == 200:
                difference = np.abs(values(content) - wanted).max()
                yield check(f"{name}, from `hmf synthesize`", bool(difference < TOLERANCE), difference)
        status, content, _ = infer(address, str(lonely))
        yield check("a file of no known contrast", 400 <= status < 600 and b"say so" in content, content[:200])
        status, content, _ = infer(address, str(t1), target="swi")
        yield check("an unknown target", 400 <= status < 600 and b"swi" in content, content[:200])
        targets = ("t2", "pd", "t2", "pd")
        alone = {target: values(infer(address, identity, target=target)[1]) for target in set(targets)}
        with ThreadPoolExecutor(len(targets)) as pool:
            several = list(pool.map(lambda target: infer(address, identity, target=target)[1], targets))
        same = all((values(content) == alone[target]).all() for target, content in zip(targets, several, strict=True))
        yield check("four at once", same and (alone["t2"] != alone["pd"]).any(), "each the voxels of its target")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--environment", type=Path, default=Path("build/clients/monai_label"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        python = python_with(options.environment.absolute(), PINS, options=())
        results = list(checks(python, Path(folder)))
    print(f"{sum(results)} of {len(results)} as they should be")
    return 0 if all(results) else 1


if __name__ == "__main__":
    raise SystemExit(main())
