"""The seam of `auto`: what is loaded, what it answers, how fast, and what it does without evidence."""

from __future__ import annotations

import io
import subprocess
import sys
import time
import zipfile
from collections.abc import Sequence
from importlib.metadata import EntryPoint, EntryPoints
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bursar.budget.errors import ConfigError
from bursar.runtime.models.provider import Message
from bursar.runtime.routing import classifier as module
from bursar.runtime.routing.classifier import GROUP, Verdict, load_classifier
from bursar.runtime.routing.trained_file import write_trained
from bursar.runtime.routing.training import Training
from tests.unit.runtime.routing.corpus import corpus

EASY = next(row.text for row in corpus(50, seed=11) if row.tier == "small")


def asked(text: str) -> list[Message]:
    return [{"role": "user", "content": text}]


@pytest.fixture(scope="module")
def file(training: Training, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("routes") / "auto.npz"
    write_trained(path, training.classifier)
    return path


# What it answers


def test_a_verdict_says_how_sure_it_is_and_on_what_evidence(training: Training) -> None:
    assert training.down
    assert training.down.certified
    found = [training.classifier.classify(asked(row.text)) for row in corpus(200, seed=11)]
    verdict = next(verdict for verdict in found if verdict.tier == "small")
    trial = training.down.certified
    assert trial.threshold <= verdict.confidence <= 1
    assert verdict.reason == (
        f"auto: small at {verdict.confidence:.2f} (threshold {trial.threshold:.2f}, certified on {trial.routed} labels)"
    )
    kept = next(verdict for verdict in found if verdict.tier == "frontier")
    assert kept.reason == f"auto: frontier at {kept.confidence:.2f}, the incumbent"
    unsure = next(verdict for verdict in found if verdict.tier is None)
    assert unsure.confidence == 0
    assert unsure.reason.startswith("auto: no evidence (small at 0.")
    assert unsure.reason.endswith(f", under {trial.threshold:.2f})")


@settings(deadline=None)  # the first verdict comes before what it needs is in the cache
@given(st.text(st.characters(min_codepoint=0x370, max_codepoint=0x2FA1F, exclude_categories=("Zs", "Cc")), min_size=1))
def test_text_in_a_script_that_training_never_saw_is_no_evidence(training: Training, text: str) -> None:
    assert training.classifier.classify(asked(text)).tier is None


@settings(deadline=None)  # the first verdict comes before what it needs is in the cache
@given(st.text())
def test_no_text_at_all_breaks_it_and_a_cheap_tier_is_named_only_above_the_threshold(
    training: Training, text: str
) -> None:
    verdict = training.classifier.classify(asked(text))
    trial = training.classifier.down.trial
    assert trial
    assert verdict.tier != "small" or verdict.confidence >= trial.threshold


def test_text_of_which_too_little_is_known_is_no_evidence_however_sure_the_rest_makes_it(training: Training) -> None:
    foreign = " ".join("zwxyvuqk" for _ in EASY.split()) + " " + "jxwqzkvy " * 30
    verdict = training.classifier.classify(asked(f"{EASY} {foreign}"))
    assert verdict.tier is None
    assert "of its n-grams are known, expected 90 %" in verdict.reason


def test_what_is_not_text_is_no_evidence(training: Training) -> None:
    image = [{"type": "text", "text": EASY}, {"type": "image_url", "image_url": {"url": "https://a/b.png"}}]
    for messages in ([], [{"role": "system", "content": EASY}], [{"role": "user", "content": image}]):
        assert training.classifier.classify(messages) == Verdict(
            tier=None, confidence=0.0, reason="auto: no evidence (no text of a user alone)"
        )


def test_case_and_space_do_not_change_a_verdict(training: Training) -> None:
    plain, other = (training.classifier.classify(asked(text)) for text in (EASY, EASY.upper().replace(" ", "\n  ")))
    assert plain == other


# How fast


def test_a_verdict_takes_a_millisecond_at_most_and_a_book_no_longer_than_a_page(training: Training) -> None:
    words = " ".join(row.text for row in corpus(400, seed=12))
    for size in (200, 2_000, 8_000, 80_000):
        times = []
        for start in range(200):
            messages = asked(words[start : start + size])
            before = time.thread_time()  # other work on this machine is not the classifier's
            training.classifier.classify(messages)
            times.append(time.thread_time() - before)
        assert np.percentile(times, 50) < 0.001
        assert np.percentile(times, 99) < 0.002


def test_asking_imports_neither_scikit_learn_nor_scipy_and_the_seam_imports_not_even_numpy(file: Path) -> None:
    code = f"""
import sys
from pathlib import Path
from bursar.runtime.routing.classifier import load_classifier
from bursar.runtime.routing.labels import append
assert "numpy" not in sys.modules
print(load_classifier({file.name!r}, base=Path({str(file.parent)!r})).classify([{{"role": "user", "content": "a b"}}]))
assert not {{"sklearn", "scipy"}} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


# The file


def test_what_is_read_is_what_was_written(file: Path, training: Training) -> None:
    loaded = load_classifier(file.name, base=file.parent)
    assert loaded.digest == training.classifier.digest
    assert len(loaded.digest) == 16
    for row in corpus(100, seed=13):
        assert loaded.classify(asked(row.text)) == training.classifier.classify(asked(row.text))


def test_the_file_holds_numbers_and_json_and_no_pickle(file: Path) -> None:
    with zipfile.ZipFile(file) as archive:
        for name in archive.namelist():
            array = np.load(io.BytesIO(archive.read(name)), allow_pickle=False)
            assert array.dtype.kind in "uf"
    assert EASY.split()[0].encode() not in b"".join(zipfile.ZipFile(file).read(n) for n in archive.namelist())


@settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(where=st.floats(0, 1, exclude_max=True), bit=st.integers(0, 7), cut=st.booleans())
def test_a_damaged_file_is_refused_or_read_as_it_was(
    file: Path, tmp_path: Path, where: float, bit: int, cut: bool
) -> None:
    content = bytearray(file.read_bytes())
    place = int(where * len(content))
    content[place] ^= 1 << bit
    damaged = tmp_path / "damaged.npz"
    damaged.write_bytes(content[:place] if cut else content)
    try:
        loaded = load_classifier(damaged.name, base=tmp_path)
    except ConfigError as error:
        assert "is no trained classifier, or a damaged one" in str(error)  # noqa: PT017  # either end is right
    else:
        assert loaded.digest == load_classifier(file.name, base=file.parent).digest


@pytest.mark.parametrize("content", [b"", b"\x80\x04\x95pickle", b"PK\x05\x06" + bytes(18), b'{"tiers": []}'])
def test_a_foreign_file_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "other.npz").write_bytes(content)
    with pytest.raises(ConfigError, match=r"other\.npz: is no trained classifier.*bursar route train"):
        load_classifier("other.npz", base=tmp_path)


def test_a_file_of_objects_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    names = ("meta", "keys", "idf", "weights", "bias", "seen")
    objects = np.array([subprocess.Popen, "echo"], dtype=object)
    np.savez(tmp_path / "objects.npz", allow_pickle=True, **dict.fromkeys(names, objects))
    with pytest.raises(ConfigError, match="allow_pickle=False"):
        load_classifier("objects.npz", base=tmp_path)


def test_a_file_that_is_not_there_says_how_to_make_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"auto\.npz: cannot be read: No such file.*bursar route train"):
        load_classifier("routes/auto.npz", base=tmp_path)


def test_without_numpy_it_says_what_to_install(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("bursar.runtime.routing.trained")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "numpy", None)
    with pytest.raises(ConfigError, match=r"pip install 'bursar\[routing\]'"):
        load_classifier(file.name, base=file.parent)


# Classifiers of others


class Always:
    """Whatever is asked, the same."""

    digest = "0" * 16

    def __init__(self, base: Path) -> None:
        self.base = base

    def classify(self, messages: Sequence[Message]) -> Verdict:
        return Verdict(tier="small", confidence=1.0, reason="auto: always small")


@pytest.fixture
def others(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """An importable module, and two entry points into it."""
    made = ModuleType("house_classifiers")
    vars(made).update(always=Always, nothing=lambda base: object(), broken=lambda base: 1 / 0, number=7)
    monkeypatch.setitem(sys.modules, made.__name__, made)
    points = EntryPoints(
        [EntryPoint("house", "house_classifiers:always", GROUP), EntryPoint("gone", "house_classifiers:gone", GROUP)]
    )
    monkeypatch.setattr(module, "entry_points", lambda group: points.select(group=group))
    return made


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize("reference", ["house", "house_classifiers:always"])
def test_a_classifier_of_ones_own_is_named_by_its_entry_point_or_its_module(reference: str, tmp_path: Path) -> None:
    loaded = load_classifier(reference, base=tmp_path)
    assert isinstance(loaded, Always)
    assert loaded.base == tmp_path
    assert loaded.classify(asked("a")).tier == "small"


@pytest.mark.usefixtures("others")
@pytest.mark.parametrize(
    ("reference", "said"),
    [
        ("hous", r"expected a file ending in \.npz, module:function, or an entry point.*did you mean house\?"),
        ("gone", "AttributeError"),
        ("house_classifiers:missing", "AttributeError"),
        ("no_such_module:always", "ModuleNotFoundError"),
        ("house_classifiers:nothing", "object has no classify or no digest"),
        ("house_classifiers:broken", "ZeroDivisionError"),
        ("house_classifiers:number", "expected a function of a folder, not int"),
    ],
)
def test_a_reference_that_leads_nowhere_is_a_mistake_that_is_named(reference: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"classifier '?{reference}'?: .*{said}"):
        load_classifier(reference, base=tmp_path)
