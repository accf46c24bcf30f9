"""What stands in for megatron-core's own on the CPU gives the same numbers."""

from __future__ import annotations

import pytest
import torch

from fastmix_mega.parallel.cpu import _logits_max


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_maxima_of_logits_are_bit_for_bit_megatrons(dtype: torch.dtype) -> None:
    logits = torch.randn(7, 3, 515, generator=torch.Generator().manual_seed(1)).to(dtype)
    logits[0, 0, 5], logits[1, 1, 7], logits[2, 2] = torch.nan, torch.inf, -torch.inf
    given, maxima = _logits_max(logits)
    torch.testing.assert_close(given, logits.float(), rtol=0, atol=0, equal_nan=True)
    expected = torch.max(logits.float(), dim=-1)[0]
    torch.testing.assert_close(maxima, expected, rtol=0, atol=0, equal_nan=True)
    # The loss works in place: fp32 logits are no copy.
    assert (given.data_ptr() == logits.data_ptr()) == (dtype == torch.float32)
