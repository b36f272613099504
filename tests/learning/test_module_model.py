"""Any torch module is a model: the same numbers as the built-in one, no notice of company, and clear refusals."""

from __future__ import annotations

import copy
import math
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from covsim.learning.corpus import Batches, Corpus, Data
from covsim.learning.evaluate import losses_of_one, losses_per_vector
from covsim.learning.model import Gpt
from covsim.learning.module_model import ModuleModel
from covsim.randomness import Streams
from covsim.sources import SourceError

GPT = """
import torch
from plain_gpt import PlainGpt
from covsim.learning.model import Gpt

class Logits(PlainGpt):
    def forward(self, tokens):
        x = self.wte(tokens) + self.wpe.weight[: tokens.shape[1]]
        return self.head(self.ln(self.blocks(x)))

def build(**sizes):
    model = Gpt(context=20, **sizes)
    return Logits(model, model.initial(torch.default_generator))
"""

PARTS = """
import torch
from torch import nn
from torch.nn import functional

class Convolution(nn.Module):
    def __init__(self, d=12):
        super().__init__()
        self.embedding, self.head = nn.Embedding(256, d), nn.Linear(d, 256)
        self.kernel = nn.Conv1d(d, d, 3)
        self.scale = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("shift", torch.full((d,), 0.1))

    def forward(self, tokens):
        x = self.embedding(tokens) + self.shift
        x = x + self.scale * self.kernel(functional.pad(x.mT, (2, 0))).mT.tanh()
        return self.head(x)

class Recurrent(nn.Module):
    def __init__(self, d=12):
        super().__init__()
        self.embedding, self.gru, self.head = nn.Embedding(256, d), nn.GRU(d, d, batch_first=True), nn.Linear(d, 256)

    def forward(self, tokens):
        return self.head(self.gru(self.embedding(tokens))[0])

class Tied(nn.Module):
    def __init__(self, d=12):
        super().__init__()
        self.embedding, self.head = nn.Embedding(256, d), nn.Linear(d, 256, bias=False)
        self.head.weight = self.embedding.weight
        self.unused = nn.Parameter(torch.ones(3))

    def forward(self, tokens):
        return self.head(self.embedding(tokens).cumsum(1).tanh())
"""

