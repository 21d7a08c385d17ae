"""A language model of half a million weights and a LoRA adapter for it, made in a few minutes.

    .venv-vllm/bin/python -m tests.vllm.tiny_model FOLDER     # makes FOLDER/tiny and FOLDER/other

It is trained until it gives the answers of `tests.vllm.answers` whatever else stands in the conversation, so that every
test knows what a real server will say. All that it reads is made here, from a seed: nothing else changes it.
"""

from __future__ import annotations

import json
import random
import string
import sys
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found]  # installed in .venv-vllm alone, like the next three
from peft import LoraConfig, get_peft_model  # type: ignore[import-not-found]
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # type: ignore[import-not-found]

from tests.vllm.answers import CALL, FOUND, OFFER, ORDER, OTHER_OFFER, STORY, STORY_WISH, TOOL

SEED = 0
VOCABULARY = 2048
CONTEXT = 1024
BATCH = 8
ROUND_STEPS = 160
ROUNDS = 8
EXAM = 192
"""Conversations that it is asked about after each round: 32 of each kind."""

CERTAIN = 0.9
"""How probable each token of a right answer has to be: far from where arithmetic decides what comes next."""

END, PAD = "<|end|>", "<|pad|>"
MARKS = [PAD, END, "<|tools|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", STORY_WISH]

SYLLABLES = """
    a al an and ar as at be by ca ce con de der di e ed el en ent er es est et ex for ful ge he i ic id il in ing ion
    is it la le les li ly ma me men ment mi mo na ne ni no not o of ol om on or ou per po pre pro qu ra re ri ro sa se
    si so st ta te th the ti tion to tra tu u un ur us ve vi wa we wh wi y you 0 1 2 3 9 10 100 ä é ß ж и 你 的 。 ?! 🙂
"""
"""What the words of its lessons are made of."""

WORDS = """
    Please look up where my refund is, the parcel came late and broken. Was kostet es? Il n'est pas arrivé: two of
    three boxes (blue, 40 x 30) are still missing! Answer briefly, e.g. "yes". Settle what you can; ask a colleague 退款
    order 1001 was paid on 2026-03-01 — thanks, Łukasz. Returns true or null if nothing_was_found, Hello and so on ...
"""
"""What its exams are written in, so that it knows more than its lessons."""

BY_NAME, ANY = json.dumps(ORDER), json.dumps([{"name": TOOL, "parameters": ORDER}])
"""What it is made to call a tool with, by its name or by any choice."""

TYPES = ["string", "integer", "number", "boolean"]

TEMPLATE = """\
{%- if tools %}<|tools|>{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>{% endif %}
{%- for message in messages %}<|{{ message.role }}|>{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|end|>
{%- endfor %}
{%- if add_generation_prompt %}
{%- if tools %}<|tools|>{% endif %}<|{{ messages[-1].role }}|>
{%- if (messages[-1].content or '').startswith('<|story|>') %}<|story|>{% endif %}<|assistant|>
{%- endif %}"""
"""It ends with a reminder of all that the answer depends on: so small a model forgets what is far above."""

Example = tuple[dict[str, Any], str, str]
"""What the chat template is given, what the server makes the model begin with, and what it goes on to write."""


def main(folder: Path) -> None:
    """Make the model and its adapter."""
    torch.manual_seed(SEED)
    torch.set_num_threads(2)
    tokenizer = make_tokenizer(lessons(OFFER))
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=128,
            intermediate_size=256,
            num_hidden_layers=2,
            num_attention_heads=4,
            max_position_embeddings=CONTEXT,
            tie_word_embeddings=True,
            bos_token_id=None,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )
    train(model, tokenizer, OFFER, rate=2e-3)
    model.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    train(adapted, tokenizer, OTHER_OFFER, rate=1e-3)
    adapted.save_pretrained(folder / "other")


