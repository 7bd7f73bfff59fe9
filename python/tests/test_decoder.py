"""The restated parts against the originals: F.interpolate, and upstream's whole module."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from soprano_export import references
from soprano_export.families.soprano import checkpoint, synthetic, upstream
from soprano_export.families.soprano.decoder import ExportableDecoder, interpolate
from soprano_export.families.soprano.graphs import Decoder
from soprano_export.roles import SignalNames, SignalReferences
from torch.nn import functional


def torch_interpolate(x: torch.Tensor, upscale: int) -> torch.Tensor:
    size = upscale * (x.shape[2] - 1) + 1
    return functional.interpolate(x, size=size, mode="linear", align_corners=True)


@pytest.mark.parametrize("upscale", [1, 2, 4, 5])
@pytest.mark.parametrize("length", range(1, 10))
def test_interpolation_equals_torch(length, upscale):
    x = torch.randn(2, 7, length, generator=torch.Generator().manual_seed(length))
    expected, found = torch_interpolate(x, upscale), interpolate(x, upscale)
    assert found.shape == expected.shape == (2, 7, upscale * (length - 1) + 1)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)


def test_interpolation_is_not_the_other_alignment():
    x = torch.arange(4.0)[None, None]
    other = functional.interpolate(x, size=13, mode="linear", align_corners=False)
    assert not torch.allclose(interpolate(x, 4), other, atol=1e-3)


@pytest.mark.parametrize("preset", ["tiny", "tiny_1_0"])
@pytest.mark.parametrize(("batch", "length"), [(1, 2), (3, 3), (1, 5), (2, 16)])
def test_exportable_decoder_equals_upstream(request, monkeypatch, preset, batch, length):
    upstream, _ = checkpoint.load(request.getfixturevalue(preset))
    x = references.lifelike(batch, 512, length, seed=length)
    with torch.no_grad():
        expected, found = upstream(x), ExportableDecoder(upstream)(x)
        monkeypatch.setattr("soprano_export.families.soprano.decoder.interpolate", torch_interpolate)
        same_frames = ExportableDecoder(upstream)(x)
    peak = float(expected.abs().max())
    assert found.shape == expected.shape == (batch, 2048 * (length - 1))
    assert float((same_frames - expected).abs().max()) < 1e-6 * peak
    assert float((found - expected).abs().max()) < 5e-6 * peak, "only the interpolation rounds differently"


def test_exportable_decoder_shares_upstream_tensors(tiny):
    upstream, _ = checkpoint.load(tiny)
    ours, theirs = ExportableDecoder(upstream).state_dict(), upstream.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(ours[name].data_ptr() == theirs[name].data_ptr() for name in ours)


def test_input_is_left_alone(tiny):
    upstream, _ = checkpoint.load(tiny)
    x = references.lifelike(1, 512, 4, seed=0)
    before = x.clone()
    with torch.no_grad():
        ExportableDecoder(upstream)(x)
    assert torch.equal(x, before)


def test_dc_and_nyquist_do_not_sound(tiny):
    upstream, _ = checkpoint.load(tiny)
    x = references.lifelike(1, 512, 4, seed=0)
    with torch.no_grad():
        before = ExportableDecoder(upstream)(x)
        for row in (0, 1024):
            upstream.head.out.bias[row] += 5
        assert torch.equal(ExportableDecoder(upstream)(x), before)
        upstream.head.out.bias[1] += 5
        assert not torch.equal(ExportableDecoder(upstream)(x), before)


def test_hidden_states_are_like_normalised_rows():
    x = references.lifelike(2, 512, 64, seed=3)
    assert torch.equal(x, references.lifelike(2, 512, 64, seed=3))
    assert not torch.equal(x, references.lifelike(2, 512, 64, seed=4))
    assert 0.7 < float(x.square().mean().sqrt()) < 1.6
    spread = x.square().mean(dim=(0, 2)).sqrt()
    assert float(spread.max() / spread.min()) > 4
    steps = (x[:, :, 1:] - x[:, :, :-1]).square().mean() / x.square().mean()
    assert float(steps) < 1.5, "neighbouring rows are correlated; independent ones would give 2"


def last_bits(biases: bool) -> dict[str, dict[str, float | str]]:
    """What `references.last_bit` finds of each case of a tiny decoder, with its biases or without."""
    architecture = synthetic.PRESETS["tiny"]
    state = synthetic.weights(architecture, 0)
    if not biases:
        state |= {name: torch.zeros_like(state[name]) for name in state if name.endswith(".bias")}
    decoder = upstream.load_weights(upstream.build(architecture), state)
    graph = Decoder(Path(), SignalNames(), decoder, 512, 2048, 1, architecture=architecture)
    with references.reproducible():
        cases = graph.cases(SignalReferences([2, 5], [1, 2], True, 0))
        return {
            case.name: references.last_bit(decoder, case, references.record(decoder, case)[0], 3.0)
            for case in cases
        }


def test_a_last_bit_moves_an_answer_by_a_few_last_bits():
    for name, moved in last_bits(biases=True).items():
        assert 1e-7 < moved["max_abs_of_peak"] < 5e-6 and 105 < moved["snr_db"] < 140, (name, moved)


def test_without_biases_a_last_bit_of_silence_is_sound():
    found = last_bits(biases=False)
    silence = found.pop("zeros_t3")
    assert silence["max_abs_of_peak"] > 1 and silence["snr_db"] < 0
    assert all(moved["max_abs_of_peak"] < 5e-6 for moved in found.values()), found
    assert last_bits(biases=False)["zeros_t3"] == silence, "the same each time"


@pytest.mark.parametrize(
    ("moved", "expected"),
    [
        (float("nan"), {"max_abs_of_peak": "inf", "snr_db": "-inf"}),
        (float("inf"), {"max_abs_of_peak": "inf", "snr_db": "-inf"}),
        (1.0, {"max_abs_of_peak": 0.0, "snr_db": "inf"}),
        (1.001, {"max_abs_of_peak": 0.001, "snr_db": 60.0}),
    ],
)
def test_figures_of_a_last_bit(moved, expected):
    case = references.Case("c", "extreme", torch.zeros(1, 2, 3))
    assert references.last_bit(lambda _: torch.full((1, 4), moved), case, torch.ones(1, 4), 1.0) == expected
