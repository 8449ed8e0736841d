"""The two formats that are packed here, read back by the official package."""

from __future__ import annotations

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Kind

from distill.release.kquants import quantise

# What ggml's own quantize_row_q4_K_ref and quantize_row_q6_K_ref give for `wave()`, as hexadecimal.
GGML = {
    Kind.Q4_K: (
        "de162c22fefffffcfffdfefecfdcfffea0156bc1278cd3489e045ab0167bc2378de349ae056ab1267cd2389de459af15268c"
        "e248ad0459b0157bd1379ce348ae046ac0267bd2379df359be156ac1268c9df359be157ac1268ce248ad0459b0157bd1379c"
        "e348ae046ac0267bd2379df3156ac1268cd2489df459b0157bc1378ce348ae046ab0267bd2379de359ae156a"
    ),
    Kind.Q6_K: (
        "d158bf37be25ad048b047bf37ad159d0c941ea63eb74fb741d951ea72fc841c9bf35ad169b048df26be069d147cf38bd1a92"
        "2c840d85ed77ff57d038b04aa22b67df58c139b22aa22b931c85fd76ee57ce5ad137b31a902c830f86ec78ff55d1c841da62"
        "eb63fc840d951ea63fb840c9d129b30b931c74fe86de67ff47d129b118b1c66cb11b6c861b71c61cb1c76cb22453f9248ef9"
        "138ef4538d2452f9248ed4a209d47e09a37e14a349d4ae09d77ec863be1463c9147ec923bec463bd1463807f897a867a8487"
        "7f737d7a81877c89758a"
    ),
}


def wave() -> np.ndarray:
    """256 values that are the same on every machine."""
    return (((np.arange(256) * 37) % 101 - 50) / 64).astype(np.float32)[None]


@pytest.mark.parametrize("kind", list(GGML))
def test_a_block_is_packed_as_ggml_packs_it(kind: Kind) -> None:
    assert quantise(wave(), kind).tobytes().hex() == GGML[kind]


@pytest.mark.parametrize(("kind", "most"), [(Kind.Q4_K, 0.072), (Kind.Q6_K, 0.0185)])
def test_normal_weights_come_back_as_near_as_ggmls(kind: Kind, most: float) -> None:
    """The root mean square error of ggml's own is 0.0715 and 0.0178 of the standard deviation."""
    values = np.random.default_rng(0).normal(size=(64, 1024)).astype(np.float32)
    back = gguf.quants.dequantize(quantise(values, kind), kind)
    assert back.shape == values.shape
    assert np.sqrt(((back - values) ** 2).mean()) < most


@pytest.mark.parametrize("kind", list(GGML))
def test_odd_blocks(kind: Kind) -> None:
    values = np.zeros((4, 256), np.float32)
    values[1] = 0.25
    values[2] = -0.25
    values[3, 7] = 3.0
    back = gguf.quants.dequantize(quantise(values, kind), kind)
    assert np.isfinite(back).all()
    assert np.abs(back - values).max() < 0.02


def test_a_row_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="no multiple of 256"):
        quantise(np.zeros((2, 96), np.float32), Kind.Q4_K)


def test_other_formats_are_the_packages_own() -> None:
    values = np.random.default_rng(0).normal(size=(2, 64)).astype(np.float32)
    assert (quantise(values, Kind.Q8_0) == gguf.quants.quantize(values, Kind.Q8_0)).all()
