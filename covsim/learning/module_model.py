"""A model that the user brings: any torch module that maps tokens to logits, as rows of the flat parameter matrix.

Rows are computed one after the other, and their losses sequence by sequence. `torch.func.vmap` would do all at once and
is no way: a convolution or a recurrent layer rounds differently in a batch of another size, under vmap and without it,
and a result here never depends on who shared the batch. The loop costs little: the work of one row fills a thread.

Letters in shapes: P peers, B sequences, T tokens of context, N parameters, V vocabulary.
"""

from __future__ import annotations

import contextlib
import copy
import json
import math
from collections.abc import Callable, Iterator
from functools import cached_property
from typing import Annotated, Any, Literal

import torch
from pydantic import AfterValidator, Field
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from covsim import sources
from covsim.learning.model import Model, models
from covsim.sources import SourceError, SourcePath

_FUTURE_SHOWS = 1e-3  # change of a logit, relative to the largest one, that is more than rounding

Setting = bool | int | float | str


@models.register
class ModuleModel(Model):
    """Any torch module that maps tokens to logits, built by a function in a Python file of yours.

    `build()`, or `build(**options)`, returns an `nn.Module` that maps int64 tokens [B, T] to logits [B, T, V], float32,
    on the CPU, where position t is predicted from tokens 0 to t. It must be a function of its parameters and its input:
    a module that draws random numbers (dropout) or changes its buffers (batch normalization) is refused. It is used in
    the mode in which `build` returns it, so one that ends with `return module.eval()` has its dropout off. All
    parameters are trained; tied ones count once; buffers are the same for every seed. Slower than the built-in GPT,
    which computes all peers in one product.
    """

    kind: Literal["module"] = "module"
    path: Annotated[SourcePath, AfterValidator(sources.must_be_code)] = Field(
        description="a function in a Python file, my_model.py:build, relative to the scenario file"
    )
    options: dict[str, Setting] = Field(default={}, max_length=100, description="keyword arguments of the function")

    @property
    def known_before_run(self) -> bool:
        """False: the file is imported when the model is first used."""
        return False

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The module's parameters; of more than two dimensions, all but the first are one: a kernel is [o, i * h * w].

        Raises SourceError if the file cannot be used; so do all other methods.
        """
        return {name: _as_matrix(shape) for name, shape in self._loaded.shapes.items()}

    def check_tokens(self, largest: int) -> None:
        """Raise SourceError if the module has no logit for the token `largest`."""
        if largest >= self._loaded.vocabulary:
            raise SourceError(
                f"the text has tokens up to {largest}, the module of {self.path} has logits for "
                f"{self._loaded.vocabulary}; give it {largest + 1} or more"
            )

    def initial(self, generator: torch.Generator) -> Tensor:
        """A fresh module's parameters [N]; torch's own generator, seeded from `generator`, is lent to its function."""
        return self._loaded.initial(int(torch.randint(2**63 - 1, (), generator=generator)))

    def sequence_losses(self, theta: Tensor, tokens: Tensor) -> Tensor:
        """Mean nats per token of each sequence [P, B], for theta [P, N] and tokens [P, B, T + 1]."""
        with self._loaded.module_on(theta.device) as module, torch.no_grad():
            losses = [
                self._loaded.losses(module, self._loaded.tensors(row), sequence, sequence[:, 1:])
                for row, sequences in zip(theta, tokens, strict=True)
                for sequence in sequences.split(1)
            ]
        return torch.cat([theta.new_zeros(0), *losses]).view(tokens.shape[:2])

    def gradients(self, theta: Tensor, tokens: Tensor, out: Tensor, targets: Tensor | None = None) -> Tensor:
        """Write the gradient of each peer's mean nats per token into `out` [P, N] and return it."""
        targets = tokens[:, :, 1:] if targets is None else targets
        with self._loaded.module_on(theta.device) as module, torch.enable_grad():
            for row, sequences, answers, gradient in zip(theta, tokens, targets, out, strict=True):
                tensors = [tensor.requires_grad_() for tensor in self._loaded.tensors(row)]
                loss = self._loaded.losses(module, tensors, sequences, answers).mean()
                parts = torch.autograd.grad(loss, tensors, allow_unused=True, materialize_grads=True)
                torch.cat([part.flatten() for part in parts], out=gradient)
        return out

    @property
    def _loaded(self) -> _LoadedModule:
        """The file's function, called with these settings: once, so that a run keeps the code that it began with."""
        key = (self.path, self.context, json.dumps(self.options, sort_keys=True))
        if key not in self._memory:
            self._memory[key] = _LoadedModule(self.path, self.options, self.context)
        return self._memory[key]

    @cached_property
    def _memory(self) -> dict[tuple[str, int, str], _LoadedModule]:
        """What was loaded, by the settings that a changed copy of this value does not share."""
        return {}


