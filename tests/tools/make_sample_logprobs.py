"""Log-probabilities that an independent implementation gives the samples of models/kedge-tiny.

The oracle is transformers' `KimiLinearForCausalLM` in float32 on dequantised weights.
Needs: torch, transformers >= 5.23, safetensors.
Usage: make_sample_logprobs.py models/kedge-tiny OUT.json
Writes {name: [natural log-probability of each output id, given all ids before it]}.
"""
import json
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from transformers import KimiLinearForCausalLM

BLOCK = 128


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
    Path(out).write_text(json.dumps(result, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
