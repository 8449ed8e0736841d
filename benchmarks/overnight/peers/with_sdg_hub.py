"""sdg_hub: its chat block in asynchronous mode, on a table of messages."""

import pandas as pd
from onecall import MAX_TOKENS, TEMPERATURE, TIMEOUT_S, job, measured, write
from sdg_hub.core.blocks.llm import LLMChatBlock


def main():
    work = job()
    with measured() as told:
        prompts = work.prompts()
        block = LLMChatBlock(
            block_name="probe",
            input_cols="messages",
            output_cols="response",
            model="openai/mock",
            api_base=work.base_url,
            api_key="benchmark-key",
            async_mode=True,
            timeout=TIMEOUT_S,
            temperature=TEMPERATURE,
            max_tokens=MAX_TOKENS,
        )
        table = pd.DataFrame({"messages": [[{"role": "user", "content": prompt}] for prompt in prompts]})
        made = block(table, _flow_max_concurrency=work.concurrency)  # what a flow's `max_concurrency` sets
        texts = [response[0]["content"] if response else "" for response in made["response"]]
        rows = [{"prompt": prompt, "text": text} for prompt, text in zip(prompts, texts, strict=True)]
        told["rows"] = write(rows, work.folder)


main()
