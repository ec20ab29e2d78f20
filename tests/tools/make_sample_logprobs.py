"""Log-probabilities that an independent implementation gives the samples of models/kedge-tiny, and
50 texts: questions of its evaluation, as an evaluation harness would score them.

The oracle is transformers' `KimiLinearForCausalLM` in float32 on dequantised weights.
Needs: torch, transformers >= 5.23, safetensors.
Usage: make_sample_logprobs.py models/kedge-tiny OUT_DIR
Writes sample_logprobs.json: {name: [natural log-probability of each output id, given all ids before it]}
and text_logprobs.json: [{text, logprobs: [of each token but the first], best: [whether it was the best]}].
"""
import gzip
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import KimiLinearForCausalLM

BLOCK = 128
TEXTS = 50
MOST_TOKENS = 160
IM_MIDDLE, IM_END = "<|im_middle|>", "<|im_end|>"


def dequantised(tensors):
    result = {}
    for name, tensor in tensors.items():
        if name.endswith(".weight_scale_inv"):
            continue
        scale = tensors.get(name.replace(".weight", ".weight_scale_inv")) if name.endswith(".weight") else None
        value = tensor.float()
        if scale is not None:
            grid = scale.repeat_interleave(BLOCK, 0).repeat_interleave(BLOCK, 1)
            value = value * grid[: value.shape[0], : value.shape[1]]
        result[name] = value.contiguous()
    return result


def main(model, out):
    with tempfile.TemporaryDirectory() as work:
        save_file(dequantised(load_file(f"{model}/model.safetensors")), f"{work}/model.safetensors", metadata={"format": "pt"})
        config = json.loads(Path(model, "config.json").read_text())
        config.pop("quantization_config")
        config["dtype"] = "float32"
        Path(work, "config.json").write_text(json.dumps(config))
        oracle, info = KimiLinearForCausalLM.from_pretrained(work, dtype=torch.float32, output_loading_info=True)
    assert not info["missing_keys"] and not info["unexpected_keys"], info
    oracle.eval()
    result = {}
    for sample in json.loads(Path(model, "samples.json").read_text()):
        prompt, output = sample["prompt_ids"], sample["output_ids"]
        with torch.no_grad():
            logits = oracle(torch.tensor([prompt + output])).logits[0].float()
        rows = logits[len(prompt) - 1 : -1].log_softmax(-1)
        result[sample["name"]] = [round(rows[i, token].item(), 6) for i, token in enumerate(output)]
        print(sample["name"], len(output), min(result[sample["name"]]))
    write(out, "sample_logprobs.json", result)
    write(out, "text_logprobs.json", [score(oracle, *text) for text in texts(model)])


def write(out, name, value):
    Path(out, name).write_text(json.dumps(value, separators=(",", ":")) + "\n")


def texts(model):
    """(text, ids) of the first user messages that are short enough, from all tasks in turn."""
    tokens = json.loads(Path(model, "tokenizer_config.json").read_text())["added_tokens_decoder"]
    special = {token["content"]: int(id) for id, token in tokens.items()}
    tasks = {}
    for line in gzip.open(f"{model}/eval.jsonl.gz", "rt"):
        item = json.loads(line)
        ids, message = item["prompt_ids"], item["messages"][0]
        if item["tools"] or message["role"] != "user":
            continue
        begin = ids.index(special[IM_MIDDLE]) + 1
        ids = ids[begin : ids.index(special[IM_END], begin)]
        if 2 <= len(ids) <= MOST_TOKENS:
            tasks.setdefault(item["task"], []).append((message["content"], ids))
    found = []
    while len(found) < TEXTS:
        for task in tasks.values():
            found += task[:1]
            del task[:1]
    return found[:TEXTS]


def score(oracle, text, ids):
    with torch.no_grad():
        rows = oracle(torch.tensor([ids])).logits[0, :-1].float().log_softmax(-1)
    found = [rows[i, token].item() for i, token in enumerate(ids[1:])]
    best = [int(rows[i].argmax() == token) for i, token in enumerate(ids[1:])]
    return {"text": text, "logprobs": [round(value, 6) for value in found], "best": best}


if __name__ == "__main__":
    main(*sys.argv[1:])
