"""Captioner: training and decoding beside plain PyTorch, hard beside soft attention.

    python -m benchmarks.captioner --torch_python=PATH    # a Python that has torch
    python -m benchmarks.captioner --only=small

small   the captioner of `experiments/show_attend_tell.py`, with its ResNet: 32 images
        of 64 pixels, captions of as many words as the data have at most
paper   the decoder alone, in the sizes of that experiment's paper form: annotations of
        14x14 places of 512 channels, which a frozen VGG has made of 16 images, 20
        of 10,000 words

PyTorch's side is the same network, written as one writes it there: a loop over the
words with `LSTMCell`, cross-entropy and the doubly stochastic penalty, Adam. It has as
many parameters, or nothing is measured. No caption ends early, so that none is
shorter. The "hard" step draws and has the loss of REINFORCE; its cost over that of the
"soft" one is that of sampling.

Runs take turns, one of each side after the other; ratios are medians of those of the
turns.
"""

import functools
import statistics
import sys
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags

from attn import decoding, settings, tasks
from attn.data.digits import scene
from attn.models.captioner import Captioner
from attn.train import step as steps
from benchmarks.torch_process import Torch
from benchmarks.watch import Watch
from experiments import show_attend_tell as experiment


class Decoder(Captioner):
    """A captioner whose images are annotations, as a frozen encoder has made them."""

    def encode(self, image: jax.Array, *, train: bool = False) -> jax.Array:
        del train
        return image


# The class of the model, the shape of its images, its words, and those of a caption.
SCENES = scene.FACTS["vocab_size"], scene.FACTS["max_length"]
FORMS = {
    "small": (Captioner, (experiment.BATCH, 64, 64, 3), *SCENES),
    "paper": (Decoder, (16, 14, 14, 512), 10_000, 20),
}
START, BEAMS = 0, (1, 4)
RATE = 1e-4
# Runs as a process of its own: answers each line with the seconds of one run.
TORCH = """
import sys, time
import torch
from torch import nn
torch.set_num_threads(int(sys.argv[1]))
batch, height, width, channels, words, length, n, E = map(int, sys.argv[2:10])
rate, whole = float(sys.argv[10]), sys.argv[11] == "Captioner"

def conv(inputs, outputs, kernel, stride):
    layer = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False)
    return [layer, nn.BatchNorm2d(outputs)]

class Block(nn.Module):
    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.branch = nn.Sequential(
            *conv(inputs, outputs, 3, stride), nn.ReLU(), *conv(outputs, outputs, 3, 1))
        same = stride == 1 and inputs == outputs
        self.short = nn.Sequential(*[] if same else conv(inputs, outputs, 1, stride))
    def forward(self, x):
        return torch.relu(self.branch(x) + self.short(x))

def resnet():
    layers, inputs = [*conv(channels, 16, 3, 2), nn.ReLU()], 16
    for outputs, stride in ((16, 1), (32, 2), (64, 2)):
        layers += [Block(inputs, outputs, stride), Block(outputs, outputs, 1)]
        inputs = outputs
    return nn.Sequential(*layers)

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        D = 64 if whole else channels
        self.encoder = resnet() if whole else nn.Identity()
        self.table, self.cell = nn.Embedding(words, E), nn.LSTMCell(E + D, n)
        self.query, self.key = nn.Linear(n, n), nn.Linear(D, n, bias=False)
        self.score = nn.Linear(n, 1, bias=False)
        self.start = nn.Linear(D, 2 * n)
        self.of_state, self.of_context = nn.Linear(n, E), nn.Linear(D, E)
        self.out, self.drop = nn.Linear(E, words), nn.Dropout(rate)
    def begin(self, image):
        found = self.encoder(image).flatten(2).transpose(1, 2)
        if whole:  # positions of the map are added
            found = found + places
        state, memory = self.start(found.mean(1)).tanh().chunk(2, 1)
        return found, self.key(found), (state, memory)
    def step(self, word, carry, found, keys):
        scores = self.score((self.query(carry[0])[:, None] + keys).tanh())
        weights = scores.softmax(1)
        context = (weights * found).sum(1)
        known = self.table(word)
        carry = self.cell(torch.cat([known, context], 1), carry)
        hidden = known + self.of_state(self.drop(carry[0])) + self.of_context(context)
        return self.out(self.drop(hidden.tanh())), carry, weights[..., 0]
    def forward(self, image, said):
        found, keys, carry = self.begin(image)
        logits, read = [], 0
        for place in range(said.shape[1]):
            one, carry, weights = self.step(said[:, place], carry, found, keys)
            logits.append(one)
            read = read + weights
        return torch.stack(logits, 1), read

image = torch.randn(batch, channels, height, width)
places = torch.randn(height * width // 64, 64)
said, right = torch.randint(words, (2, batch, length))
model = Model()
adam = torch.optim.Adam(model.parameters(), float(sys.argv[12]))

def train():
    model.train()
    adam.zero_grad()
    logits, read = model(image, said)
    loss = nn.functional.cross_entropy(logits.flatten(0, 1), right.flatten())
    (loss + (1 - read).square().sum() / right.numel()).backward()
    adam.step()

@torch.no_grad()
def decode(beams):
    model.eval()
    many = lambda x: x.repeat_interleave(beams, 0)
    found, keys, carry = model.begin(image)
    found, keys, carry = many(found), many(keys), tuple(map(many, carry))
    last = torch.zeros(batch * beams, dtype=torch.long)
    so_far = last[:, None]
    sums = torch.full((batch, beams), -1e9)
    sums[:, 0] = 0
    first = beams * torch.arange(batch)[:, None]
    for _ in range(length):
        logits, carry, _ = model.step(last, carry, found, keys)
        chances = logits.log_softmax(-1).view(batch, beams, words)
        sums, best = (sums[:, :, None] + chances).flatten(1).topk(beams)
        of, last = (first + best // words).flatten(), (best % words).flatten()
        so_far = torch.cat([so_far[of], last[:, None]], 1)
        carry = tuple(x[of] for x in carry)

print(sum(p.numel() for p in model.parameters()), flush=True)
for line in sys.stdin:
    what = line.strip()
    began = time.perf_counter()
    train() if what == "train" else decode(int(what))
    print(time.perf_counter() - began, flush=True)
"""