class _LoadedModule:
    """A user's module and how its parameters lie in the flat vector. Raises SourceError where it cannot be used."""

    def __init__(self, path: str, options: dict[str, Setting], context: int) -> None:
        self._path, self._options, self._context = path, options, context
        self._function: Callable[..., Any] = sources.load(path)
        module = self._built(seed=0)
        self.shapes = {name: tuple(parameter.shape) for name, parameter in module.named_parameters()}
        with torch.no_grad():
            self.vocabulary = self._checked_vocabulary(module)
        self._original = module
        self._idle: list[nn.Module] = []

    def __reduce__(self) -> tuple[type[_LoadedModule], tuple[Any, ...]]:
        """Another process loads the file itself."""
        return _LoadedModule, (self._path, self._options, self._context)

    def initial(self, seed: int) -> Tensor:
        """The parameters of a freshly built module [N]."""
        first, second = (self._built(seed) for _ in range(2))
        theta, again = (nn.utils.parameters_to_vector(each.parameters()).detach() for each in (first, second))
        if {name: tuple(parameter.shape) for name, parameter in first.named_parameters()} != self.shapes:
            raise self._refusal("builds modules of different shapes")
        if not torch.equal(theta.nan_to_num(), again.nan_to_num()):
            raise self._refusal("draws parameters that torch.manual_seed does not determine; use torch's own generator")
        return theta

    def tensors(self, row: Tensor) -> list[Tensor]:
        """The parameters in a copy of a flat vector [N]: rounding may follow the place of a vector in memory."""
        sizes = [math.prod(shape) for shape in self.shapes.values()]
        pieces = torch.split(row.detach().clone(), sizes)
        return [piece.view(shape) for piece, shape in zip(pieces, self.shapes.values(), strict=True)]

    def losses(self, module: nn.Module, tensors: list[Tensor], tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean nats per token of each sequence [B] under these parameters, for tokens [B, T + 1], targets [B, T]."""
        read = tokens[:, :-1]
        logits = functional_call(module, dict(zip(self.shapes, tensors, strict=True)), (read,))  # [B, T, V]
        nats = functional.cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none")
        return nats.view_as(targets).mean(dim=1)

    @contextlib.contextmanager
    def module_on(self, device: torch.device) -> Iterator[nn.Module]:
        """A module that no other thread uses meanwhile, for a call with other parameters changes it while it lasts."""
        try:
            module = self._idle.pop()
        except IndexError:
            module = copy.deepcopy(self._original)
        try:
            yield module.to(device)
        finally:
            self._idle.append(module)

    def _built(self, seed: int) -> nn.Module:
        """What the function returns, if it can be trained."""
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            try:
                module = self._function(**self._options)
            except (Exception, SystemExit) as error:
                raise self._refusal(f"fails: {self._blame(error)}") from error
        if not isinstance(module, nn.Module):
            raise self._refusal(f"returns {type(module).__name__}, not a torch.nn.Module")
        parameters = dict(module.named_parameters())
        if not parameters:
            raise self._refusal("returns a module without parameters")
        for name, parameter in parameters.items():
            if nn.parameter.is_lazy(parameter) or not parameter.numel():
                raise self._refusal(f"leaves the parameter {name} empty")
            if parameter.dtype != torch.float32 or parameter.device.type != "cpu":
                found = f"{str(parameter.dtype).removeprefix('torch.')} on {parameter.device.type}"
                raise self._refusal(f"makes the parameter {name} {found}; it must be float32 on cpu")
            if not parameter.requires_grad:
                raise self._refusal(f"freezes the parameter {name}, but all are trained; make it a buffer")
        return module

    def _checked_vocabulary(self, module: nn.Module) -> int:
        """V, if the module is a function of the past: of no random numbers, no memory and no later tokens."""
        tokens = torch.zeros(2, self._context, dtype=torch.int64)
        buffers = {name: buffer.clone() for name, buffer in module.named_buffers()}
        with torch.random.fork_rng(devices=[]):
            before = torch.get_rng_state()
            logits = self._logits(module, tokens)
            again = self._logits(module, tokens)
            random = not torch.equal(before, torch.get_rng_state())
        changed = [name for name, buffer in module.named_buffers() if not _same(buffer, buffers.get(name))]
        if changed:
            raise self._refusal(
                f"returns a module that changes its buffer {changed[0]} as it runs (batch normalization?)"
            )
        if random or not _same(logits, again):
            raise self._refusal("returns a module that is random (dropout?); set it to 0, or return module.eval()")
        if not logits.isfinite().all():
            raise self._refusal("returns a module whose first logits are not all finite")
        tokens[:, -1] = logits.shape[2] - 1
        shift = (self._logits(module, tokens) - logits)[:, :-1].abs().max()
        if shift > _FUTURE_SHOWS * logits.abs().max():
            raise self._refusal("returns a module whose predictions depend on later tokens; mask the future")
        return logits.shape[2]

    def _logits(self, module: nn.Module, tokens: Tensor) -> Tensor:
        B, T = tokens.shape
        try:
            logits = module(tokens)
        except Exception as error:
            raise self._refusal(f"returns a module that fails on tokens [{B}, {T}]: {self._blame(error)}") from error
        if not isinstance(logits, Tensor) or logits.shape[:-1] != (B, T) or logits.shape[-1] < 2:
            found = str(list(logits.shape)) if isinstance(logits, Tensor) else type(logits).__name__
            raise self._refusal(f"returns a module that maps tokens [{B}, {T}] to {found}, not to logits [{B}, {T}, V]")
        if logits.dtype != torch.float32:
            raise self._refusal(f"returns a module whose logits are {logits.dtype}, not torch.float32")
        return logits

    def _blame(self, error: BaseException) -> str:
        return sources.blame(error, sources.file_of(self._path))

    def _refusal(self, what: str) -> SourceError:
        return SourceError(f"{self._path} {what}")


def _as_matrix(shape: tuple[int, ...]) -> tuple[int, ...]:
    """The shape as the protocol cuts it: one or two dimensions."""
    return (shape[0], math.prod(shape[1:])) if len(shape) > 2 else shape or (1,)


def _same(one: Tensor, other: Tensor | None) -> bool:
    return other is not None and torch.equal(one.nan_to_num(), other.nan_to_num())
