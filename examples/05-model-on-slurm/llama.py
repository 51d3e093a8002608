"""A real engine: llama.cpp with its own OpenAI API, on processors alone.

    python3 llama.py [MODEL.gguf] --port 8000

Without a model it makes a tiny one, a Llama of two layers whose weights are random: what it says is nonsense out of a
few words, and everything else is what llama.cpp does with any model.
"""

import argparse
import os
import signal
import tempfile
from pathlib import Path

import gguf
import numpy as np
import xllamacpp

WIDTH, LAYERS, HEADS, CONTEXT, SLOTS = 64, 2, 4, 512, 4
TEXT = "a climb begins where the path ends and every step that holds is one you tried before"
WORDS = TEXT.split()


def make_model(path: Path) -> None:
    """Write a model whose weights are random, and whose tokens are WORDS and, for other people's, all bytes."""
    model = gguf.GGUFWriter(path, "llama")
    kinds = gguf.TokenType
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *(f"\u2581{word}" for word in WORDS)]
    types = [kinds.UNKNOWN, kinds.CONTROL, kinds.CONTROL, *[kinds.BYTE] * 256, *[kinds.NORMAL] * len(WORDS)]
    model.add_context_length(CONTEXT)
    model.add_embedding_length(WIDTH)
    model.add_block_count(LAYERS)
    model.add_feed_forward_length(2 * WIDTH)
    model.add_head_count(HEADS)
    model.add_layer_norm_rms_eps(1e-5)
    model.add_tokenizer_model("llama")
    model.add_token_list(tokens)
    model.add_token_scores([0.0] * len(tokens))
    model.add_token_types(types)
    for name, tensor in weights(len(tokens)).items():
        model.add_tensor(f"{name}.weight", tensor)
    model.write_header_to_file()
    model.write_kv_data_to_file()
    model.write_tensors_to_file()
    model.close()


def weights(tokens: int) -> dict[str, np.ndarray]:
    """Return random weights. One feature is the same for every token, and speaks against all tokens but WORDS."""
    random = np.random.default_rng(1)

    def drawn(*shape: int) -> np.ndarray:
        return random.normal(0, 0.1, shape).astype(np.float32)

    found = {
        "token_embd": drawn(tokens, WIDTH),
        "output_norm": np.ones(WIDTH, np.float32),
        "output": drawn(tokens, WIDTH),
    }
    for layer in range(LAYERS):
        block = {name: np.ones(WIDTH, np.float32) for name in ("attn_norm", "ffn_norm")}
        block |= {f"attn_{name}": drawn(WIDTH, WIDTH) for name in ("q", "k", "v", "output")}
        block |= {"ffn_gate": drawn(2 * WIDTH, WIDTH), "ffn_up": drawn(2 * WIDTH, WIDTH)}
        block["ffn_down"] = drawn(WIDTH, 2 * WIDTH)
        block["attn_output"][0] = block["ffn_down"][0] = 0
        found |= {f"blk.{layer}.{name}": tensor for name, tensor in block.items()}
    found["token_embd"][:, 0] = 1
    found["output"][: -len(WORDS), 0] = -20
    return found


def serve(model: Path, host: str, port: int) -> None:
    """Serve until the process is ended; the key that clients must know is the variable API_KEY."""
    asked = xllamacpp.CommonParams()
    asked.model.path = str(model)
    asked.hostnames, asked.port = [host], port
    asked.api_keys = [os.environ["API_KEY"]] if "API_KEY" in os.environ else []
    asked.n_ctx, asked.n_parallel = CONTEXT * SLOTS, SLOTS
    asked.cpuparams.n_threads = asked.cpuparams_batch.n_threads = 1
    asked.ui, asked.verbosity = False, 1  # errors: it tells of every request otherwise
    server = xllamacpp.Server(asked)
    print("listening on", server.listening_address, flush=True)
    signal.pause()


def main() -> None:
    """Serve the model that is given, or a tiny one."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=Path, nargs="?")
    parser.add_argument("--host", default="0.0.0.0")  # noqa: S104 - guarded by the key
    parser.add_argument("--port", type=int, required=True)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        model = chosen.model or Path(directory) / "tiny.gguf"
        if not chosen.model:
            make_model(model)
        serve(model, chosen.host, chosen.port)


if __name__ == "__main__":
    main()
