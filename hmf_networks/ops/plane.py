"""What planes a network takes, told in one line when it gets another."""


def check_plane(height: int, width: int, multiple: int, smallest_side: int = 1) -> None:
    """Raise ValueError unless both sides are multiples of `multiple` and no shorter than `smallest_side`, in pixels."""
    if min(height, width) < smallest_side or height % multiple != 0 or width % multiple != 0:
        least = f", at least {smallest_side}" if smallest_side > multiple else ""
        raise ValueError(f"plane of {height} x {width} pixels: pad both sides to a multiple of {multiple}{least}")
