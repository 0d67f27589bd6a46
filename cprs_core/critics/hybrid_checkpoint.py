"""A hybrid critic on disk: a Qwen folder with a position head, in the released 7 B critic's format.

``config.json``, ``model*.safetensors`` (``model.*``, ``cls_head.*``, perhaps ``lm_head.weight``) and the tokenizer. No
code from a folder is ever run and nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from cprs_core.critics.chat_tokenizer import ChatTokenizer
from cprs_core.critics.checkpoint import shrink
from cprs_core.critics.hybrid import MODEL_TYPES, HybridCritic
from cprs_core.critics.memory import WeightFormat, check_memory
from cprs_core.errors import CheckpointError
from cprs_core.scorer import LABELS

_log = logging.getLogger(__name__)

WINDOW_TOKENS = 8_192  # of the released critic, prefix included
_SECTION = "cprs"
_SCALE = ".row_scale"
_TAG_HEADS = (None, "tied", "lm_head")


@dataclass(frozen=True)
class HybridConfig:
    """What a hybrid critic is besides its weights.

    Attributes:
        base: the decoder's transformers config.
        bidirectional_from: index of the first layer that attends in both directions.
        window_tokens: tokens of one window, prefix included.
        labels: what the position head's columns mean, in their order.
        tag_head: "lm_head", "tied" (to the word embeddings) or None, where positions decide alone.
        outside_word: the word for "nothing of the kind"; None where the model was taught none.
        thresholds: default score thresholds per granularity.
    """

    name: str
    base: Any
    bidirectional_from: int
    window_tokens: int = WINDOW_TOKENS
    labels: tuple[str, ...] = LABELS
    tag_head: str | None = None
    outside_word: str | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def from_folder(cls, folder: Path) -> HybridConfig:
        """Reads ``config.json``; our own settings count wherever in it they stand.

        Raises:
            CheckpointError: the file is missing, damaged or describes another kind of model.
        """
        from transformers import CONFIG_MAPPING

        path = folder / "config.json"
        data = read_settings(folder)
        kind = data.get("model_type")
        if kind not in MODEL_TYPES:
            raise CheckpointError(
                f"{path} describes a model of type {kind!r}; a hybrid critic is one of: {', '.join(MODEL_TYPES)} "
                "(an encoder becomes a critic with: cprs train --base)"
            )
        own = {name: _find(data, name, path) for name in cls.__dataclass_fields__ if name not in ("name", "base")}
        try:
            plain = {key: value for key, value in data.items() if key not in ("auto_map", _SECTION)}
            base = CONFIG_MAPPING[kind].from_dict(plain)
        except Exception as error:  # whatever a damaged setting raises in there
            raise CheckpointError(f"cannot read {path}: {error}; download or save the critic again") from error
        layers = base.num_hidden_layers
        first = own["bidirectional_from"]
        if first is None:
            first = layers - layers // 4
            _log.log(
                logging.INFO if layers == 28 else logging.WARNING,
                "%s does not say where the bidirectional layers begin; taking layer %d of %d, the top quarter as in "
                "the released critic (key 'bidirectional_from')",
                path,
                first,
                layers,
            )
        if isinstance(first, bool) or not isinstance(first, int) or not 0 <= first <= layers:
            raise CheckpointError(
                f"{path}: bidirectional_from is {first!r}; it must be a whole number from 0 to {layers}, the layers"
            )
        labels = tuple(own["labels"] or LABELS)
        if sorted(labels) != sorted(LABELS):
            raise CheckpointError(f"{path}: labels are {list(labels)}; they must be {list(LABELS)}, in any order")
        window = own["window_tokens"] or min(WINDOW_TOKENS, base.max_position_embeddings)
        if isinstance(window, bool) or not isinstance(window, int) or window < 1:
            raise CheckpointError(f"{path}: window_tokens is {window!r}; it must be a positive whole number")
        if own["tag_head"] not in _TAG_HEADS:
            raise CheckpointError(f"{path}: tag_head is {own['tag_head']!r}; choose one of: 'lm_head', 'tied', null")
        sliding = base.sliding_window if "sliding_attention" in (getattr(base, "layer_types", None) or ()) else None
        if sliding is not None and sliding < window:
            raise CheckpointError(
                f"{path} has layers with a sliding window of {sliding:,} tokens, below the critic's {window:,}; "
                "set use_sliding_window to false or window_tokens to at most as much"
            )
        return cls(
            name=data.get("name") or folder.name,
            base=base,
            bidirectional_from=first,
            window_tokens=window,
            labels=labels,
            tag_head=own["tag_head"],
            outside_word=own["outside_word"],
            thresholds=own["thresholds"] or {},
        )

    def to_json(self) -> str:
        """What ``config.json`` holds: the base's settings and a section of our own."""
        data = self.base.to_dict()
        rope = data.get("rope_parameters") or {}
        if "rope_theta" in rope:
            data["rope_theta"] = rope["rope_theta"]  # where transformers below 5 looks for it
        data["architectures"] = ["HybridCritic"]
        own = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in ("name", "base")}
        data["name"] = self.name
        data[_SECTION] = {**own, "thresholds": dict(self.thresholds)}
        return json.dumps(data, indent=2, ensure_ascii=False, default=str) + "\n"


