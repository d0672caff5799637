"""A transformer of any size in shards on disk, and a process that loads it and says what it took.

As a script, `python -m tests.memory.sharded FOLDER PRECISION streamed|whole`, or `FOLDER t5 both`: prints one JSON line of bytes.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

from fluxtui.engine import quiet


def write_sharded(folder: Path, shard_bytes: int, **config: Any) -> int:
    """A pipeline folder with only a transformer: random bf16 weights, shards of about `shard_bytes`; gives their bytes."""
    import torch
    from safetensors.torch import save_file

    from tests.trainer.tiny_flux import new_transformer

    with torch.device("meta"):
        transformer = new_transformer(**config)
    (folder / "transformer").mkdir(parents=True)
    (folder / "transformer" / "config.json").write_text(json.dumps(dict(transformer.config)))
    noise = torch.randn(2**20, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    shards: list[dict[str, torch.Tensor]] = [{}]
    for name, tensor in transformer.state_dict().items():
        if sum(held.nbytes for held in shards[-1].values()) >= shard_bytes:
            shards.append({})
        shards[-1][name] = torch.empty(tensor.shape, dtype=torch.bfloat16, device="meta")
    weight_map, total = {}, 0
    for number, shard in enumerate(shards, 1):
        file = f"diffusion_pytorch_model-{number:05d}-of-{len(shards):05d}.safetensors"
        whole = {
            name: noise.repeat(-(-held.numel() // noise.numel()))[: held.numel()].view(held.shape) for name, held in shard.items()
        }
        save_file(whole, folder / "transformer" / file)
        weight_map |= dict.fromkeys(shard, file)
        total += sum(tensor.nbytes for tensor in whole.values())
    index = folder / "transformer" / "diffusion_pytorch_model.safetensors.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": total}, "weight_map": weight_map}))
    return total


def write_t5(folder: Path, shard: str) -> int:
    """A T5 encoder in bf16, as transformers writes it, in shards of at most `shard` ("100MB"); gives its bytes."""
    import torch
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(0)
    config = T5Config(
        vocab_size=2048, d_model=1024, d_kv=64, d_ff=2816, num_layers=6, num_heads=16, feed_forward_proj="gated-gelu",
        is_encoder_decoder=False, use_cache=False,
    )  # fmt: skip
    with torch.device("meta"):
        module = T5EncoderModel(config)
    module = module.to(torch.bfloat16).to_empty(device="cpu")
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    module.save_pretrained(folder, max_shard_size=shard)
    return sum(parameter.nbytes for parameter in module.parameters())


class Anonymous:
    """The most anonymous memory that this process had while inside, in bytes: not file pages, which the kernel takes back."""

    def __enter__(self) -> Anonymous:
        self.before = self.peak = anonymous_bytes()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(0.005):
            self.peak = max(self.peak, anonymous_bytes())


def anonymous_bytes() -> int:
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("RssAnon"))


def main_t5(folder: Path) -> None:
    """To another device, the meta device, where nothing stays: streamed, and as a loader does that is not."""
    import accelerate  # noqa: F401  (what the load imports is not the load's)
    import torch
    from transformers.models.t5.modeling_t5 import T5EncoderModel

    from fluxtui.engine.family.flux1.stream import stream_t5

    torch.set_num_threads(1)
    with Anonymous() as streamed:
        stream_t5(folder, torch.float32, "meta")
    with Anonymous() as whole:
        T5EncoderModel.from_pretrained(folder, dtype=torch.float32).to("meta")
    print(json.dumps({"streamed": streamed.peak - streamed.before, "whole": whole.peak - whole.before}))


def main(folder: Path, precision: str, how: str) -> None:
    quiet.hush()
    if precision == "t5":
        return main_t5(folder)
    import torch

    from fluxtui.engine.family.flux1.components import Components
    from fluxtui.engine.memory.precision import CODECS

    torch.set_num_threads(1)
    components, codec = Components(folder), CODECS[precision]
    codec.encode(torch.ones(2, 64))  # its library's own memory is not the load's
    components.empty_transformer()
    with Anonymous() as memory:
        if how == "whole":  # what a loader does that is not streamed: all of it, then the codes
            from safetensors.torch import load_file

            everything = {}
            for file in sorted((folder / "transformer").glob("*.safetensors")):
                everything |= {name: tensor.clone() for name, tensor in load_file(file).items()}
        transformer = components.load_transformer(torch.bfloat16, "cpu", codec=codec)
    stays = sum(tensor.nbytes for tensor in transformer.state_dict().values())
    print(json.dumps({"before": memory.before, "peak": memory.peak, "stays": stays}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
