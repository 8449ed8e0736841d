"""NVIDIA Data Designer: a seed column of prompts and one LLM text column. A killed run is continued from its row
groups."""

import data_designer.config as dd
import pandas as pd
from data_designer.interface import DataDesigner
from onecall import MAX_TOKENS, TEMPERATURE, TIMEOUT_S, job, measured, write


def main():
    work = job()
    with measured() as told:
        model = dd.ModelConfig(
            alias="mock",
            model="mock",
            provider="loopback",
            skip_health_check=True,
            inference_parameters=dd.ChatCompletionInferenceParams(
                temperature=TEMPERATURE,
                max_tokens=MAX_TOKENS,
                max_parallel_requests=work.concurrency,
                timeout=TIMEOUT_S,
            ),
        )
        builder = dd.DataDesignerConfigBuilder(model_configs=[model])
        builder.with_seed_dataset(dd.DataFrameSeedSource(df=pd.DataFrame({"prompt": work.prompts()})))
        builder.add_column(dd.LLMTextColumnConfig(name="text", model_alias="mock", prompt="{{ prompt }}"))
        designer = DataDesigner(
            artifact_path=f"{work.folder}/artifacts",
            model_providers=[dd.ModelProvider(name="loopback", endpoint=work.base_url, api_key="OPENAI_API_KEY")],
        )
        designer.set_run_config(
            dd.RunConfig(
                # Tasks wait inside the engine for a free request: it needs more of them than requests.
                max_in_flight_tasks=max(1024, 2 * work.concurrency),
                otel_metrics_port=None,
                jinja_rendering_engine="native",
                disable_early_shutdown=True,
            )
        )
        made = designer.create(builder, num_records=work.rows, dataset_name="probe", resume=dd.ResumeMode.IF_POSSIBLE)
        told["rows"] = write(made.load_dataset().to_dict("records"), work.folder)


main()