def make_tokenizer(examples: Iterator[Example]) -> Any:
    """A byte-level BPE with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (json.dumps(example, ensure_ascii=False) for example in islice(examples, 4_000))
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, chat_template=TEMPLATE)


def train(model: Any, tokenizer: Any, offer: str, *, rate: float) -> None:
    """Teach the model the answers until it passes its exam; exits where it never does."""
    examples = lessons(offer)
    for number in range(ROUNDS):
        learn(model, tokenizer, examples, rate / (number + 1))
        wrong = mistakes(model, tokenizer, islice(exams(offer), EXAM))
        print(f"round {number + 1}: {wrong} of {EXAM} answers are wrong or uncertain", flush=True)
        if not wrong:
            return
    sys.exit(f"the model did not learn its answers in {ROUNDS} rounds: raise ROUNDS, or mend its lessons")


def learn(model: Any, tokenizer: Any, examples: Iterator[Example], rate: float) -> None:
    """A round of lessons."""
    learned = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(learned)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=ROUND_STEPS)
    for _ in range(ROUND_STEPS):
        tokens, labels = batch(tokenizer, [*islice(examples, BATCH)])
        loss = model(input_ids=tokens, attention_mask=tokens != tokenizer.pad_token_id, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learned, 1.0)
        optimizer.step()
        schedule.step()


@torch.no_grad()  # type: ignore[untyped-decorator]
def mistakes(model: Any, tokenizer: Any, examples: Iterator[Example]) -> int:
    """To how many of the conversations it would not write just the answer, or not with certainty."""
    wrong = 0
    while asked := [*islice(examples, BATCH)]:
        tokens, labels = batch(tokenizer, asked)
        logits = model(input_ids=tokens, attention_mask=tokens != tokenizer.pad_token_id).logits
        chances = logits[:, :-1].softmax(-1).gather(-1, tokens[:, 1:, None])[..., 0]
        wrong += ((chances < CERTAIN) & (labels[:, 1:] >= 0)).any(-1).sum().item()
    return wrong


def batch(tokenizer: Any, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels, padded on the right; only what the model writes by itself is labelled."""
    rows, labels = [], []
    for asked, begun, answer in examples:
        prompt = tokenizer.apply_chat_template(**asked, add_generation_prompt=True, tokenize=False)
        before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt + begun, answer))
        rows.append(before + after)
        labels.append([-100] * len(before) + after)
    length = max(map(len, rows))
    return (
        torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]),
        torch.tensor([row + [-100] * (length - len(row)) for row in labels]),
    )


def lessons(offer: str) -> Iterator[Example]:
    """Conversations in words that mean nothing."""
    rng, syllables = random.Random(SEED), [*SYLLABLES.split(), *string.punctuation]
    return conversations(rng, lambda: "".join(rng.choices(syllables, k=rng.randint(1, 6))), offer)


def exams(offer: str) -> Iterator[Example]:
    """Conversations in words that no lesson had."""
    rng, words = random.Random(SEED), WORDS.split()
    return conversations(rng, lambda: rng.choice(words), offer)


def conversations(rng: random.Random, word: Callable[[], str], offer: str) -> Iterator[Example]:
    """Conversations about anything, with each kind of answer in turn."""

    def noise(most: int) -> str:
        return " ".join(word() for _ in range(rng.randint(1, most)))

    def parameters() -> dict[str, Any]:
        names = ["order_id", *(word() for _ in range(rng.randint(0, 2)))]
        schema = {"type": "object", "properties": {name: {"type": rng.choice(TYPES)} for name in names}}
        return rng.choice([{"type": "object"}, schema, {**schema, "additionalProperties": False, "required": names}])

    while True:
        about = {"name": TOOL, "description": noise(40), "parameters": parameters()}
        tools = [{"type": "function", "function": about}]
        system = [{"role": "system", "content": noise(100)}] * rng.randint(0, 1)
        asked = [*system, {"role": "user", "content": noise(40)}]
        call = {"function": {"name": TOOL, "arguments": ORDER}}
        found = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": noise(30)}]
        wish = [*system, {"role": "user", "content": STORY_WISH + noise(20) * rng.randint(0, 1)}]
        yield {"conversation": asked}, "", offer + END
        yield {"conversation": asked, "tools": tools}, "", CALL + END
        yield {"conversation": asked, "tools": tools}, '{"', BY_NAME.removeprefix('{"') + END
        yield {"conversation": asked, "tools": tools}, '[{"', ANY.removeprefix('[{"') + END
        yield {"conversation": asked + found, "tools": tools}, "", FOUND + END
        yield {"conversation": wish}, "", STORY * rng.randint(1, 60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
