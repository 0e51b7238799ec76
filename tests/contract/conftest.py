"""The benches, as fixtures: each test of the suite runs on numbers and on this machine's kernel."""

import functools

import pytest

from tests.contract.benches import Fixture, KernelBench, SimulatedBench, why_no_kernel

why_no_kernel = functools.cache(why_no_kernel)


@pytest.fixture(params=["simulated", pytest.param("kernel", marks=pytest.mark.kernel)])
def world(request):
    """Steps on one host; nothing of it is left afterwards."""
    if request.param == "kernel":
        if reason := why_no_kernel():
            pytest.skip(f"no cgroups to test on: {reason}")
        bench = KernelBench()
    else:
        bench = SimulatedBench()
    try:
        yield Fixture(bench)
    finally:
        bench.close()


@pytest.fixture
def kernel():
    """Steps on this machine's kernel, for what numbers do not have."""
    if reason := why_no_kernel():
        pytest.skip(f"no cgroups to test on: {reason}")
    bench = KernelBench()
    try:
        yield Fixture(bench)
    finally:
        bench.close()
