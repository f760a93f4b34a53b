"""Which picture of one set is most like a picture of another, and how like are strangers of the set.

Candidates are looked up by coarse structure under all views, sorted by the correlation of details at 64 x 64,
and laid on the test picture one by one. Since parts of one kind may hide the twin (all of them lie in the
same place and look the same), the view so found is used to look up once more by what is left when the set's
mean is taken away.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray

from nfbmr.data.fingerprints import SIDE, Field, Fingerprint, bands, spectrum
from nfbmr.data.registration import (
    COARSE,
    NEAR,
    NONE,
    Agreement,
    View,
    coarse_match,
    laid_on,
    sampling,
    views,
    warped,
)

_SHORTLIST = 12
_LAID_ON = 3
_SECOND_ROUND = 256
LEAST_LIKENESS = 0.2
"""Of what is left of two pictures: strangers among a thousand come up to this by chance."""

_LOWEST = 12
_CERTAIN = 0.8
_NULL_PAIRS = 48
_NULL_RANK = 24
_BANDS_KEPT = 1024


@dataclass(frozen=True, slots=True)
class Found:
    """The training picture that agrees best with a test picture, and where the one lies in the other."""

    index: int
    agreement: Agreement
    view: View


class Matcher:
    """Fingerprints of a training side, ready to be searched."""

    def __init__(self, train: Sequence[Fingerprint]) -> None:
        self.train = train
        plain = slice(_plain() * COARSE * COARSE, (_plain() + 1) * COARSE * COARSE)
        maps_PN = np.stack([taken.map_MM.ravel() for taken in train], axis=1)
        shown_ND = np.asarray((sampling()[plain] @ maps_PN).T, np.float32)
        self._mean_D = shown_ND.mean(axis=0) if len(train) > 1 else np.zeros_like(shown_ND[0])
        self._coarse_ND = _unit(shown_ND - self._mean_D)
        self._spectrum_NSF = np.stack([spectrum(taken.detail_SS) for taken in train])
        mean_SF = self._spectrum_NSF.mean(axis=0) if len(train) > 2 else 0 * self._spectrum_NSF[0]
        self._common_SF = mean_SF
        self._rest_NSF = _unit_spectra(self._spectrum_NSF - mean_SF)
        self._rest_low_NLF = _low(self._rest_NSF)
        self._bands = lru_cache(_BANDS_KEPT)(lambda index: bands(train[index]))

    def best(self, test: Fingerprint) -> Found | None:
        """The training picture that agrees in most places; None where nothing could be compared."""
        order, shown_as = self._looked_up(test)
        ranked = self._ranked(test, order[:_SHORTLIST], shown_as)
        test_bands = bands(test)
        best: Found | None = None
        hidden: View | None = None
        for _, index, view in ranked[:_LAID_ON]:
            laid, agreement = laid_on(test_bands, self._bands(index), view)
            if best is None or best.agreement is NONE or agreement.worst > best.agreement.worst:
                best = Found(index, agreement, laid)
                # Where no contours meet, no twin is hidden among parts that look the same.
                hidden = None if agreement is NONE else laid
        if best is None or best.agreement.worst > _CERTAIN:
            return best
        for index, view in self._second_round(test, hidden, order[:_SECOND_ROUND]):
            laid, agreement = laid_on(test_bands, self._bands(index), view, exact=True)
            if best.agreement is NONE or agreement.worst > best.agreement.worst:
                best = Found(index, agreement, laid)
        return best

    def strangers(self, tests: Sequence[Fingerprint], seed: int) -> list[tuple[int, Found]]:
        """Pictures that are alike, but not most alike: they show what this set's parts have in common.

        Of some test pictures, the one is taken that is 24th among their candidates, which is no twin even
        where each part was photographed a dozen times.
        """
        rng = random.Random(f"audit {seed}")
        pairs: list[tuple[int, Found]] = []
        for row in rng.sample(range(len(tests)), min(_NULL_PAIRS, len(tests))):
            test = tests[row]
            order, shown_as = self._looked_up(test)
            index = order[min(_NULL_RANK, len(order) // 2)]
            _, view = coarse_match(test, views()[shown_as[index]], self._spectrum_NSF[index])
            laid, agreement = laid_on(bands(test), self._bands(index), view)
            pairs.append((row, Found(index, agreement, laid)))
        return pairs

    def _looked_up(self, test: Fingerprint) -> tuple[list[int], NDArray[np.intp]]:
        """Training pictures by coarse likeness, best first, and the view under which each is most alike."""
        seen_VD = (sampling() @ test.map_MM.ravel()).reshape(-1, COARSE * COARSE)
        shown_VD = _unit(np.asarray(seen_VD, np.float32) - self._mean_D)
        likeness_VN = shown_VD @ self._coarse_ND.T
        order = np.argsort(-likeness_VN.max(axis=0), kind="stable")
        return [int(i) for i in order], likeness_VN.argmax(axis=0)

    def _ranked(
        self, test: Fingerprint, order: Sequence[int], shown_as: NDArray[np.intp]
    ) -> list[tuple[float, int, View]]:
        ranked = []
        for index in order:
            likeness, view = coarse_match(test, views()[shown_as[index]], self._spectrum_NSF[index])
            ranked.append((likeness, index, view))
        return sorted(ranked, key=lambda r: (-r[0], r[1]))

    def _second_round(
        self, test: Fingerprint, view: View | None, among: Sequence[int]
    ) -> list[tuple[int, View]]:
        """The most alike when the set's mean is taken away: under a view, under none, and under their turns.

        Under the view itself shifts of a few pixels are tried; of the others, since a part that is as good as
        symmetric hides which way it lies, single pixels.
        """
        matches = [*self._turned(test, views()[_plain()])]
        if view is not None:
            matches += [*self._shifted(test, view, among), *self._turned(test, view)]
        matches = sorted((f for f in matches if f[0] >= LEAST_LIKENESS), key=lambda f: -f[0])
        unlike: dict[int, View] = {}
        for _, index, seen in matches:
            unlike.setdefault(index, seen)
        return list(unlike.items())[: 2 * _LAID_ON]

    def _shifted(
        self, test: Fingerprint, view: View, among: Sequence[int]
    ) -> Iterator[tuple[float, int, View]]:
        from scipy.fft import irfft2

        seen_SF = _unit_spectra((spectrum(_seen(test, view)) - self._common_SF)[None])[0]
        near = np.r_[0 : NEAR + 1, SIDE - NEAR : SIDE]
        found_NSS = irfft2(seen_SF.conj() * self._rest_NSF[among], s=(SIDE, SIDE))
        near_NRR = found_NSS[:, near[:, None], near].reshape(len(among), -1)
        for place in np.argsort(-near_NRR.max(axis=1), kind="stable")[:_LAID_ON]:
            y, x = divmod(int(near_NRR[place].argmax()), len(near))
            shift_2 = np.array([(near[i] + SIDE // 2) % SIDE - SIDE // 2 for i in (y, x)])
            yield float(near_NRR[place].max()), among[int(place)], view.moved(shift_2 / SIDE)

    def _turned(self, test: Fingerprint, base: View) -> Iterator[tuple[float, int, View]]:
        """All turns by quarters and mirrorings of what a view shows, over all training pictures."""
        shown_SS = _seen(test, base)
        turns = [
            View(quarters, mirrored, base.matrix_23) for mirrored in (False, True) for quarters in range(4)
        ]
        seen_TSF = np.stack([spectrum(turn.turned(shown_SS)) for turn in turns])
        seen_TSF = _unit_spectra(seen_TSF - self._common_SF)
        likeness_TMN = _products(_low(seen_TSF)[:, None] * _small_moves(), self._rest_low_NLF)
        best_TN = likeness_TMN.max(axis=1)
        for turn, row_N, moves_MN in zip(turns, best_TN, likeness_TMN, strict=True):
            index = int(row_N.argmax())
            y, x = divmod(int(moves_MN[:, index].argmax()), 3)
            turned = View(base.quarters, base.mirrored, base.matrix_23 @ turn.coordinates())
            yield float(row_N[index]), index, turned.moved(np.array([y - 1.0, x - 1.0]) / SIDE)


def _seen(test: Fingerprint, view: View) -> Field:
    return warped(view.turned(test.detail_SS), view.matrix_23, (SIDE, SIDE), 0.0)


def _low(values_NSF: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """The frequencies below `LOWEST`, of norm 1: enough to tell pictures apart, and shifts matter less."""
    rows = np.r_[0:_LOWEST, SIDE - _LOWEST + 1 : SIDE]
    low_NLF = np.ascontiguousarray(values_NSF[:, rows, :_LOWEST])
    halves_F = np.full(_LOWEST, 2.0)
    halves_F[0] = 1
    norm_N = np.sqrt((np.abs(low_NLF) ** 2 * halves_F).sum(axis=(1, 2))) / SIDE
    return np.asarray(low_NLF / np.maximum(norm_N, 1e-3)[:, None, None], np.complex64)


@cache
def _small_moves() -> NDArray[np.complex64]:
    """Factors (9, L, F) that move a low spectrum's picture by at most a pixel, rows first."""
    x_F = np.arange(_LOWEST) / SIDE
    y_L = np.r_[0:_LOWEST, 1 - _LOWEST : 0][:, None] / SIDE
    moves = [np.exp(-2j * np.pi * (dy * y_L + dx * x_F)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    return np.stack(moves).astype(np.complex64)


def _products(a_TMLF: NDArray[np.complex64], b_NLF: NDArray[np.complex64]) -> Field:
    """Scalar products of the pictures of low spectra, (T, M, N)."""
    halves_F = np.full(_LOWEST, 2.0, np.float32)
    halves_F[0] = 1
    weighted = np.ascontiguousarray(a_TMLF * (halves_F / SIDE**2), np.complex64)
    flat_TMK = weighted.view(np.float32).reshape(*a_TMLF.shape[:2], -1)
    return np.asarray(flat_TMK @ b_NLF.view(np.float32).reshape(len(b_NLF), -1).T)


@cache
def _plain() -> int:
    """The view that shows a picture as it is."""
    same = np.eye(3)[:2]
    return next(
        i for i, v in enumerate(views()) if not (v.quarters or v.mirrored) and (v.matrix_23 == same).all()
    )


def _unit(values_ND: Field) -> Field:
    norm_N1 = np.linalg.norm(values_ND, axis=-1, keepdims=True)
    return np.asarray(values_ND / np.maximum(norm_N1, 1e-6), np.float32)


def _unit_spectra(values_NSF: NDArray[np.complex64]) -> NDArray[np.complex64]:
    """Of norm 1 as pictures are, or 0 where nothing is left."""
    halves_F = np.full(SIDE // 2 + 1, 2.0)
    halves_F[[0, -1]] = 1
    norm_N = np.sqrt((np.abs(values_NSF) ** 2 * halves_F).sum(axis=(1, 2))) / SIDE
    return np.asarray(values_NSF / np.maximum(norm_N, 1e-4)[:, None, None], np.complex64)
