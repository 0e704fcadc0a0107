"""Files to torment a reader of NIfTI with, each with the verdict it must get."""
