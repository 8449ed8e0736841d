"""distilabel: a pipeline of a loader and a text generation step. Its asynchronous LLM sends a batch at once, so the
batch is as large as the concurrency."""

from distilabel.models import OpenAILLM
from distilabel.pipeline import Pipeline
from distilabel.steps import LoadDataFromDicts
from distilabel.steps.tasks import TextGeneration
from onecall import MAX_TOKENS, TEMPERATURE, TIMEOUT_S, job, measured, write


def main():
    work = job()
    with measured() as told:
        with Pipeline(name="probe", cache_dir=f"{work.folder}/cache") as pipeline:
            load = LoadDataFromDicts(
                data=[{"instruction": prompt} for prompt in work.prompts()], batch_size=work.concurrency
            )
            write_text = TextGeneration(
                llm=OpenAILLM(
                    model="mock",
                    base_url=work.base_url,
                    api_key="benchmark-key",
                    timeout=TIMEOUT_S,
                    generation_kwargs={"temperature": TEMPERATURE, "max_new_tokens": MAX_TOKENS},
                ),
                input_batch_size=work.concurrency,
                add_raw_input=False,
                add_raw_output=False,
            )
            load >> write_text
        made = pipeline.run(use_cache=True)
        rows = [{"prompt": row["instruction"], "text": row["generation"]} for row in made["default"]["train"].to_list()]
        told["rows"] = write(rows, work.folder)


if __name__ == "__main__":  # its steps are processes
    main()