def read_settings(folder: Path) -> dict[str, Any]:
    """``config.json`` as it is. Raises CheckpointError where it is missing or damaged."""
    path = folder / "config.json"
    try:
        data: Any = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CheckpointError(f"{path} is missing; {folder} is not a critic's folder") from None
    except (OSError, ValueError) as error:
        raise CheckpointError(f"cannot read {path}: {error}; download or save the critic again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{path} holds no JSON object; download or save the critic again")
    return data


def load_hybrid(
    folder: Path, device: torch.device | Mapping[str, Any], dtype: WeightFormat, *, new_head: bool = False
) -> tuple[HybridCritic, HybridConfig, ChatTokenizer]:
    """A hybrid critic on its device, in evaluation mode.

    Args:
        device: where it goes; or which module goes where, as accelerate's ``infer_auto_device_map`` says.
        dtype: the weights' number format.
        new_head: where the folder is a base model without a critic's head, it gets a new one.

    Raises:
        CheckpointError: a file is missing or damaged, a tensor is missing, extra or of another shape (each is named),
            or the tokenizer belongs to another model.
        DeviceError: the device has too little memory; the message says what would fit.
    """
    config, tokenizer, critic, files = open_hybrid(folder, new_head=new_head)
    if isinstance(device, torch.device):
        check_memory(critic, config.name, config.window_tokens, device, dtype)
    order = [config.labels.index(label) for label in LABELS]
    with ExitStack() as stack:
        readers = {path: stack.enter_context(safe_open(path, framework="pt")) for path in set(files.values())}
        for name, module in _parts(critic):
            where = device if isinstance(device, torch.device) else _place(name, device)
            tensors = {}
            for key in module.state_dict():
                full = f"{name}.{key}"
                if full not in files:  # the new head
                    fresh = torch.zeros if key == "bias" else torch.randn
                    tensors[key] = 0.02 * fresh(module.get_parameter(key).shape, dtype=dtype.torch_dtype, device=where)
                    continue
                tensor = _read(readers[files[full]], full, files).to(dtype.torch_dtype)
                if full.startswith("cls_head.") and order != [0, 1, 2, 3]:
                    tensor = tensor[order]
                tensors[key] = tensor.to(where)
            module.load_state_dict(tensors, assign=True)
            if dtype.is_fp8 and name.startswith("model.layers."):
                dtype.quantize(module)
    critic.rebuild_rotary(device if isinstance(device, torch.device) else _place("model.rotary_emb", device))
    return critic.eval().requires_grad_(False), config, tokenizer