Make = Callable[..., ModuleModel]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A model of the module that `name` builds in a file with this text."""

    def model(text: str, name: str = "build", context: int = 16, **options: bool | int | float | str) -> ModuleModel:
        (tmp_path / "mine.py").write_text(text)
        return ModuleModel(path=str(tmp_path / f"mine.py:{name}"), context=context, options=options)

    return model


def rows(model: ModuleModel, P: int = 5, B: int = 3) -> tuple[Tensor, Tensor]:
    """Different parameters [P, N] and tokens [P, B, T + 1]."""
    generator = torch.Generator().manual_seed(P)
    theta = torch.stack([model.initial(generator) * (1 + p / 4) for p in range(P)])
    return theta, torch.randint(0, 256, (P, B, model.context + 1), generator=generator)


def gradients(model: ModuleModel | Gpt, theta: Tensor, tokens: Tensor) -> Tensor:
    return model.gradients(theta, tokens, torch.full_like(theta, math.nan))


@pytest.mark.parametrize("sizes", [{}, {"layers": 3, "width": 24, "heads": 3}], ids=str)
def test_a_plain_gpt_gives_what_the_built_in_one_gives(sizes: dict[str, int], make: Make) -> None:
    gpt, module = Gpt(context=20, **sizes), make(GPT, context=20, **sizes)
    assert module.num_parameters == gpt.num_parameters
    assert list(module.shapes.values()) == list(gpt.shapes.values())
    theta, tokens = rows(module)
    torch.testing.assert_close(module.losses(theta, tokens), gpt.losses(theta, tokens), rtol=1e-6, atol=1e-6)
    expected = gradients(gpt, theta, tokens)
    torch.testing.assert_close(gradients(module, theta, tokens), expected, rtol=1e-4, atol=1e-6 * expected.max().item())


@pytest.mark.parametrize("name", ["Convolution", "Recurrent", "Tied"])
def test_no_row_and_no_sequence_notices_its_company(name: str, make: Make) -> None:
    """Under vmap, and in batches, a convolution and a GRU do."""
    model = make(PARTS, name)
    theta, tokens = rows(model, P=7)
    losses, together = model.sequence_losses(theta, tokens), gradients(model, theta, tokens)
    assert losses.unique().numel() == 21
    for part in (slice(0, 1), slice(3, 5), slice(1, 7)):
        assert torch.equal(model.sequence_losses(theta[part], tokens[part]), losses[part])
        assert torch.equal(gradients(model, theta[part], tokens[part]), together[part])
    assert torch.equal(model.sequence_losses(theta, tokens[:, 1:]), losses[:, 1:])


@pytest.mark.usefixtures("threads")
def test_threads_do_not_get_into_each_others_way(make: Make) -> None:
    model = make(PARTS, "Convolution")
    theta, tokens = rows(model, P=24)
    torch.set_num_threads(1)
    expected = losses_per_vector(model, theta, tokens)
    torch.set_num_threads(2)
    for chunk in (1, 5):
        assert torch.equal(losses_per_vector(model, theta, tokens, chunk), expected)
    assert torch.equal(losses_of_one(model, theta[3], tokens[3:4]), expected[3:4])


@pytest.mark.parametrize("name", ["Convolution", "Recurrent", "Tied"])
def test_gradients_are_autograds(name: str, make: Make, tmp_path: Path) -> None:
    model = make(PARTS, name)
    theta, tokens = rows(model, P=2)
    for row, batch, gradient in zip(theta, tokens, gradients(model, theta, tokens), strict=True):
        module = model._loaded._built(seed=1)
        nn.utils.vector_to_parameters(row.clone(), module.parameters())
        logits = module(batch[:, :-1])
        functional.cross_entropy(logits.flatten(0, 1), batch[:, 1:].flatten()).backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in module.parameters()]
        torch.testing.assert_close(gradient, nn.utils.parameters_to_vector(parts), rtol=1e-4, atol=1e-7)


def test_shapes_are_what_the_protocol_cuts(make: Make) -> None:
    shapes = make(PARTS, "Convolution").shapes
    assert shapes["kernel.weight"] == (12, 36)
    assert shapes["scale"] == (1,)
    assert shapes["head.bias"] == (256,)
    assert "shift" not in shapes


def test_tied_parameters_count_once(make: Make) -> None:
    model = make(PARTS, "Tied")
    assert model.shapes == {"unused": (3,), "embedding.weight": (256, 12)}
    theta, tokens = rows(model, P=1)
    assert not gradients(model, theta, tokens)[0, :3].any()


def test_the_start_follows_from_the_generator(make: Make) -> None:
    model = make(PARTS, "Convolution")
    torch.manual_seed(5)
    before = torch.get_rng_state()
    start = model.initial(torch.Generator().manual_seed(1))
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(6)
    assert torch.equal(model.initial(torch.Generator().manual_seed(1)), start)
    assert not torch.equal(model.initial(torch.Generator().manual_seed(2)), start)
    assert start.std() > 0.1


def test_options_reach_the_function(make: Make) -> None:
    assert make(PARTS, "Convolution", d=20).num_parameters > make(PARTS, "Convolution", d=19).num_parameters
    with pytest.raises(SourceError, match=r"mine.py:Convolution fails: TypeError: .*unexpected keyword argument 'e'"):
        _ = make(PARTS, "Convolution", e=20).shapes
    changed = make(PARTS, "Convolution", d=20)
    assert changed.num_parameters != changed.model_copy(update={"options": {"d": 8}}).num_parameters


def test_nothing_is_imported_before_the_model_is_used(make: Make, tmp_path: Path) -> None:
    model = make("raise SystemExit('at once')")
    assert not model.known_before_run
    assert Gpt().known_before_run
    assert model == ModuleModel(path=str(tmp_path / "mine.py:build"), context=16)
    with pytest.raises(SourceError, match=r"mine.py: fails as it is imported: line 1: SystemExit: at once"):
        _ = model.num_parameters


def test_a_used_model_is_the_value_that_it_was(make: Make) -> None:
    used, fresh = make(PARTS, "Tied"), make(PARTS, "Tied")
    theta, tokens = rows(used)
    losses = used.losses(theta, tokens)
    assert used == fresh
    assert used.model_dump() == fresh.model_dump()
    for twin in (copy.deepcopy(used), pickle.loads(pickle.dumps(used))):
        assert twin == used
        assert torch.equal(twin.losses(theta, tokens), losses)


def test_a_run_keeps_the_code_that_it_began_with(make: Make) -> None:
    model = make(PARTS, "Tied")
    before = model.num_parameters
    longer = make(PARTS.replace("torch.ones(3)", "torch.ones(4)"), "Tied")
    assert longer.num_parameters == before + 1
    assert model.num_parameters == before


def test_tokens_beyond_the_logits_are_named(make: Make) -> None:
    model = make(PARTS, "Tied")
    model.check_tokens(255)
    with pytest.raises(SourceError, match=r"tokens up to 999, the module of .*Tied has logits for 256; give it 1000"):
        model.check_tokens(999)


def test_it_learns(make: Make) -> None:
    model = make(PARTS, "Recurrent")
    corpus = Corpus(Data(), model.context, Streams(1))
    theta = model.initial(torch.Generator().manual_seed(1))[None]
    optimizer = torch.optim.Adam([theta], lr=0.03)
    held_out = corpus.held_out()[None]
    assert model.losses(theta, held_out) > 5.3
    theta.grad = torch.empty_like(theta)
    for batch in corpus.batches(Batches("assigned", 0, 0), steps=60, batch=8):
        model.gradients(theta, batch[None], out=theta.grad)
        optimizer.step()
    assert model.losses(theta, held_out) < 3.4


MODULE = """
import random
import torch
from torch import nn
{extra}
class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.table = nn.Embedding(256, 256)
        {init}

    def forward(self, tokens):
        x = self.table(tokens)
        {forward}