flags.DEFINE_integer("rounds", 7, "Runs of each side; the median counts.")
flags.DEFINE_string("torch_python", sys.executable, "A Python that imports torch.")
flags.DEFINE_list("only", [], "Forms to measure; all if empty.")
FLAGS = flags.FLAGS
Run = Callable[[], object]


class Ours:
    """The captioner of a form, its variables and a batch."""

    def __init__(self, form: str, row: str = "soft"):
        """Makes them.

        Args:
            form: of FORMS.
            row: of the experiment, what the decoder attends with.
        """
        kind, shape, self.words, self.length = FORMS[form]
        model, task = sections(form, row)
        fill, name = model.pop("slots"), model.pop("name")
        known = {"fill": fill, "vocab_size": self.words}
        self.model = settings.build(kind, "model", name, model | known)
        self.task = tasks.create(task, {"start": START, "end": self.words})
        rng = np.random.default_rng(0)
        captions = shape[0], self.length
        before, words = jnp.asarray(rng.integers(self.words, size=(2, *captions)))
        self.batch = {
            "image": jnp.asarray(rng.normal(size=shape), jnp.float32),
            "target_in": before,
            "target": words,
            "target_mask": jnp.ones(captions, bool),
            **steps.kept(self.task),
        }
        init = jax.jit(functools.partial(steps.variables, self.model))
        self.variables = init(jax.random.key(0), self.batch)

    @property
    def parameters(self) -> int:
        return sum(x.size for x in jax.tree.leaves(self.variables["params"]))

    def training(self) -> Run:
        """A step, compiled: forward, backward and Adam."""
        rule = optax.adam(RATE)

        def step(variables, state, batch, key):
            def loss(params):
                made = {**variables, "params": params}
                outputs, changed = steps.trained(self.model, made, batch, key)
                mean = self.task.loss(outputs, batch)["loss"]
                return mean.total.sum() / mean.weight.sum(), changed

            grads, changed = jax.grad(loss, has_aux=True)(variables["params"])
            updates, state = rule.update(grads, state)
            params = optax.apply_updates(variables["params"], updates)
            return {**changed, "params": params}, state

        compiled = jax.jit(step)
        begun = self.variables, rule.init(self.variables["params"]), self.batch
        return lambda: compiled(*begun, jax.random.key(1))

    def decoding(self, beams: int) -> Run:
        """A search, compiled."""

        @jax.jit
        def search(variables, image):
            return decoding.generate(
                self.model,
                variables,
                [image],
                start=START,
                end=self.words,  # which is none of them
                length=self.length,
                beams=beams,
            )

        return lambda: search(self.variables, self.batch["image"])


