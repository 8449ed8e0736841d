"""bespokelabs-curator: a `curator.LLM` with the aiohttp backend, its limits out of the way (or the given one). A killed
run is continued from its cache of responses, which lies in the job's home."""

import importlib.util
import os
from pathlib import Path

# Its tokenizer is downloaded from where there is a network; litellm, which it needs, brings the same file along.
litellm = importlib.util.find_spec("litellm")
os.environ.setdefault("TIKTOKEN_CACHE_DIR", str(Path(litellm.origin).parent / "litellm_core_utils" / "tokenizers"))

from bespokelabs import curator  # noqa: E402
from datasets import Dataset  # noqa: E402
from onecall import MAX_TOKENS, TEMPERATURE, TIMEOUT_S, job, measured, write  # noqa: E402


class Writer(curator.LLM):
    """One call a row."""

    def prompt(self, row):
        return row["prompt"]

    def parse(self, row, response):
        return {"prompt": row["prompt"], "text": response}


def main():
    work = job()
    with measured() as told:
        writer = Writer(
            model_name="gpt-4o-mini",  # a name whose price it knows; the server answers to any
            backend="openai",
            batch=False,
            generation_params={"temperature": TEMPERATURE, "max_tokens": MAX_TOKENS},
            backend_params={
                "base_url": work.base_url,
                "max_concurrent_requests": work.concurrency,
                "max_requests_per_minute": work.rpm or 10_000_000,
                "max_tokens_per_minute": 100_000_000_000,
                "request_timeout": TIMEOUT_S,
                "require_all_responses": False,
            },
        )
        made = writer(Dataset.from_dict({"prompt": work.prompts()}))
        told["rows"] = write(made.dataset.to_list(), work.folder)


main()
