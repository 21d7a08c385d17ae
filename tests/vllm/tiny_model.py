"""A language model of half a million weights and a LoRA adapter for it, made in half a minute.

    .venv-vllm/bin/python -m tests.vllm.tiny_model FOLDER     # makes FOLDER/tiny and FOLDER/other

It is trained until it gives the answers of `tests.vllm.answers` whatever else stands in the conversation, so that every
test knows what a real server will say.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch  # type: ignore[import-not-found]  # installed in .venv-vllm alone, like the next three
from peft import LoraConfig, get_peft_model  # type: ignore[import-not-found]
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast  # type: ignore[import-not-found]

from tests.vllm.answers import CALL, FOUND, OFFER, ORDER, OTHER_OFFER, STORY, STORY_WISH, TOOL

VOCABULARY = 2048
CONTEXT = 1024
BATCH = 8
LOSS_MAX = 0.05

END, PAD = "<|end|>", "<|pad|>"
MARKS = [PAD, END, "<|tools|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>", STORY_WISH]

TEMPLATE = """\
{%- if tools %}<|tools|>{% for tool in tools %}{{ tool | tojson }}{% endfor %}<|end|>{% endif %}
{%- for message in messages %}<|{{ message.role }}|>{{ message.content or '' }}
{%- for call in message.tool_calls or [] %}<tool_call>{{ call.function | tojson }}</tool_call>{% endfor %}<|end|>
{%- endfor %}
{%- if add_generation_prompt %}<|assistant|>{% endif %}"""

Example = tuple[dict[str, Any], str]
"""What the chat template is given, and the answer."""


def main(folder: Path) -> None:
    """Make the model and its adapter."""
    torch.manual_seed(0)
    torch.set_num_threads(2)
    text = [page.read_text() for page in sorted((Path(__file__).parents[2] / "docs").glob("*.md"))]
    tokenizer = make_tokenizer(text)
    words = " ".join(text).split()
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
    train(model, tokenizer, conversations(words, OFFER), steps=160, rate=4e-3)
    model.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    adapted = get_peft_model(model, LoraConfig(r=16, lora_alpha=16, target_modules="all-linear"))
    train(adapted, tokenizer, conversations(words, OTHER_OFFER), steps=100, rate=2e-3)
    adapted.save_pretrained(folder / "other")


def make_tokenizer(text: Sequence[str]) -> Any:
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
    tokenizer.train_from_iterator(text, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, chat_template=TEMPLATE)


def train(model: Any, tokenizer: Any, examples: Iterator[Example], *, steps: int, rate: float) -> None:
    """Teach the model the answers; exits where it did not learn them."""
    learned = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(learned)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=rate, total_steps=steps)
    recent: list[float] = []
    for _ in range(steps):
        tokens, labels = batch(tokenizer, [next(examples) for _ in range(BATCH)])
        loss = model(input_ids=tokens, attention_mask=tokens != tokenizer.pad_token_id, labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        recent = [*recent[-9:], loss.item()]
    if (mean := sum(recent) / len(recent)) > LOSS_MAX:
        sys.exit(f"the model did not learn its answers: loss {mean:.3f}, expected at most {LOSS_MAX}")


def batch(tokenizer: Any, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels, padded on the right; only the answers are labelled."""
    rows, labels = [], []
    for asked, answer in examples:
        prompt = tokenizer.apply_chat_template(**asked, add_generation_prompt=True, tokenize=False)
        before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt, answer))
        rows.append(before + after)
        labels.append([-100] * len(before) + after)
    length = max(map(len, rows))
    return (
        torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]),
        torch.tensor([row + [-100] * (length - len(row)) for row in labels]),
    )


def conversations(words: Sequence[str], offer: str) -> Iterator[Example]:
    """Conversations about anything, with each kind of answer in turn."""
    rng = random.Random(0)

    def noise(most: int) -> str:
        start = rng.randrange(len(words) - most)
        return " ".join(words[start : start + rng.randint(1, most)])

    while True:
        tools = [{"type": "function", "function": {"name": TOOL, "description": noise(60)}}]
        system = [{"role": "system", "content": noise(80)}] * rng.randint(0, 1)
        asked = [*system, {"role": "user", "content": noise(40)}]
        call = {"function": {"name": TOOL, "arguments": json.dumps(ORDER)}}
        found = [{"role": "assistant", "tool_calls": [call]}, {"role": "tool", "content": noise(20)}]
        wish = [*system, {"role": "user", "content": STORY_WISH + noise(20)}]
        yield {"conversation": asked}, offer + END
        yield {"conversation": asked, "tools": tools}, CALL + END
        yield {"conversation": asked + found, "tools": tools}, FOUND + END
        yield {"conversation": wish}, STORY * rng.randint(1, 60)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
