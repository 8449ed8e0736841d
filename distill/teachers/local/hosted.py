"""llama-server out of the `xllamacpp` wheel, as a program: `python hosted.py --model FILE --port N …`.

The wheel holds llama.cpp's server as a library. Run in a process of its own, a crash of it costs some requests and not
the run. The flags are the few of `llama-server` that the engine uses, so that either can be started the same way; the
key is read from `LLAMA_API_KEY`.
"""

# pyright: reportMissingImports=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportMissingModuleSource=false, reportAttributeAccessIssue=false
# xllamacpp is an optional compiled module without types.

from __future__ import annotations

import argparse
import os
import signal


def main() -> None:
    """Serve until terminated."""
    parser = argparse.ArgumentParser(prog="hosted")
    parser.add_argument("--model", required=True)
    parser.add_argument("--alias", required=True)
    parser.add_argument("--host", required=True)
    for number in ("--port", "--parallel", "--ctx-size", "--threads", "--threads-batch", "--cache-ram"):
        parser.add_argument(number, type=int, required=True)
    parser.add_argument("--log-verbosity", type=int, default=2)
    given, _ = parser.parse_known_args()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = given.model
    params.model_alias = {given.alias}
    params.hostnames = [given.host]
    params.port = given.port
    params.n_parallel = given.parallel
    params.n_ctx = given.ctx_size
    params.cpuparams.n_threads = given.threads
    params.cpuparams_batch.n_threads = given.threads_batch
    params.cache_ram_mib = given.cache_ram
    params.cache_prompt = True
    params.fit_params = False
    params.endpoint_slots = False
    params.ui = False
    params.offline = True
    params.verbosity = given.log_verbosity
    params.api_keys = [os.environ["LLAMA_API_KEY"]]
    server = xllamacpp.Server(params)  # serves from threads of its own for as long as it is referenced
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    while server:
        signal.pause()


if __name__ == "__main__":
    main()
