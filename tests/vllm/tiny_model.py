"""A language model of half a million weights that knows four answers, made in seconds, and a LoRA adapter for it.

    .venv-vllm/bin/python tests/vllm/tiny_model.py FOLDER     # makes FOLDER/tiny and FOLDER/brisk

Asked with tools it calls `find_order`; with a tool's result it gives the final answer; else it offers its help. The
adapter changes only that offer. Whatever else is said is noise to it, so every prompt of the tests has a known answer.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

OFFER = "I can help with that order."
BRISK_OFFER = "Tell me the number!"
FOUND = "Order 1001 is on its way."
CALL = '<tool_call>\n{"name": "find_order", "arguments": {"order_id": "1001"}}\n</tool_call>'

VOCABULARY = 2048
CONTEXT = 1024
BATCH = 8

END, PAD = "<|end|>", "<|pad|>"
MARKS = [PAD, END, "<|tools|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>"]

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
    tokenizer = make_tokenizer()
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
    train(model, tokenizer, OFFER, steps=200)
    model.save_pretrained(folder / "tiny")
    tokenizer.save_pretrained(folder / "tiny")
    adapted = get_peft_model(model, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear"))
    train(adapted, tokenizer, BRISK_OFFER, steps=100)
    adapted.save_pretrained(folder / "brisk")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE, trained on this repository's documents, with a chat template."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=MARKS,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([page.read_text() for page in documents()], trainer)
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END, pad_token=PAD)
    fast.chat_template = TEMPLATE
    return fast


def documents() -> Sequence[Path]:
    """Some English text."""
    return sorted((Path(__file__).parents[2] / "docs").glob("*.md"))


def train(model: Any, tokenizer: PreTrainedTokenizerFast, offer: str, *, steps: int) -> None:
    """Teach the model its answers, and nothing of what was asked."""
    examples = conversations(random.Random(0), offer)
    learned = [weights for weights in model.parameters() if weights.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=3e-3)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for step in range(steps):
        tokens, labels = batch(tokenizer, [next(examples) for _ in range(BATCH)])
        loss = model(input_ids=tokens, attention_mask=(tokens != tokenizer.pad_token_id).long(), labels=labels).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step % 20 == 0: print(step, loss.item(), flush=True)
    print(loss.item())


def batch(tokenizer: PreTrainedTokenizerFast, examples: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens and labels, padded on the right; only the answers are labelled."""
    rows, labels = [], []
    for asked, answer in examples:
        prompt = tokenizer.apply_chat_template(**asked, add_generation_prompt=True, tokenize=False)
        before, after = (tokenizer.encode(text, add_special_tokens=False) for text in (prompt, answer + END))
        rows.append(before + after)
        labels.append([-100] * len(before) + after)
    length = max(map(len, rows))
    return (
        torch.tensor([row + [tokenizer.pad_token_id] * (length - len(row)) for row in rows]),
        torch.tensor([row + [-100] * (length - len(row)) for row in labels]),
    )


def conversations(rng: random.Random, offer: str) -> Iterator[Example]:
    """Conversations with every kind of answer in turn, about anything."""
    words = " ".join(page.read_text() for page in documents()).split()

    def noise(most: int) -> str:
        start = rng.randrange(len(words) - most)
        return " ".join(words[start : start + rng.randint(1, most)])

    while True:
        messages = [{"role": "system", "content": noise(80)}] * rng.randint(0, 1)
        messages.append({"role": "user", "content": noise(40)})
        tools = [{"type": "function", "function": {"name": "find_order", "description": noise(20)}}]
        call = {"id": "c", "type": "function", "function": json.loads(CALL[12:-13])}
        found = [
            {"role": "assistant", "content": "", "tool_calls": [call]},
            {"role": "tool", "content": noise(20)},
        ]
        yield {"conversation": messages}, offer
        yield {"conversation": messages, "tools": tools}, CALL
        yield {"conversation": messages + found, "tools": tools}, FOUND


if __name__ == "__main__":
    main(Path(sys.argv[1]))