def open_hybrid(
    folder: Path, *, new_head: bool = False
) -> tuple[HybridConfig, ChatTokenizer, HybridCritic, dict[str, Path]]:
    """Everything but the weights: settings, tokenizer, a critic on the meta device, and the file of every tensor.

    Raises:
        CheckpointError: as for `load_hybrid`.
    """
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; pass a critic's folder or the name of one on the hub")
    config = HybridConfig.from_folder(folder)
    tokenizer = ChatTokenizer.from_folder(folder)
    rows = config.base.vocab_size
    # Tables are padded to round numbers, by a few hundred rows in all Qwen models.
    if not tokenizer.vocab_size <= rows <= 1.05 * tokenizer.vocab_size + 1_024:
        raise CheckpointError(
            f"the tokenizer in {folder} has {tokenizer.vocab_size:,} tokens, the critic {rows:,}; "
            "they do not belong together"
        )
    files, shapes = _tensor_files(folder)
    if config.tag_head is None and "lm_head.weight" in files:
        config = replace(config, tag_head="lm_head")
    fresh = new_head and "cls_head.weight" not in files
    if fresh and config.outside_word is None:
        tag_head = config.tag_head or ("tied" if config.base.tie_word_embeddings else None)
        config = replace(config, tag_head=tag_head, outside_word="outside" if tag_head else None)
    outside = tokenizer.word_ids(config.outside_word).tolist() if config.outside_word else []
    with torch.device("meta"):
        critic = HybridCritic(
            config.base,
            config.bidirectional_from,
            tag_head=config.tag_head,
            outside_ids=outside,
            head_bias=fresh or "cls_head.bias" in files,
        )
    head = {f"cls_head.{key}": tuple(tensor.shape) for key, tensor in critic.cls_head.state_dict().items()}
    _check_tensors(folder, critic, shapes | head if fresh else shapes)
    return config, tokenizer, critic, files


def save_hybrid(
    folder: Path, critic: HybridCritic, config: HybridConfig, tokenizer_json: str, *, small: bool = False
) -> None:
    """Write a hybrid critic's folder; ``small`` stores matrices as int8 with a scale per row."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in critic.state_dict().items()}
    save_file(shrink(tensors) if small else tensors, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "config.json").write_text(config.to_json(), encoding="utf-8")
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")


def digest(folder: Path) -> str:
    """Tells this critic from others without reading gigabytes: weights count by name, size and time of change."""
    content = hashlib.blake2b(digest_size=16)
    for path in sorted(folder.iterdir()):
        stat = path.stat()
        content.update(f"{path.name} {stat.st_size}".encode())
        if path.suffix == ".safetensors":
            content.update(str(stat.st_mtime_ns).encode())
        elif path.suffix in (".json", ".txt"):
            content.update(path.read_bytes())
    return content.hexdigest()


def find_folder(name: str) -> Path:
    """The local folder of a critic on the Hugging Face hub, fetched where it is not there yet.

    Raises:
        CheckpointError: it cannot be had; one line says what was tried and how to point at a local folder.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError

    try:
        patterns = ["*.json", "*.safetensors", "merges.txt"]
        return Path(snapshot_download(name, allow_patterns=patterns))
    except HFValidationError:
        raise CheckpointError(
            f"{name} is not a folder; pass a critic's folder, the name of one on the hub ('organisation/model'), "
            "or nothing for the embedded critic"
        ) from None
    except Exception as error:  # offline, no such repository, no right to read it
        reason = " ".join(str(error).split()).split(". ")[0].split(" An error happened")[0]
        raise CheckpointError(
            f"there is no folder {name!r} here, and fetching {name!r} from the hub failed "
            f"({type(error).__name__}: {reason[:200]}); download it elsewhere and pass the local folder"
        ) from None


def _find(data: Any, key: str, path: Path) -> Any:
    """The value of ``key`` at any depth; None where it does not occur."""
    found = list(_occurrences(data, key))
    if any(value != found[0] for value in found):
        raise CheckpointError(f"{path} says {key!r} several times and not the same: {found}; keep one of them")
    return found[0] if found else None


