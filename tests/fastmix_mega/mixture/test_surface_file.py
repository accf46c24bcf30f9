"""surface.json: a few n-grams in the place of all, read back as they were written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastmix_mega.errors import UserError
from fastmix_mega.mixture.fewer_ngrams import fewer_ngrams
from fastmix_mega.mixture.simplex import floored
from fastmix_mega.mixture.surface_file import Terms, read_surface_file, write_surface
from tests.fastmix_mega.report.surface_samples import BUDGET, random_evidence

NAMES = (["a", "b", "c", "d", "e", "f"], ["code", "answers"])


def test_few_ngrams_answer_as_all_of_them_do() -> None:
    found = random_evidence(6, 2)
    assert found.ngrams is not None
    random = np.random.default_rng(1)
    anchors = random.dirichlet(np.ones(6), 3)
    small, errors = fewer_ngrams(found.ngrams, anchors, seed=0)
    assert small.counts.weights.shape[1] < 0.5 * found.ngrams.counts.weights.shape[1]
    assert (small.counts.weights >= 0).all()
    for anchor in anchors:
        np.testing.assert_allclose(
            small.losses(anchor)[0], found.ngrams.losses(anchor)[0], atol=1e-6
        )
    others = [floored(each) for each in random.dirichlet(np.ones(6), 50)]
    gaps = [small.losses(each)[0] - found.ngrams.losses(each)[0] for each in others]
    # The error that is told is the error that is made.
    made = np.sqrt(np.mean(np.square(gaps), axis=0))
    assert (made < 0.02).all()
    assert (made < 2 * errors + 1e-6).all()
    again, _ = fewer_ngrams(found.ngrams, anchors, seed=0)
    assert np.array_equal(again.counts.weights, small.counts.weights)


def test_a_surface_is_read_back(tmp_path: Path) -> None:
    recorded, path = random_evidence(6, 2), tmp_path / "surface.json"
    found = recorded.with_runs(None)
    assert found.ngrams is not None
    even, weights = found.reference, np.array([2.0, 1.0])
    tokens = found.ngrams.counts.tokens
    answer = floored(found.best(weights))
    terms = Terms(*NAMES, weights, tokens, BUDGET)
    write_surface(path, terms, recorded, np.stack([even, answer]))
    file = read_surface_file(path)
    assert (file.sources, file.targets) == NAMES
    for got, wanted in zip(
        file.surface.differences(answer, even), found.differences(answer, even), strict=True
    ):
        np.testing.assert_allclose(got, wanted, atol=1e-5)
    np.testing.assert_allclose(file.surface.best(weights), found.best(weights), atol=0.05)
    assert file.surface.ngrams is not None
    assert file.surface.ngrams.lengths == (1, 2)
    assert file.most_share is not None
    np.testing.assert_allclose(file.most_share * BUDGET, np.minimum(8 * tokens, BUDGET))

    content = json.loads(path.read_text())
    older = json.loads(path.read_text()) | {"schema": "fastmix-surface/4"}
    del older["runs"]["short"]
    path.write_text(json.dumps(older))
    values = read_surface_file(path).recorded.values
    assert values is not None
    assert values.short.tolist() == [False] * 6
    path.write_text(json.dumps(content | {"schema": "fastmix-surface/2"}))
    with pytest.raises(UserError, match="of another version"):
        read_surface_file(path)
    content["few_ngrams"]["single_at"][0] = 10**6
    path.write_text(json.dumps(content))
    with pytest.raises(UserError, match="damaged"):
        read_surface_file(path)
    # Where scipy's compiled code would write outside of its memory.
    content["few_ngrams"]["single_at"][0] = 0
    for part, number in (("source", 10**6), ("source", -1), ("start", 10**6)):
        kept = content["few_ngrams"]["levels"][0]["followed"][part]
        content["few_ngrams"]["levels"][0]["followed"][part] = [kept[0], number, *kept[2:]]
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="damaged"):
            read_surface_file(path)
        content["few_ngrams"]["levels"][0]["followed"][part] = kept


def test_evidence_of_another_form_is_damage(tmp_path: Path) -> None:
    recorded, path = random_evidence(6, 2), tmp_path / "surface.json"
    assert recorded.ngrams is not None
    even = recorded.reference
    terms = Terms(*NAMES, np.ones(2), recorded.ngrams.counts.tokens, BUDGET)
    write_surface(path, terms, recorded, even[None])
    whole = path.read_text()
    for spoil in (
        lambda each: each["evidence"][0].update(level=[1.0]),
        lambda each: each["evidence"][0].update(level="much"),
        lambda each: each["evidence"].pop(),
        lambda each: each["constants"].update(beta={}),
        lambda each: each["reference"].pop(),
        lambda each: each["ngrams"].update(context_lengths=[1]),
        lambda each: each["ngrams"].update(context_lengths=[1, 3]),
        lambda each: each["ngrams"].update(context_lengths=[1, 0]),
        lambda each: each["runs"].update(short=[1] * 6),
        lambda each: each["runs"]["short"].pop(),
    ):
        content = json.loads(whole)
        spoil(content)
        path.write_text(json.dumps(content))
        with pytest.raises(UserError, match="damaged"):
            read_surface_file(path)