def sections(form: str, row: str) -> tuple[dict, dict]:
    """The sections `model` and `task` of a row of the experiment."""
    config = experiment.get_config(f"attention,{form}").to_dict()
    for key, value in experiment.ATTENTIONS[row].items():
        section, name = key.split(".", 1)
        config[section][name] = value
    return config["model"], config["task"]


def torch_of(form: str, model: Captioner) -> Torch:
    """PyTorch with the same network and batch."""
    kind, (batch, *place, channels), words, length = FORMS[form]
    sizes = batch, *place, channels, words, length, model.width, model.embedding
    rest = model.dropout, kind.__name__, RATE
    return Torch(FLAGS.torch_python, TORCH, *sizes, *rest)


def seconds(run: Run) -> float:
    began = time.perf_counter()
    jax.block_until_ready(run())
    return time.perf_counter() - began


def measure(form: str, watch: Watch) -> None:
    """Prints what a form takes, of each of our runs and the peer of it."""
    ours = Ours(form)
    torch = torch_of(form, ours.model)
    if not torch.note:
        raise SystemExit(f"{FLAGS.torch_python} cannot import torch")
    if int(torch.note) != ours.parameters:
        raise SystemExit(f"{ours.parameters} parameters, and {torch.note} in PyTorch")
    images = len(ours.batch["image"])
    said = functools.partial(told, watch, images)
    soft = ours.training()
    said(f"{form}, training", soft, "torch", lambda: torch.seconds("train"))
    for beams in BEAMS:
        run, peer = ours.decoding(beams), functools.partial(torch.seconds, beams)
        said(f"{form}, decoding, {beams} beams", run, "torch", peer)
    torch.close()
    hard = Ours(form, "hard").training()
    said(f"{form}, training, soft", soft, "hard", lambda: seconds(hard))


def told(
    watch: Watch,
    images: int,
    name: str,
    run: Run,
    other: str,
    peer: Callable[[], float],
) -> None:
    """Prints images a second of a run, and of a peer that takes turns with it."""
    seconds(run)  # compiles
    peer()
    turns, mark = watch.rounds(FLAGS.rounds, lambda: (seconds(run), peer()))
    own, theirs = (statistics.median(side) for side in zip(*turns, strict=True))
    ratio = statistics.median(theirs / own for own, theirs in turns)
    print(
        f"{name}: {images / own:.1f} images/s; {other} {images / theirs:.1f}, which"
        f" takes {ratio:.2f} times as long{mark}",
        flush=True,
    )


def main(argv: list[str]) -> None:
    del argv
    with Watch() as watch:
        for form in FLAGS.only or FORMS:
            measure(form, watch)


if __name__ == "__main__":
    app.run(main)
