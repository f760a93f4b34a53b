"""Which category of a data set is meant."""

from __future__ import annotations

from pathlib import Path

from nfbmr.errors import DataError
from nfbmr.fields import suggestion


def category_named(category: str | None, known: tuple[str, ...], where: Path) -> str:
    """The name of a category as it is spelled.

    Raises:
        DataError: None is named, or there is none of that name.
    """
    if category is None:
        raise DataError(
            f"the folder holds {len(known)} categories and none is named"
            if where.is_dir()
            else f"the file holds {len(known)} categories and none is named",
            where=where,
            fix=f"name one with --category (data.category), or all: {', '.join(known)}",
        )
    by_lower = {k.lower(): k for k in known}
    if category.lower() in by_lower:
        return by_lower[category.lower()]
    listed = f"there are: {', '.join(known)}"
    if category == "all":
        raise DataError(
            "one data set at a time is read here, and all categories are asked for",
            where=where,
            fix=f"name one; nfbmr train and nfbmr compare go over all. {listed}",
        )
    hint = suggestion(category, known)
    raise DataError(f"no category {category!r}", where=where, fix=f"{hint} {listed}".lstrip())
