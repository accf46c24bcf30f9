"""What the launcher says of processes that ended badly."""

from __future__ import annotations

import signal

import pytest
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError, ProcessFailure

from fastmix_mega.cli.launch import _exit_code


@pytest.mark.parametrize(("code", "wanted"), [(-signal.SIGKILL, 137), (75, 75), (1, 1)])
def test_a_killed_rank_is_named_with_what_to_do(
    code: int, wanted: int, capsys: pytest.CaptureFixture[str]
) -> None:
    failure = ProcessFailure(local_rank=3, pid=1, exitcode=int(code), error_file="none")
    assert _exit_code(ChildFailedError("fastmix", {3: failure})) == wanted
    shown = capsys.readouterr().err
    if code < 0:
        assert "rank 3 was killed by SIGKILL; start again to go on from the last" in shown
    else:
        assert shown == ""
