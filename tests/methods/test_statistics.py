"""What closed-form stages keep."""

from __future__ import annotations

import torch

from nfbmr.methods.statistics import MemoryBank


def test_a_bank_lies_in_memory_as_it_will_when_it_is_loaded() -> None:
    """Products with matrices by columns, as LAPACK gives them, are four times slower and round otherwise."""
    generator = torch.Generator().manual_seed(0)
    factor_PDD = torch.linalg.cholesky(torch.eye(4).expand(3, 4, 4) * 2)
    whitening_PDD = torch.linalg.solve_triangular(factor_PDD, torch.eye(4).expand(3, 4, 4), upper=False)
    assert not whitening_PDD.is_contiguous()
    bank = MemoryBank(whitening_PDD=torch.zeros(0))
    bank.put(whitening_PDD=whitening_PDD)
    again = MemoryBank(whitening_PDD=torch.zeros(0))
    again.load_state_dict({name: tensor.contiguous() for name, tensor in bank.state_dict().items()})
    assert bank.tensor("whitening_PDD").stride() == again.tensor("whitening_PDD").stride()
    x_PD1 = torch.randn(3, 4, 1, generator=generator)
    assert torch.equal(bank.tensor("whitening_PDD") @ x_PD1, again.tensor("whitening_PDD") @ x_PD1)
