"""What the names of folders and files say: good parts, masks, sides of a split. One rule for everybody.

A name is read as words: ``OK_front``, ``ok front`` and ``OkFront`` are the same two. Nothing is opened here.

=============  ====================================================================================
says           names
=============  ====================================================================================
good           good, ok, normal, pass, negative, defect_free, no_defect, non_defective, ...; words that
               say nothing (part, image, front, numbers) may stand beside them
a mask, as a   ``ground_truth``, ``mask``, ``gt``, ``label``, ``annotation``, ``segmentation``, one or
folder         many; beside the name of a kind it is of that kind: ``scratch_mask``
a mask, as a   the same words after or before the picture's stem: ``001_mask``, ``001_GT``,
file           ``001.mask``, ``001_mask_2``, ``mask_001``
=============  ====================================================================================
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache


def _set(text: str) -> frozenset[str]:
    return frozenset(text.split())


_GOOD_PHRASES = _set(
    "good goods ok oks okay normal normals pass passed passes negative negatives defectfree defectsfree "
    "faultfree faultless flawfree flawless anomalyfree nodefect nodefects nofault nofaults noflaw noflaws "
    "noanomaly noanomalies withoutdefect withoutdefects nondefect nondefective nonanomalous undefective "
    "undamaged intact healthy io"
)
_GOOD_WORDS = _set("good ok okay normal normals pass passed negative free intact healthy")
_NEGATIONS = _set("not no non nok ng un bad ko")
_SAYING_NOTHING = _set(
    "part parts piece pieces product products image images img imgs picture pictures photo photos sample "
    "samples front back top bottom left right side view cam camera train training test testing set data "
    "all only"
)
_DEFECTIVE = _set(
    "bad ng nok ko defect defects defective anomaly anomalies anomalous abnormal fail failed fault faults "
    "faulty positive notok notgood nogood reject rejects rejected nio"
)
STRONG_MASK_WORDS = _set("groundtruth mask masks")
"""Words that name masks and nothing else."""
MASK_WORDS = STRONG_MASK_WORDS | _set(
    "gt gts groundtruths label labels annotation annotations seg segs segmentation segmentations"
)
"""Words that folders and files of masks have in their names."""
IMAGE_WORDS = _set("image images img imgs picture pictures photo photos rgb")
"""Words that folders of images have in their names, and that say nothing of their kind."""
SIDES = {
    "train": "train",
    "training": "train",
    "test": "test",
    "testing": "test",
    "testpublic": "test",
    "validation": "validation",
    "valid": "validation",
    "val": "validation",
    "testprivate": "private",
    "testprivatemixed": "private",
}
"""Sides of a split by a folder's joined words; ``private`` are test sets whose labels nobody has."""

_WORD = r"(?:ground[\s_\-]?truths?|gts?|masks?|labels?|annotations?|seg(?:mentation)?s?)"
_NUMBER = r"(?:[\s_.\-]*\d+)?"
_SUFFIX = re.compile(rf"(?P<stem>.+?)[\s_.\-]+{_WORD}{_NUMBER}$", re.IGNORECASE | re.DOTALL)
_PREFIX = re.compile(rf"{_WORD}[\s_.\-]+(?P<stem>.+)$", re.IGNORECASE | re.DOTALL)
_COUNTED = re.compile(r"(?P<stem>.+)[\s_.\-]+\d+$", re.DOTALL)
_PICTURED = re.compile(r"(?P<stem>.+?)[\s_.\-]+(?:image|img|rgb|photo)$", re.IGNORECASE | re.DOTALL)


@lru_cache(maxsize=65536)
def words_of(name: str) -> tuple[str, ...]:
    """The words of a name, in small letters.

    Example:
        >>> words_of("GOOD_parts"), words_of("DefectFree-2"), words_of("i.O.")
        (('good', 'parts'), ('defect', 'free', '2'), ('i', 'o'))
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name)
    return tuple(word for word in re.split(r"[\W_]+", spaced.lower()) if word)


def joined(name: str) -> str:
    """The words of a name as one, to compare names by.

    Example:
        >>> joined("Ground truth") == joined("ground_truth") == "groundtruth"
        True
    """
    return "".join(words_of(name))


def means_good(name: str) -> bool:
    """Whether a folder's name, or a label, says that parts are normal.

    Example:
        >>> [means_good(n) for n in ("OK", "Normals", "defect_free", "OK_front", "not_ok", "ok_but_dirty")]
        [True, True, True, True, False, False]
    """
    said = [w for w in words_of(name) if w not in _SAYING_NOTHING and not w.isdigit()]
    return "".join(said) in _GOOD_PHRASES


def sounds_good(name: str) -> bool:
    """Whether a name that does not mean good has a word of it, which a person should look at.

    Example:
        >>> sounds_good("ok_but_dirty"), sounds_good("not_ok"), sounds_good("good"), sounds_good("scratch")
        (True, False, False, False)
    """
    words = set(words_of(name))
    return bool(words & _GOOD_WORDS) and not words & _NEGATIONS and not means_good(name)


def means_defective(name: str) -> bool:
    """Whether a folder's name says that parts are defective, without saying of what kind.

    Example:
        >>> means_defective("NG"), means_defective("not ok"), means_defective("scratch")
        (True, True, False)
    """
    return joined(name) in _DEFECTIVE


def masked_kind(name: str) -> str | None:
    """The kind whose masks a folder's name says it holds; None where it says nothing of that sort.

    Example:
        >>> masked_kind("scratch_mask"), masked_kind("GT scratch"), masked_kind("masks"), masked_kind("dent")
        ('scratch', 'scratch', None, None)
    """
    words = words_of(name)
    for length in (2, 1):  # "ground truth" is two words
        for word, rest in ((words[-length:], words[:-length]), (words[:length], words[length:])):
            if rest and "".join(word) in MASK_WORDS:
                return "".join(rest)
    return None


def without_mask_word(stem: str) -> str | None:
    """The stem of the picture that a mask's name speaks of; None where it is no mask's name.

    Example:
        >>> [without_mask_word(s) for s in ("001_mask", "001.GT", "001_Mask_2", "mask_001", "label", "001")]
        ['001', '001', '001', '001', None, None]
    """
    match = _SUFFIX.match(stem) or _PREFIX.match(stem)
    return match["stem"] if match else None


def stems_meant(stem: str) -> Iterator[str]:
    """Stems of pictures that a mask may belong to, the likeliest first; in small letters.

    Example:
        >>> list(stems_meant("Part_3_mask"))
        ['part_3_mask', 'part_3', 'part']
    """
    yield stem.lower()
    plain = without_mask_word(stem)
    if plain is not None:
        yield plain.lower()
    counted = _COUNTED.match(plain or stem)
    if counted:
        yield counted["stem"].lower()


def stems_shown(stem: str) -> tuple[str, ...]:
    """Stems by which masks may call a picture; in small letters.

    Example:
        >>> stems_shown("007_rgb")
        ('007_rgb', '007')
    """
    match = _PICTURED.match(stem)
    return (stem.lower(), match["stem"].lower()) if match else (stem.lower(),)