def _occurrences(data: Any, key: str) -> Iterator[Any]:
    if isinstance(data, dict):
        if data.get(key) is not None:
            yield data[key]
        data = list(data.values())
    if isinstance(data, list):
        for value in data:
            yield from _occurrences(value, key)


def _tensor_files(folder: Path) -> tuple[dict[str, Path], dict[str, tuple[int, ...]]]:
    """File and shape of every tensor; only headers are read."""
    index = folder / "model.safetensors.index.json"
    if index.exists():
        try:
            paths = sorted({folder / Path(name).name for name in json.loads(index.read_text())["weight_map"].values()})
        except (OSError, ValueError, KeyError, AttributeError) as error:
            raise CheckpointError(f"cannot read {index}: {error}; download the critic again") from error
    else:
        paths = [folder / "model.safetensors"]
    missing = [path.name for path in paths if not path.exists()]
    if missing:
        pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt"))
        hint = "pickled weights are never read: convert them to safetensors" if pickled else "download the critic again"
        raise CheckpointError(f"the weights are incomplete, {folder} lacks {', '.join(missing)}; {hint}")
    files: dict[str, Path] = {}
    shapes: dict[str, tuple[int, ...]] = {}
    for path in paths:
        try:
            with safe_open(path, framework="pt") as reader:
                for name in reader.keys():  # noqa: SIM118 - not a mapping
                    files[name] = path
                    shapes[name] = tuple(reader.get_slice(name).get_shape())
        except Exception as error:  # a cut file, a header that is not JSON
            raise CheckpointError(f"cannot read the weights {path}: {error}; download the critic again") from error
    return files, shapes


def _check_tensors(folder: Path, critic: HybridCritic, found: Mapping[str, tuple[int, ...]]) -> None:
    expected = {name: tuple(tensor.shape) for name, tensor in critic.state_dict().items()}
    ignored = {"lm_head.weight"} if critic.tag_head == "tied" else set()
    extra = {
        name
        for name in found.keys() - expected.keys() - ignored
        if not name.endswith((".rotary_emb.inv_freq", _SCALE))  # old checkpoints carry the first, small ones the second
    }
    if "cls_head.weight" in expected.keys() - found.keys() and not extra - {"lm_head.weight"}:
        raise CheckpointError(
            f"{folder} is a base model without a critic's head (cls_head.weight is missing); "
            "train one with: cprs train --base FOLDER"
        )
    problems = [f"{name} is missing" for name in expected.keys() - found.keys()]
    problems += [f"{name} is not part of this critic" for name in extra]
    problems += [
        f"{name} has shape {found[name]}, not {expected[name]}"
        for name in expected.keys() & found.keys()
        if found[name] != expected[name]
    ]
    if problems:
        raise CheckpointError(f"the weights in {folder} do not fit: {'; '.join(sorted(problems))}")


def _read(reader: Any, name: str, files: Mapping[str, Path]) -> Tensor:
    tensor: Tensor = reader.get_tensor(name)
    if name + _SCALE in files:
        tensor = tensor.float() * reader.get_tensor(name + _SCALE).float()
    return tensor


def _parts(critic: HybridCritic) -> Iterator[tuple[str, torch.nn.Module]]:
    """What is loaded at a time, so that the peak stays near the size of the model: layers, and the rest."""
    yield "model.embed_tokens", critic.model.embed_tokens
    for index, layer in enumerate(critic.layers):
        yield f"model.layers.{index}", layer
    yield "model.norm", critic.model.norm
    yield "cls_head", critic.cls_head
    if critic.lm_head is not None:
        yield "lm_head", critic.lm_head


def _place(name: str, device_map: Mapping[str, Any]) -> Any:
    """Device of a module: its own entry or that of what holds it."""
    while name and name not in device_map:
        name = name.rpartition(".")[0]
    return device_map[name]
