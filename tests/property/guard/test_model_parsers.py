"""Any bytes, and any damage to a sound file, end in risks, never in another error; and what is torn never passes."""

import io

import model_corpus
import pytest
from hypothesis import given
from hypothesis import strategies as st

from piolet.guard.finding import Place
from piolet.guard.models import Item, risks_of
from piolet.guard.policy import ModelLimits

FILES = {**model_corpus.benign(), **model_corpus.malicious()}
NAMES = sorted(name for name, content in FILES.items() if len(content) < 1 << 16)
SOUND = ("model.safetensors", "model.gguf", "model.onnx", "proto4.pkl", "floats.npy")


def scanned(name, content):
    return list(risks_of(Item(io.BytesIO(content), len(content), name, Place(name), ModelLimits(max_bytes=1 << 20))))


@given(st.sampled_from(NAMES), st.binary(max_size=500))
def test_any_bytes_under_any_name(name, content):
    scanned(name, content)


@given(st.sampled_from(NAMES), st.data())
def test_any_damage(name, data):
    content = bytearray(FILES[name].encode() if isinstance(FILES[name], str) else FILES[name])
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    scanned(name, bytes(content[: data.draw(st.integers(0, len(content)))]))


@pytest.mark.parametrize("name", SOUND)
def test_what_ends_early_never_passes(name):
    content = model_corpus.benign()[name]
    header = len(content) - 8 if name.endswith(".npy") else len(content)
    assert not [end for end in range(1, header) if not scanned(name, content[:end])]
