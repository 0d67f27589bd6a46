"""A small critic on disk: ``config.json``, ``model.safetensors``, ``tokenizer.json``; nothing is ever unpickled.

Matrices may be stored as int8 with one float16 scale per row (`shrink`), which is a quarter of float32's size.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.overrides import TorchFunctionMode

from cprs_core.critics.encoder import EncoderConfig
from cprs_core.critics.token_critic import TokenCritic
from cprs_core.critics.wordpiece import WordPieceTokenizer
from cprs_core.errors import CheckpointError

KIND = "cprs-encoder"
FORMAT_VERSION = 1
_SCALE = ".row_scale"


@dataclass(frozen=True)
class CriticConfig:
    """What a small critic is besides its weights.

    ``window_tokens`` includes the prefix; ``thresholds`` are default score thresholds per granularity, from held-out
    data; ``calibration`` maps a granularity to (slope, offset) of its segments' mean logit.
    """

    name: str
    encoder: EncoderConfig
    outside_word: int
    window_tokens: int = 512
    thresholds: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({"kind": KIND, "format": FORMAT_VERSION, **asdict(self)}, indent=2, ensure_ascii=False) + "\n"

    @classmethod
    def from_file(cls, path: Path) -> CriticConfig:
        """Raises CheckpointError where the file is missing, damaged or of another kind."""
        try:
            data: Any = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise CheckpointError(f"{path} is missing; {path.parent} is not a critic's folder") from None
        except (OSError, ValueError) as error:
            raise CheckpointError(f"cannot read {path}: {error}; download or save the critic again") from error
        if not isinstance(data, dict) or data.pop("kind", None) != KIND or data.pop("format", None) != FORMAT_VERSION:
            raise CheckpointError(
                f"{path} does not describe a critic of kind {KIND!r}, format {FORMAT_VERSION}; "
                "it was made by another program or version"
            )
        try:
            return cls(**{**data, "encoder": EncoderConfig(**data["encoder"])})
        except (KeyError, TypeError) as error:
            raise CheckpointError(f"{path} lacks or misnames a setting: {error}; save the critic again") from error


def shrink(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Matrices as int8 with a scale per row, all other tensors as float16."""
    small: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if tensor.dim() == 2:
            scale = (tensor.abs().amax(dim=1, keepdim=True).float() / 127.0).clamp_min(1e-12).to(torch.float16)
            scale = scale.clamp_min(torch.finfo(torch.float16).tiny)
            small[name] = (tensor.float() / scale.float()).round().clamp(-127, 127).to(torch.int8)
            small[name + _SCALE] = scale
        else:
            small[name] = tensor.to(torch.float16) if tensor.is_floating_point() else tensor
    return small


def restore(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """float32 tensors from what `shrink` made; tensors that were not shrunk pass through."""
    full: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.endswith(_SCALE):
            continue
        scale = tensors.get(name + _SCALE)
        if scale is not None:
            full[name] = tensor.float() * scale.float()
        else:
            full[name] = tensor.float() if tensor.is_floating_point() else tensor
    return full


def save_critic(
    folder: Path, critic: TokenCritic, config: CriticConfig, tokenizer_json: str, *, small: bool = True
) -> None:
    """Write a critic's folder."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in critic.state_dict().items()}
    save_file(shrink(tensors) if small else tensors, folder / "model.safetensors")
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")


def load_critic(
    folder: Path, kind: type[TokenCritic] = TokenCritic
) -> tuple[TokenCritic, CriticConfig, WordPieceTokenizer]:
    """A critic in float32 on the CPU, in evaluation mode.

    Args:
        kind: the class to build, for a critic that reads the same weights in another way.

    Raises:
        CheckpointError: a file is missing or damaged, or a tensor is missing, extra or of another shape; each is named.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; pass a critic's folder, or nothing for the embedded critic")
    config = CriticConfig.from_file(folder / "config.json")
    tokenizer = WordPieceTokenizer.from_file(folder / "tokenizer.json")
    if tokenizer.vocab_size != config.encoder.vocab_size:
        raise CheckpointError(
            f"{folder / 'tokenizer.json'} has {tokenizer.vocab_size:,} tokens, "
            f"the critic {config.encoder.vocab_size:,}; they do not belong together"
        )
    path = folder / "model.safetensors"
    try:
        tensors = restore(load_file(path))
    except Exception as error:  # a missing file, a cut one, a header that is not JSON
        raise CheckpointError(f"cannot read the weights {path}: {error}; reinstall or save the critic again") from error
    with torch.device("meta"), _WithoutInit():
        critic = kind(config.encoder, config.outside_word)
    _check_tensors(path, critic, tensors)
    critic.load_state_dict(tensors, assign=True)
    return critic.eval().requires_grad_(False), config, tokenizer


def digest(folder: Path) -> str:
    """The same exactly where weights, settings and tokenizer are the same."""
    content = hashlib.blake2b(digest_size=16)
    for name in ("config.json", "model.safetensors", "tokenizer.json"):
        content.update(hashlib.blake2b((folder / name).read_bytes()).digest())
    return content.hexdigest()


class _WithoutInit(TorchFunctionMode):
    """Leaves new parameters unfilled.

    Random numbers on the meta device would import torch's compiler, which takes longer than everything else here.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if getattr(func, "__module__", None) == "torch.nn.init":  # getters of attributes come by here too
            return args[0] if args else kwargs["tensor"]
        return func(*args, **kwargs)


def _check_tensors(path: Path, critic: TokenCritic, tensors: Mapping[str, Tensor]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in critic.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not part of this critic" for name in found.keys() - expected.keys()]
    problems += [
        f"{name} has shape {found[name]}, not {expected[name]}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    if problems:
        raise CheckpointError(f"the weights {path} do not fit: {'; '.join(sorted(problems))}")
