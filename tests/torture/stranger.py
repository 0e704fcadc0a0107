"""All cases written by someone who had the list of codes and had not seen the reader.

    from torture.case import simulated_head, write_files
    from torture.stranger import CASES

    for case in CASES:
        path = write_files(case, simulated_head(), folder)  # then open `path`

(`tests` must be on the path, as it is under pytest.) Where the list of codes leaves room: docs in `case.py`.
"""

from torture.case import Case
from torture.strange_bombs import CASES as BOMBS
from torture.strange_contents import CASES as CONTENTS
from torture.strange_files import CASES as FILES
from torture.strange_headers import CASES as HEADERS
from torture.strange_names import CASES as NAMES

CASES: list[Case] = HEADERS + FILES + CONTENTS + NAMES + BOMBS