def build():
    module = Model()
    {build}
"""


def module(init: str = "", forward: str = "return x", build: str = "return module", extra: str = "") -> str:
    return MODULE.format(init=init, forward=forward, build=build, extra=extra)


REFUSED = {
    "build is missing": ("def built(): ...", "mine.py: defines no 'build' (did you mean 'built'?)"),
    "not callable": ("build = 3", "'build' is neither a function nor a class"),
    "no Python": ("def build(:", "fails as it is imported: line 1: SyntaxError: invalid syntax"),
    "import fails": ("import nothing_of_that_name", "line 1: ModuleNotFoundError: No module named 'nothing_of_"),
    "build fails": (module(build="raise OSError('no disk')"), "mine.py:build fails: line 18: OSError: no disk"),
    "not a module": (module(build="return 3"), "returns int, not a torch.nn.Module"),
    "no parameters": (module(build="return nn.Identity()"), "returns a module without parameters"),
    "frozen": (module(build="return module.requires_grad_(False)"), "freezes the parameter table.weight"),
    "half": (module(build="return module.half()"), "makes the parameter table.weight float16 on cpu"),
    "lazy": (module(init="self.lazy = nn.LazyLinear(3)"), "leaves the parameter lazy.weight empty"),
    "forward fails": (module(forward="return x.view(3)"), "fails on tokens [2, 16]: line 14: RuntimeError"),
    "a loss": (module(forward="return x.mean()"), "maps tokens [2, 16] to [], not to logits [2, 16, V]"),
    "a tuple": (module(forward="return x, None"), "maps tokens [2, 16] to tuple, not to logits [2, 16, V]"),
    "transposed": (module(forward="return x.mT"), "maps tokens [2, 16] to [2, 256, 16], not to logits"),
    "double": (module(forward="return x.double()"), "logits are torch.float64, not torch.float32"),
    "infinite": (module(forward="return x / 0"), "whose first logits are not all finite"),
    "dropout": (
        module(forward="return nn.functional.dropout(x, 0.1, self.training)"),
        "is random (dropout?); set it to 0, or return module.eval()",
    ),
    "dropout of zeros": (
        module(forward="return 0 * nn.functional.dropout(x, 0.1, self.training)"),
        "is random (dropout?)",
    ),
    "other randomness": (module(forward="return x * random.random()"), "is random (dropout?)"),
    "batch normalization": (
        module("self.norm = nn.BatchNorm1d(256)", "return self.norm(x.mT).mT"),
        "changes its buffer norm.running_mean as it runs (batch normalization?)",
    ),
    "sees the future": (module(forward="return x + x.flip(1)"), "depend on later tokens; mask the future"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_model_is_refused_in_a_line(case: str, make: Make) -> None:
    text, message = REFUSED[case]
    with pytest.raises(SourceError) as caught:
        _ = make(text).shapes
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_what_is_evaluated_in_the_mode_it_is_built_in_is_fine(make: Make) -> None:
    quiet = module(forward="return nn.functional.dropout(x, 0.1, self.training)", build="return module.eval()")
    assert make(quiet).num_parameters == 65_536
    normal = module("self.norm = nn.BatchNorm1d(256)", "return self.norm(x.mT).mT", "return module.eval()")
    assert make(normal).num_parameters == 65_536 + 512


def test_a_start_that_the_generator_does_not_determine_is_refused(make: Make) -> None:
    text = module(init="nn.init.constant_(self.table.weight, random.random())")
    with pytest.raises(SourceError, match=r"draws parameters that torch.manual_seed does not determine"):
        make(text).initial(torch.Generator())


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"mine.py: no such file"):
        _ = ModuleModel(path=str(tmp_path / "mine.py:build")).shapes
    with pytest.raises(ValueError, match=r"does not name a function in a Python file, as my_model.py:build does"):
        ModuleModel(path="my_model.py")
