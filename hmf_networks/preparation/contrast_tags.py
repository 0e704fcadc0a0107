"""Which contrast a series is: its times and pulses say, and its name must not contradict them.

Times in ms. The bounds lie between what protocols of 1.5 and 3 T use, not at the edge of either; what lies between
them is left to the name of the series; where that is silent or says otherwise, nothing is guessed and the user names
it with `--series T1=...`.
"""

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from hmf_networks.preparation.contrast_words import agent_by_name, contrasts_by_name, foreign_by_name
from hmf_networks.preparation.dicom_headers import numbers_in, words_in

SHORT_TE, LONG_TE = 40.0, 60.0  # PD and T1 below, T2 above
T1_TE = 30.0  # of a spin echo
T1_TR, LONG_TR = 1300.0, 1800.0
GRADIENT_TE = 12.0  # longer ones are T2*
STIR_TI, FLAIR_TI = 400.0, 1500.0  # fat is nulled below, fluid above
GRADIENT_TR = 100.0  # where no tag names the pulses: no spin echo is faster
NO_AGENT = re.compile(r"|no|none|n|n/?a|0|nein|non|ohne|without|w/?o|unknown|not .*|no .*", re.IGNORECASE)
ACQUIRED = {"T1": "t1", "T2": "t2", "PROTON_DENSITY": "pd", "FLUID_ATTENUATED": "flair"}  # AcquisitionContrast
FOREIGN = {"STIR": "fat suppressed by inversion (STIR)", "T2_STAR": "T2*"}
ASK = "say which it is with --series"


class Guess(NamedTuple):
    """A contrast and why, or None and why not."""

    contrast: str | None
    reason: str
    is_final: bool = False  # none of ours by its times: no name makes it one


def contrast_of(values: Mapping[str, Any]) -> Guess:
    """From tags, by DICOM keyword, as `dicom_headers` gives them."""
    name = " ".join(words_in(values, "SeriesDescription") + words_in(values, "ProtocolName"))
    foreign = foreign_by_name(name) or FOREIGN.get(" ".join(words_in(values, "AcquisitionContrast")), "")
    if foreign:
        return Guess(None, f"{foreign} is none of the contrasts")
    has_time = _number(values, "InversionTime") > 0
    guess = _agreed(_by_times(values), contrasts_by_name(name), has_inversion_time=has_time)
    return _with_agent(values, name, guess) if guess.contrast == "t1" else guess


def has_agent(values: Mapping[str, Any]) -> bool:
    """Whether the tags speak of a contrast agent; some scanners fill in that there was none."""
    return not NO_AGENT.fullmatch(" ".join(words_in(values, "ContrastBolusAgent")))


def _number(values: Mapping[str, Any], keyword: str) -> float:
    """0 where it is missing: no time is 0."""
    numbers = numbers_in(values, keyword)
    return float(numbers[0]) if len(numbers) else 0.0


def _by_times(values: Mapping[str, Any]) -> Guess:
    tr, te, ti = (_number(values, f"{word}Time") for word in ("Repetition", "Echo", "Inversion"))
    if not tr or not te:
        acquired = ACQUIRED.get(" ".join(words_in(values, "AcquisitionContrast")))
        return Guess(acquired, "tag AcquisitionContrast" if acquired else "its tags have no repetition or echo time")
    pulses = set(words_in(values, "ScanningSequence"))
    is_gradient = "SE" not in pulses and ("GR" in pulses or tr < GRADIENT_TR)
    times = f"TR {tr:g}, TE {te:g}" + (f", TI {ti:g} ms" if ti else " ms")
    if is_gradient:
        is_prepared = "IR" in pulses or "MP" in words_in(values, "SequenceVariant")
        return _gradient_echo(te, ti, is_prepared, times)
    if ti:
        return _inverted(te, ti, times)
    if "IR" in pulses:
        return Guess(None, f"inversion recovery without its inversion time ({times})")
    return _spin_echo(tr, te, times)


def _gradient_echo(te: float, ti: float, is_prepared: bool, times: str) -> Guess:
    if te > GRADIENT_TE:
        return Guess(None, f"gradient echo with {times}: T2*", is_final=True)
    if (ti and ti < FLAIR_TI) or (is_prepared and not ti):
        return Guess("t1", f"prepared gradient echo, {times}")
    return Guess(None, f"gradient echo without preparation ({times}): T1 or angiography")


def _inverted(te: float, ti: float, times: str) -> Guess:
    if ti < STIR_TI:
        return Guess(None, f"inversion recovery with {times}: STIR", is_final=True)
    if ti >= FLAIR_TI and te >= LONG_TE:
        return Guess("flair", f"inversion recovery, {times}")
    if ti < FLAIR_TI and te <= SHORT_TE:
        return Guess("t1", f"inversion recovery, {times}")
    return Guess(None, f"inversion recovery with {times}: between the contrasts")


def _spin_echo(tr: float, te: float, times: str) -> Guess:
    if tr <= T1_TR and te <= T1_TE:
        return Guess("t1", f"spin echo, {times}")
    if tr >= LONG_TR and te >= LONG_TE:
        return Guess("t2", f"spin echo, {times}")
    if tr >= LONG_TR and te <= SHORT_TE:
        return Guess("pd", f"spin echo, {times}")
    return Guess(None, f"spin echo with {times}: between the contrasts")


def _agreed(times: Guess, named: frozenset[str], *, has_inversion_time: bool) -> Guess:
    """What times and name say together. Tags of FLAIR without its inversion time look like T2."""
    if times.contrast == "t2" and named == {"flair"} and not has_inversion_time:
        return Guess("flair", f"its name; {times.reason}")
    if times.contrast and named and times.contrast not in named:
        told = " or ".join(sorted(named))
        return Guess(None, f"a {times.contrast} by its tags ({times.reason}), a {told} by its name: {ASK}")
    if times.contrast:
        return times
    if len(named) == 1 and not times.is_final:
        return Guess(next(iter(named)), f"its name; {times.reason}")
    return Guess(None, f"{times.reason}: {ASK}")


def _with_agent(values: Mapping[str, Any], name: str, t1: Guess) -> Guess:
    """T1 before or after contrast agent. A tag may be left over from the series before, so a name can object."""
    by_name, by_tag = agent_by_name(name), has_agent(values)
    if by_name is False and by_tag:
        return Guess(None, f"T1 after contrast agent by its tags, before it by its name: {ASK}")
    if by_name or by_tag:
        return Guess("t1c", f"{t1.reason}; contrast agent by its {'tags' if by_tag else 'name'}")
    return t1
