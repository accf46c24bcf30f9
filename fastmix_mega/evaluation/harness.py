"""Tasks of lm-evaluation-harness on a checkpoint: our model as its LM, without an export.

The library is an optional extra: it is imported when tasks are asked for, and not before.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch.distributed as dist

from fastmix_mega.data.tokenizer import Tokenizer
from fastmix_mega.errors import UserError
from fastmix_mega.evaluation.generate import greedy
from fastmix_mega.evaluation.model import AnsweringModel
from fastmix_mega.evaluation.scoring import Continuation, Score, score

Item = TypeVar("Item")
Answer = TypeVar("Answer")
INSTALL = "pip install 'fastmix-mega[eval]'"
NEW_TOKENS = 256
"""Of an answer whose task gives no limit."""


def find_tasks(names: Sequence[str], folders: Sequence[str | Path]) -> Any:
    """lm-evaluation-harness's manager, with tasks of the user's folders beside its own.

    Raises:
        UserError: if the library is missing, or has no such task.
    """
    try:
        from lm_eval.tasks import TaskManager
    except ImportError as error:
        raise UserError(
            f"--tasks needs lm-evaluation-harness ({error.name} is missing): {INSTALL}"
        ) from None
    missing = [str(folder) for folder in folders if not Path(folder).is_dir()]
    if missing:
        raise UserError(f"--include-path: {missing[0]} is no folder")
    logging.getLogger("lm_eval").setLevel(logging.WARNING)
    paths = [str(folder) for folder in folders]
    if paths:
        own = TaskManager(include_path=paths, include_defaults=False)
        matched = own.match_tasks(list(names))
        everything = all(own.match_tasks([name]) for name in names)
        # A group of one's own may hold the library's tasks; its thousands of files are read then.
        if everything and set(matched) <= set(own.all_subtasks):
            return own
    manager = TaskManager(include_path=paths or None)
    for name in names:
        if not manager.match_tasks([name]):
            raise UserError(
                f"lm-evaluation-harness has no task {name!r}; --include-path names a folder with "
                "tasks of your own"
            )
    return manager


@dataclass(frozen=True)
class TextModel:
    """A model that takes and gives text. All but `encode` is collective over a replica."""

    model: AnsweringModel
    tokenizer: Tokenizer
    batch: int
    """Texts at once on one replica."""
    length: int
    """Tokens of a text at most."""

    def encode(self, text: str) -> list[int]:
        return list(map(int, self.tokenizer.encode([text])[0]))

    def scores(self, asked: Sequence[Continuation]) -> list[Score]:
        """Of each continuation after its context; the replicas share the work."""
        return shared(
            asked, lambda part: score(self.model, part, self.batch, self.length), self.model
        )

    def answers(self, prompts: Sequence[tuple[str, dict[str, Any]]]) -> list[str]:
        """What the model writes after each prompt; the replicas share the work.

        Args:
            prompts: with lm-evaluation-harness's options of generation.

        Raises:
            NotImplementedError: if an answer shall be drawn at random.
        """
        return shared(prompts, lambda part: [self._answer(*each) for each in part], self.model)

    def _answer(self, context: str, options: dict[str, Any]) -> str:
        if options.get("do_sample") and options.get("temperature", 0) > 0:
            raise NotImplementedError("answers are greedy; set do_sample: false")
        tokenizer = self.tokenizer
        count = int(options.get("max_gen_toks", NEW_TOKENS))
        ends = as_list(options.get("until") or [])
        prompt = self.encode(context)[-max(1, self.length - count) :] or [tokenizer.eod]
        (tokens,) = greedy(self.model, [prompt], count, {tokenizer.eod}, until(tokenizer, ends))
        text = tokenizer.decode([token for token in tokens if token != tokenizer.eod])
        return cut_at(text, ends)


def run_tasks(
    manager: Any,
    names: Sequence[str],
    model: TextModel,
    *,
    shots: int | None = None,
    limit: int | None = None,
) -> dict[str, Any] | None:
    """Run tasks. Collective: every process asks the same questions and knows all answers.

    Args:
        manager: of `find_tasks`.
        names: of tasks, groups or patterns.
        model: to ask.
        shots: examples before each question; None for each task's own number.
        limit: documents of each task; None for all.

    Returns:
        lm-evaluation-harness's results, without its samples; None on all processes of a machine
        but its first.

    Raises:
        UserError: if a task's data or configuration is broken.
    """
    from lm_eval.evaluator import simple_evaluate

    chosen = manager.match_tasks(list(names))
    try:
        found: dict[str, Any] | None = simple_evaluate(
            model=_language_model(model),
            tasks=chosen,
            task_manager=manager,
            num_fewshot=shots,
            limit=limit,
            log_samples=False,
            bootstrap_iters=1000,
        )
    except (OSError, KeyError, ValueError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:500]
        raise UserError(
            f"lm-evaluation-harness cannot run {', '.join(chosen)}: {reason}"
        ) from error
    return found


def result_table(results: dict[str, Any]) -> str:
    """As lm-evaluation-harness prints it."""
    from lm_eval.utils import make_table

    return str(make_table(results))


def _language_model(model: TextModel) -> Any:
    """Our model as an lm_eval LM; a class of its own inside, since its base is optional."""
    from lm_eval.api.model import TemplateLM
    from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

    class FastmixModel(TemplateLM):
        @property
        def eot_token_id(self) -> int:
            return model.tokenizer.eod

        @property
        def prefix_token_id(self) -> int:
            """Before a text without context: what stands before every document in training."""
            return model.tokenizer.eod

        @property
        def tokenizer_name(self) -> str:
            return model.tokenizer.sha256

        def tok_encode(self, string: str, **_: Any) -> list[int]:
            return model.encode(string)

        def _loglikelihood_tokens(
            self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
        ) -> list[tuple[float, bool]]:
            asked = [Continuation(context, tokens) for _, context, tokens in requests]
            return [(each.log_probability, each.is_greedy) for each in model.scores(asked)]

        def loglikelihood_rolling(self, requests: Sequence[Any], **_: Any) -> list[float]:
            windows = [
                [
                    Continuation(*make_disjoint_window(pair))
                    for pair in get_rolling_token_windows(
                        self.tok_encode(request.args[0]), self.prefix_token_id, model.length, 1
                    )
                ]
                for request in requests
            ]
            flat = [window for text in windows for window in text]
            found = iter(model.scores(flat))
            return [sum(next(found).log_probability for _ in text) for text in windows]

        def generate_until(self, requests: Sequence[Any], **_: Any) -> list[str]:
            return model.answers([request.args for request in requests])

    return FastmixModel()


def shared(
    items: Sequence[Item], answer: Callable[[Sequence[Item]], list[Answer]], model: AnsweringModel
) -> list[Answer]:
    """Each data-parallel replica answers its share; all know all answers, in the items' order."""
    data = model.layout.data
    mine = answer(items[data.rank :: data.size])
    if data.size == 1:
        return mine
    parts: list[Any] = [None] * data.size
    dist.all_gather_object(parts, mine, group=data.group)
    return [parts[at % data.size][at // data.size] for at in range(len(items))]


def as_list(ends: str | Sequence[str]) -> list[str]:
    return [ends] if isinstance(ends, str) else list(ends)


def until(tokenizer: Tokenizer, ends: Sequence[str]) -> Callable[[list[int]], bool]:
    """Whether an answer holds one of the texts that end it."""

    def done(tokens: list[int]) -> bool:
        text = tokenizer.decode(tokens) if ends else ""
        return any(end in text for end in ends)

    return done


def cut_at(text: str, ends: Sequence[str]) -> str:
    """What stands before the first of the texts that end an answer."""
    places = [text.find(end) for end in ends if end and end in text]
    return text[: min(places)] if places else text
