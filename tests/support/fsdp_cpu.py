"""The command line under FSDP on CPUs, for `torch.distributed.run`.

accelerate hands FSDP to GPUs only, and on CPUs goes on with whole copies in silence, while torch shares weights between
CPU processes (gloo) just as well. So accelerate's state is told that this is FSDP; all else is as on GPUs.
"""

from __future__ import annotations

from typing import Any

from accelerate import state
from accelerate.utils import DistributedType

from distill.cli import main

_plain = state.AcceleratorState.__init__


def _started(self: Any, *args: Any, fsdp_plugin: Any = None, **kwargs: Any) -> None:
    first = not self.initialized
    _plain(self, *args, fsdp_plugin=fsdp_plugin, **kwargs)
    if first and fsdp_plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
        self.distributed_type = DistributedType.FSDP
        self.fsdp_plugin = fsdp_plugin


state.AcceleratorState.__init__ = _started

if __name__ == "__main__":
    main()
