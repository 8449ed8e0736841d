# pyright: basic, reportMissingImports=false, reportMissingTypeStubs=false, reportArgumentType=false
# pyright: reportAttributeAccessIssue=false
# It runs in an environment of its own, whose packages are not those of this one.
"""What is done in the quantisation environment: `python w4a16_tool.py JOB.json`. It imports nothing of distill.

A job is a JSON object: `do` (`versions`, `quantise`, `answer`), `result` (the file for what was found) and what the job
needs. Token ids come in and token ids go out: prompts and texts are made in distill's own environment, with the
template and the tokenizer of the training. Progress goes to stdout, a number a line.
"""

import json
import os
import sys
import time
from importlib.metadata import version
from pathlib import Path

os.environ.update(HF_HUB_OFFLINE="1", TRANSFORMERS_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

GROUP_SIZES = (128, 64, 32)


def versions(job):
    """What is installed here."""
    return {name: version(name) for name in ("torch", "transformers", "llmcompressor", "compressed-tensors")}


def quantise(job):
    """Write the model of `model` to `out` with 4-bit weights, calibrated on `rows` (token ids)."""
    import torch
    from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM

    torch.manual_seed(job["seed"])
    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"]))
    group_size = _group_size(model)
    gptq = job["method"] == "gptq"
    weights = QuantizationArgs(num_bits=4, type="int", strategy="group", group_size=group_size, symmetric=gptq)
    scheme = {"config_groups": {"all": QuantizationScheme(targets=["Linear"], weights=weights)}, "ignore": ["lm_head"]}
    rows = [{"input_ids": torch.tensor([ids]), "attention_mask": torch.ones(1, len(ids), dtype=torch.long)}
            for ids in job["rows"]]  # fmt: skip
    oneshot(
        model=model,
        recipe=_recipe(gptq, scheme),
        dataset=torch.utils.data.DataLoader(rows, batch_size=None),
        num_calibration_samples=len(rows),
        pipeline="sequential",
    )
    model.save_pretrained(job["out"], save_compressed=True)
    return {"group_size": group_size, "symmetric": gptq, "versions": versions(job)}


def answer(job):
    """Greedy continuations of `prompts` by the model in `model`, and the seconds they took."""
    import torch
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["dtype"])).eval()
    prompts, pad = job["prompts"], job["pad"]
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found, times = {}, []

    def batch(chosen):
        longest = max(len(prompts[i]) for i in chosen)
        short = [longest - len(prompts[i]) for i in chosen]
        made = model.generate(
            input_ids=torch.tensor([[pad] * n + prompts[i] for n, i in zip(short, chosen, strict=True)]),
            attention_mask=torch.tensor([[0] * n + [1] * (longest - n) for n in short]),
            max_new_tokens=job["max_tokens"],
            do_sample=False,
            repetition_penalty=1.0,  # whatever the model's own settings say
            temperature=None,
            top_p=None,
            top_k=None,
            eos_token_id=job["stops"],
            pad_token_id=pad,
        )
        return made[:, longest:].tolist()

    with torch.inference_mode():
        started = time.perf_counter()
        for start in range(0, len(order), job["batch_size"]):
            chosen = order[start : start + job["batch_size"]]
            found.update(zip(chosen, batch(chosen), strict=True))
            print(len(found), flush=True)
        seconds = time.perf_counter() - started
        count = min(job["latency_items"], len(prompts))
        for k in range(count):
            started = time.perf_counter()
            batch([k * len(prompts) // count])
            times.append(time.perf_counter() - started)
    return {"answers": [found[i] for i in range(len(prompts))], "seconds": seconds, "times": times}


def _group_size(model):
    """The largest that divides the inputs of every layer."""
    import torch

    columns = {
        module.in_features
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and name != "lm_head"
    }
    fitting = [size for size in GROUP_SIZES if all(width % size == 0 for width in columns)]
    if not fitting:
        raise SystemExit(f"the layers' widths {sorted(columns)} are no multiples of {GROUP_SIZES[-1]}")
    return fitting[0]


def _recipe(gptq, scheme):
    if gptq:
        from llmcompressor.modifiers.gptq import GPTQModifier

        return [GPTQModifier(**scheme)]
    import torch
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        # 0.14 pins memory for transfers to a device, and dies where there is none.
        IntermediatesCache.pin_memory = lambda *args, **kwargs: None
    return [AWQModifier(), QuantizationModifier(**scheme)]


if __name__ == "__main__":
    given = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    found = {"versions": versions, "quantise": quantise, "answer": answer}[given["do"]](given)
    Path(given["result"]).write_text(json.dumps(found), "utf-8")
