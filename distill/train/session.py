# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# transformers' trainer is only partly typed.
"""One training session, whatever its method: a folder is claimed, the student loaded, the trainer run, the result left.

What is left is described in `folder.py`. The same call again continues a session that was broken off, so everything
that decides the result stands in the identity the folder is claimed with.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from distill.errors import Halted
from distill.io import digest
from distill.io.memory import map_large_blocks
from distill.recipe import TrainConfig
from distill.train import student, team
from distill.train.bases import remember
from distill.train.board import board
from distill.train.facts import run_facts
from distill.train.folder import TrainResult, claim, finish, identity, last_checkpoint, remembered
from distill.train.ready import choose_attention, make_ready, restore
from distill.train.template import use_template
from distill.train.watch import Progress, Watch

__all__ = ["Session", "begin"]


@dataclass
class Session:
    """A training that has claimed its folder."""

    config: TrainConfig
    place: student.Place
    out: Path
    seed: int
    base: str
    """Digest of the base's weights."""
    known: str
    """Its identity."""
    started: float
    watch: Watch
    dtype: str = ""
    tokenizer: Any = None
    template: str = ""
    resumed: Path | None = None
    _about: dict[str, Any] = field(default_factory=dict[str, Any])
    """Facts that are known on the way."""

    @property
    def checkpoints(self) -> Path:
        return self.out / "checkpoints"

    @property
    def tolerance(self) -> float:
        """How far two ways to compute the same loss may lie apart, relatively."""
        return 0.02 if self.dtype == "bfloat16" else 1e-3

    def read_template(self, adapter: Path | None = None) -> None:
        """Load the tokenizer; the chat template is the adapter's where one is given."""
        self.tokenizer = student.load_tokenizer(self.place.folder)
        self.template = use_template(self.tokenizer, adapter)

    def choose_dtype(self, given: tuple[str, str] | None = None) -> None:
        """The number type and why: `given`, or what pays on this machine, once for a training."""
        choose = (lambda: given) if given is not None else (lambda: student.choose_dtype(self.config.dtype))
        self.dtype, self._about["dtype_reason"] = team.agreed(lambda: remembered(self.out, choose))

    def load(self) -> Any:
        """The student, with the draws that follow decided by the seed."""
        from transformers import set_seed

        if self.config.gradient_checkpointing:  # what little is kept lies between what is not, and holes are most
            map_large_blocks()
        set_seed(self.seed)
        # A full fine-tune keeps its weights in float32 and multiplies in bfloat16: in bfloat16 alone most updates are
        # smaller than the spacing of the numbers, and are lost.
        held = "float32" if self.config.adapter == "full" else self.dtype
        return student.load_model(self.place.folder, dtype=held, four_bit=self.config.adapter == "qlora")

    def new_adapter(self, model: Any) -> Any:
        """PEFT's settings for a new adapter; None where all weights are trained."""
        return None if self.config.adapter == "full" else student.adapter_config(self.config.lora, model)

    def make_ready(self, trainer: Any, longest: int, *, sides: int = 1) -> None:
        """The fastest arithmetic that the model allows for rows of at most `longest` tokens."""
        self._about["fused_layers"] = make_ready(trainer.model, self.config)
        self._about["attention"] = choose_attention(trainer.model, self.config, longest, sides=sides)

    def run(self, trainer: Any) -> None:
        """All updates, or those that an earlier session did not come to.

        Raises:
            Halted: stopped on request.
        """
        self.resumed = team.agreed(lambda: last_checkpoint(self.checkpoints))
        trainer.train(resume_from_checkpoint=str(self.resumed) if self.resumed else None)
        if self.watch.stopped:
            step = trainer.state.global_step
            raise Halted(
                f"stopped at step {step} of {trainer.state.max_steps}; saved in {self.checkpoints}",
                hint="the same command continues from there",
            )

    def leave(self, trainer: Any, data: Any, **facts: Any) -> TrainResult:
        """Save what was trained on `data`, with the facts of every training and `facts`."""
        restore(trainer.model)
        whole = trainer.accelerator.get_state_dict(trainer.model) if trainer.is_fsdp_enabled else None

        def written() -> dict[str, Any]:
            four_bit = self.config.adapter == "qlora"
            saved = student.save(
                trainer.model,
                self.tokenizer,
                self.out,
                base=self.place.name,
                template=self.template,
                trained={"dtype": self.dtype, "four_bit": four_bit, "base_digest": self.base},
                state=whole,
            )
            common = {
                "data_digest": data.digest,
                "sources": list(data.sources),
                "model": self.place.name,
                "seed": self.seed,
                "dtype": self.dtype,
                **self._about,
                "processes": team.members(),
                "template": digest(self.template.encode()),
                "weights_digest": student.weights_digest(saved),
                "identity": self.known,
            }
            figures = run_facts(self.config, trainer, self.watch, started=self.started, resumed=self.resumed)
            return finish(self.out, {**figures, **facts, **common}).facts

        return TrainResult(self.out, team.agreed(written))


def begin(
    config: TrainConfig,
    place: student.Place,
    out: Path,
    *,
    seed: int,
    progress: Callable[[Progress], None],
    stop: Callable[[], bool],
    overwrite: bool,
    **depends: Any,
) -> Session | TrainResult:
    """A session that owns `out`; or the result that stands there, where this training is finished.

    Args:
        depends: what the result depends on beside the settings, the base and the seed.

    Raises:
        InputError: another training stands in `out`, and `overwrite` is not set.
    """
    started = time.monotonic()
    seed = config.seed if config.seed is not None else seed
    base = student.weights_digest(place.folder)
    if team.members() > 1:
        student.offline()
        team.join()
    known = identity(config, model=[place.name, base], seed=seed, **depends)

    def claimed() -> dict[str, Any] | None:
        remember(place, base)
        return claim(out, known, overwrite=overwrite)

    finished = team.agreed(claimed)
    if finished is not None:
        return TrainResult(out, finished)
    student.offline()
    watch = Watch(progress=progress, stop=stop)
    if team.leads():
        watch.log = out / "log.jsonl"
        watch.board = board(out / "tensorboard") if config.tensorboard else None
    return Session(config, place, out, seed, base, known, started, watch)
