"""A stand-in for llama-server: same flags, same endpoints, and it can be told to misbehave.

The last user message decides: `die` kills the process in the middle of the request, `slow` waits, anything else is
answered with the text, the seed and the number of requests so far.
"""

from __future__ import annotations

import argparse
import http.server
import json
import os
import signal
import sys
import time


class Handler(http.server.BaseHTTPRequestHandler):
    served = 0
    ready_at = 0.0
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._send(200 if time.monotonic() >= type(self).ready_at else 503, {"status": "ok"})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.headers.get("Authorization") != f"Bearer {os.environ['LLAMA_API_KEY']}":
            self._send(401, {"error": {"message": "Invalid API Key", "type": "authentication_error"}})
            return
        text = body["messages"][-1]["content"]
        if text == "die":
            print("about to die: tensor is on fire", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if text == "slow":
            time.sleep(30)
        type(self).served += 1
        said = json.dumps({"text": text, "seed": body["seed"], "fields": sorted(body), "served": type(self).served})
        message = {"role": "assistant", "content": said}
        usage = {"prompt_tokens": 3, "completion_tokens": 5, "total_tokens": 8}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        self._send(200, {"object": "chat.completion", "model": "fake", "choices": [choice], "usage": usage})

    def _send(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        pass


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int)
    parser.add_argument("--model")
    parser.add_argument("--refuse", action="store_true")
    parser.add_argument("--ready-after", type=float, default=0.0)
    given, _ = parser.parse_known_args()
    if given.refuse or (given.model and "broken" in given.model):
        print("error: this model cannot be loaded", file=sys.stderr, flush=True)
        sys.exit(3)
    Handler.ready_at = time.monotonic() + given.ready_after
    http.server.ThreadingHTTPServer(("127.0.0.1", given.port), Handler).serve_forever()


if __name__ == "__main__":
    main()
