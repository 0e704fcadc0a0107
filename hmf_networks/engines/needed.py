"""What weights need of a config, as the model.json beside them tells. Weights come from strangers."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hmf_networks.engines.weights import load_weights, what_for
from hmf_networks.naming import CONTRASTS
from monai.bundle import ConfigParser
from torch import nn

NETWORK = "HMFMambaINR"
NEEDED = ("sources", "targets", "any_subset", "pixel_mm", "foreground_box", "plane", "plane_size")
NO_CONFIG = "config file {} is not there; name the folder of the bundle (--bundle)"


def needed_by(weights: Path, target: str | None = None) -> dict[str, Any]:
    """Config keys for these weights; "target" where it is asked for, or the only one.

    Raises:
        ValueError: they do not make it, or their model.json holds what a config would execute.
    """
    about = what_for(weights)
    if "target" in about:  # of a version that knew fixed tasks only
        about = {"targets": [about["target"]], "any_subset": False, **about}
    needed = {key: about[key] for key in NEEDED if key in about}
    for part in _alive([needed, about.get("network")]):
        raise ValueError(
            f"{weights.with_suffix('.json')} holds {part!r}, which a config would execute; do not use them"
        )
    if isinstance(about.get("network"), dict) and about.get("network_class") == NETWORK:
        needed["network_def"] = {**about["network"], "_target_": f"hmf_networks.nets.{NETWORK}"}
    targets = needed.get("targets", CONTRASTS)
    if target is None and not needed.get("any_subset", True) and len(targets) == 1:
        target = targets[0]
    if target is not None and target not in targets:
        sources = ", ".join(needed.get("sources", CONTRASTS))
        raise ValueError(f"{weights} makes {', '.join(targets)} from {sources}, not {target}; see --weights")
    return needed if target is None else {**needed, "target": target}


def network_with(bundle: Path, weights: Path) -> tuple[nn.Module, ConfigParser]:
    """The network of these weights, ready to be asked, and the inference.json that goes with it.

    Raises:
        ValueError, OSError: no such bundle or weights, or they do not belong to what model.json tells.
    """
    path, config = bundle / "configs" / "inference.json", ConfigParser()
    if not path.is_file():
        raise FileNotFoundError(NO_CONFIG.format(path))
    config.read_config(path)
    for key, value in needed_by(weights).items():
        config[key] = value
    network: nn.Module = config.get_parsed_content("network_def")
    load_weights(network, str(weights), config.get_parsed_content("task"))
    return network.eval(), config


def _alive(content: Any) -> Iterator[str]:
    """What MONAI's config parser takes for more than data: expressions, references, macros, its own keys."""
    if isinstance(content, str):
        if any(sign in content for sign in "$@%#") or "::" in content:
            yield content
    elif isinstance(content, dict):
        yield from (key for key in content if key.startswith("_"))
        for part in (*content, *content.values()):
            yield from _alive(part)
    elif isinstance(content, list):
        for part in content:
            yield from _alive(part)
