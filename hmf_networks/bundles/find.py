"""Where the bundle lies that goes with this package."""

from pathlib import Path

import hmf_networks

PACKAGE = Path(hmf_networks.__file__).parent
PLACES = (PACKAGE.parent / "bundle", PACKAGE / "bundle", PACKAGE.parent)  # checkout, wheel, packed folder


def bundle_root() -> Path:
    """The folder with `configs`, `models` and `docs`.

    Raises:
        FileNotFoundError: there is none, as where the package was unpacked alone.
    """
    for place in PLACES:
        if (place / "configs" / "inference.json").is_file():
            return place
    raise FileNotFoundError(
        f"no bundle goes with the package in {PACKAGE}; name its folder (--bundle), or install the wheel"
    )
