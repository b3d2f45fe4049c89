"""A model that knows a few texts by heart and nothing else, with a tokenizer of single letters: rigged answers for tests."""

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from torch import nn
from transformers import GenerationMixin, PretrainedConfig, PreTrainedModel, PreTrainedTokenizerFast
from transformers.modeling_outputs import CausalLMOutput


class RiggedConfig(PretrainedConfig):
    model_type = "rigged"


class Rigged(PreTrainedModel, GenerationMixin):
    """After a beginning of one of its `texts` (token ids) it is sure of the next token; elsewhere it knows nothing."""

    config_class = RiggedConfig
    main_input_name = "input_ids"

    def __init__(self, texts: list[list[int]], vocabulary: int):
        super().__init__(RiggedConfig(vocab_size=vocabulary, num_hidden_layers=1, pad_token_id=0, eos_token_id=1))
        self.embedding = nn.Embedding(vocabulary, 2)
        self.texts = [torch.tensor(text) for text in texts]
        self.post_init()

    def get_input_embeddings(self):
        return self.embedding

    def prepare_inputs_for_generation(self, input_ids, **kwargs):
        return {"input_ids": input_ids}

    def forward(self, input_ids, attention_mask=None, **kwargs):
        logits = torch.zeros(*input_ids.shape, self.config.vocab_size)
        for row, ids in zip(logits, input_ids, strict=True):
            start = int((ids > 1).int().argmax())  # behind padding and the begin token
            for text in self.texts:
                same = min(len(ids) - start, len(text))
                known = int(
                    (ids[start : start + same] == text[:same]).int().cumprod(0).sum()
                )  # tokens of the text so far
                places = torch.arange(min(known, len(text) - 1))
                row[start + places, text[places + 1]] = 30
        return CausalLMOutput(logits=logits)


def letters(*texts: str) -> PreTrainedTokenizerFast:
    """A token a letter, of those that occur."""
    alphabet = sorted(set("".join(texts)) - {"?"})
    backend = Tokenizer(
        models.WordLevel({c: i for i, c in enumerate(["<pad>", "<|endoftext|>", "?", *alphabet])}, unk_token="?")
    )
    backend.pre_tokenizer, backend.decoder = pre_tokenizers.Split("", "isolated"), decoders.Fuse()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="?", pad_token="<pad>", eos_token="<|endoftext|>", bos_token="<|endoftext|>"
    )


def rigged(*texts: str) -> tuple[Rigged, PreTrainedTokenizerFast]:
    tokenizer = letters(*texts)
    return Rigged([tokenizer(text)["input_ids"] for text in texts], len(tokenizer)), tokenizer
