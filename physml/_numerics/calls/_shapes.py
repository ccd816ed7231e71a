"""The check of an array's shape against the names of its axes, as jaxtyping writes them."""

from physml._numerics.calls._text import listed

Sizes = dict[str, tuple[tuple[int, ...], str]]
"""By the name of an axis: its length, several for "*batch", and the argument that has it."""


def check_shape(name: str, shape: tuple[int, ...], axes: str, sizes: Sizes) -> None:
    """Compare a shape with the names of its axes, and add the lengths of new ones to `sizes`.

    Raises:
        ValueError: the number of axes is wrong, an axis is empty, or it has another length than in
            an argument before.
    """
    wanted = axes.split()
    lengths = _by_axis(shape, wanted)
    if lengths is not None and (found := _fitting(wanted, lengths, sizes)) is not None:
        sizes |= {axis: (length, name) for axis, length in found.items() if axis not in sizes}
        return
    if not wanted:
        raise ValueError(f"{name} must be a number, got shape {shape}")
    parts = [", ".join(map(str, sizes[x][0])) if x in sizes else x.lstrip("_") for x in wanted]
    text = ", ".join(part for part in parts if part) + "," * (len(wanted) == 1)
    empty = ", not empty" if 0 in shape else ""
    why = _where_from({x: sizes[x] for x in wanted if x in sizes and sizes[x][0]})
    raise ValueError(f"{name} must have shape ({text}){empty}, got shape {shape}{why}")


def _by_axis(shape: tuple[int, ...], wanted: list[str]) -> list[tuple[int, ...]] | None:
    """The length of each axis, several for "*batch" and "..."; None if their number is wrong."""
    several = next((at for at, axis in enumerate(wanted) if axis[0] in "*."), None)
    lengths = [(length,) for length in shape]
    if several is None:
        return lengths if len(shape) == len(wanted) else None
    end = len(shape) - (len(wanted) - several - 1)
    return [*lengths[:several], shape[several:end], *lengths[end:]] if end >= several else None


def _fitting(
    wanted: list[str], lengths: list[tuple[int, ...]], sizes: Sizes
) -> dict[str, tuple[int, ...]] | None:
    """The lengths of the axes that have a name; None if one is empty or has another length."""
    found: dict[str, tuple[int, ...]] = {}
    for axis, length in zip(wanted, lengths, strict=True):
        if 0 in length and axis != "...":
            return None
        word = axis.lstrip("*")
        if axis.isdigit():
            known = (int(axis),)
        elif word.isidentifier() and word[0] != "_":
            known = sizes[axis][0] if axis in sizes else found.setdefault(axis, length)
        else:
            known = length
        if known != length:
            return None
    return found


def _where_from(known: Sizes) -> str:
    """Which arguments have the axes that are known, as in ": truth has time = 4 and dim = 2"."""
    by_argument: dict[str, list[str]] = {}
    for axis, (length, argument) in known.items():
        size = length[0] if len(length) == 1 else length
        by_argument.setdefault(argument, []).append(f"{axis.lstrip('*')} = {size}")
    facts = (f"{argument} has {listed(axes, 'and')}" for argument, axes in by_argument.items())
    return f": {listed(facts, 'and')}" if known else ""
