"""What the name of a series says of its contrast: English, German and French, with the vendors' own words."""

import re

SPLITS = (  # sT1W, AxT2, 3DT1, SAGT1, PDT2: a word begins where the contrast does
    re.compile(r"(?<=[a-z])(?=(?:T[12]|PD|FLAIR))"),
    re.compile(r"(?<=ax|ag|or|ra|3d|2d|pd)(?=t[12]|pd|flair)", re.IGNORECASE),
)
CONTRASTS = {
    "t1": r"t1(?!\d)|mp ?rage|bravo|f?spgr|vibe|thrive|tfl(?!\d)|lava",
    "t2": r"t2(?!\d)",
    "pd": r"pd(?=$|[ +w])|dp(?= |$)|proton",
    "flair": r"flair|dark ?fluid|tirm",
}
FOREIGN = {
    "fat suppressed by inversion (STIR)": r"stir(?![a-z])",
    "T2*": r"t2w? ?(\*|star|gre|ffe|fl2d|fl3d|fl(?= |$))|ha?emo(?= |$)|medic(?= |$)|merge(?= |$)",
    "double inversion": r"dir(?= |$)|double ?(inversion|ir)",
    "phase sensitive inversion": r"psir",
    "a balanced gradient echo": r"ciss|fiesta|trufi|b ?ffe|b ?tfe|drive 3d",
    "the second inversion of MP2RAGE": r"inv ?2(?!\d)",
    "the first inversion of MP2RAGE": r"inv ?1(?!\d)",
    "a map": r"t[12] ?(map|rho)",
}
BEFORE = (
    r"pre(?! ?op)(?= |$)|pre ?(contrast|gd|gad|gado|km|kontrast)|native?(?= |$)|(ohne|o|vor) ?km"
    r"|without|sans|w ?o(?= |$)|non? ?(contrast|gd|gad|ce)|unenhanced|c-(?= |$)|-c(?= |$)|-(gd|gad|km)(?= |$)"
)
AFTER = (
    r"post(?! ?op)(?= |$|[cgk])|\+ ?(c|ce|gd|gad|gado|km)(?= |$)|c\+|gd(?= |$|\+)|gad(?= |$)|gado[a-z]*|km(?= |$)"
    r"|ce(?= |$)|contrast|kontrast|dotarem|gadovist|magnevist|multihance|prohance|clariscan"
    r"|inj(?= |$)|injection|enhanced"
)
T1_AFTER = r"t1w?i?\+?(c|ce|gd|gad|km|post)(?= |$)"  # T1C, T1CE, T1wGd; in "T1 C" it may be the C spine


def contrasts_by_name(name: str) -> frozenset[str]:
    """All that it names: a double echo is called "PD+T2"; empty where it says nothing."""
    words = _words(name)
    found = {contrast for contrast, pattern in CONTRASTS.items() if _has(pattern, words)}
    if "flair" in found:  # T1 FLAIR is a T1, T2 FLAIR is a FLAIR
        return frozenset({"t1"} if "t1" in found and "t2" not in found else {"flair"})
    return frozenset(found)


def foreign_by_name(name: str) -> str:
    """A contrast that is none of ours, in words; "" for none."""
    words = _words(name)
    return next((what for what, pattern in FOREIGN.items() if _has(pattern, words)), "")


def agent_by_name(name: str) -> bool | None:
    """After contrast agent, before it, or not said."""
    words = _words(name)
    if _has(BEFORE, words):
        return False
    return True if _has(AFTER, words) or _has(T1_AFTER, words) else None


def _words(name: str) -> str:
    """Lower case, one space between words; +, - and * stay where they touch a word, for "+C", "C-" and "T2*"."""
    for split in SPLITS:
        name = split.sub(" ", name)
    name = re.sub(r"(?<=\w)-(?=\w)", " ", name.lower())  # dark-fluid
    return re.sub(r"[^a-z0-9+*-]+|_+", " ", name).strip()


def _has(pattern: str, words: str) -> bool:
    return re.search(rf"(?<![a-z0-9])(?:{pattern})", words) is not None
